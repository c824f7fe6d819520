"""What one request has taken of its limits, until it gives it back."""

from __future__ import annotations

from collections.abc import Callable

from gateway.access.gcra import Level
from gateway.access.meters import NOTHING, Claim, LimitStore, Pace, Purse, Settler, Taken
from gateway.access.refusals import rate_lines


class Permit:
    """What one request has taken. `cheapest` is the only model it may call, where that is set.

    `set_aside` are the nano-dollars that budgets hold for it, None without budgets;
    `announced` the most that its calls so far may cost, each for itself. `tell` is
    called once it has given everything back. A client hears of what is left of
    tokens where `tells_tokens`.
    """

    __slots__ = (
        "_levels", "_more", "_purses", "_store", "_taken", "_tell", "announced", "cheapest",
        "has_entered", "may_work", "set_aside", "tells_tokens",
    )  # fmt: skip

    def __init__(self, store: LimitStore, tell: Callable[[], None] | None = None) -> None:
        self.cheapest: str | None = None
        self.has_entered = False
        self.may_work = False
        self.tells_tokens = True
        self._tell = tell
        self._store = store
        self._levels: list[tuple[Claim, Taken]] = []
        self._taken: list[tuple[Settler, Claim]] = []
        self._more: list[tuple[Settler, Claim]] = []
        self._purses: tuple[tuple[Purse, int], ...] = ()
        self.set_aside: int | None = None
        self.announced = 0

    def note(self, entrance: Claim | None, work: Claim | None, taken: Taken, whole: Claim) -> None:
        """Keep what was taken, to give it back.

        With `entrance` the request counts as one under way; with `work` tokens and
        money are set aside for it.
        """
        self.has_entered = self.has_entered or entrance is not None
        self.may_work = self.may_work or work is not None
        self._taken.append((taken.settler or self._store, whole))
        if work is not None and work.purses:
            self._purses, self.set_aside = work.purses, work.purses[0][1]
        self._levels.append((whole, taken))

    @property
    def may_lack(self) -> bool:
        """Return whether there were more calls than were foreseen, or longer ones."""
        return self.set_aside is not None and self.announced > self.set_aside

    def more(self, nano_usd: int) -> Claim:
        """Return the claim on so much more of the same budgets."""
        return Claim((), (), tuple([(purse, nano_usd) for purse, _ in self._purses]))

    def note_more(self, claim: Claim, taken: Taken) -> None:
        """Keep what was taken beside, to give it back."""
        self._more.append((taken.settler or self._store, claim))
        self.set_aside = (self.set_aside or 0) + claim.purses[0][1]

    def close(self, *, tokens: int, nano_usd: int) -> None:
        """Settle with what the request came to."""
        taken, self._taken = self._taken, []
        if len(taken) == 2 and taken[0][0] is taken[1][0]:
            taken = [(taken[0][0], both(taken[0][1], taken[1][1]))]
        for settler, claim in taken:
            settler.settle(claim, tokens=tokens, nano_usd=nano_usd)
        for settler, claim in self._more:
            settler.settle(claim, tokens=0, nano_usd=0)
        self._more.clear()
        self.has_entered = self.may_work = False
        if self._tell is not None:
            self._tell()

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return `x-ratelimit-*` as OpenAI names them, of the tightest limits."""
        levels: list[tuple[Pace, Level]] = []
        for claim, taken in self._levels:
            # A store that is away knows no levels.
            for (pace, _), at in zip(claim.paces, taken.levels, strict=False):
                if self.tells_tokens or pace.unit != "tokens":
                    levels.append((pace, at))
        return rate_lines(levels)


def both(first: Claim | None, second: Claim | None) -> Claim:
    """Return two claims as one."""
    if first is None or second is None:
        return first or second or NOTHING
    return Claim(first.paces + second.paces, first.rooms, second.purses)
