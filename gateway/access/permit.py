"""What one request has taken of its limits, until it gives it back."""

from __future__ import annotations

from collections.abc import Callable

from gateway.access.gcra import Level
from gateway.access.meters import NOTHING, Claim, LimitStore, Pace, Settler, Taken
from gateway.access.refusals import rate_lines


class Permit:
    """What one request has taken. `cheapest` is the only model it may call, where that is set.

    `tell` is called once it has given everything back.
    """

    __slots__ = ("_levels", "_store", "_taken", "_tell", "cheapest", "has_entered", "may_work")

    def __init__(self, store: LimitStore, tell: Callable[[], None] | None = None) -> None:
        self.cheapest: str | None = None
        self.has_entered = False
        self.may_work = False
        self._tell = tell
        self._store = store
        self._levels: list[tuple[Pace, Level]] = []
        self._taken: list[tuple[Settler, Claim]] = []

    def note(self, entrance: Claim | None, work: Claim | None, taken: Taken, whole: Claim) -> None:
        """Keep what was taken, to give it back.

        With `entrance` the request counts as one under way; with `work` tokens and
        money are set aside for it.
        """
        self.has_entered = self.has_entered or entrance is not None
        self.may_work = self.may_work or work is not None
        self._taken.append((taken.settler or self._store, whole))
        # A store that is away knows no levels.
        self._levels += [
            (pace, at) for (pace, _), at in zip(whole.paces, taken.levels, strict=False)
        ]

    def close(self, *, tokens: int, nano_usd: int) -> None:
        """Settle with what the request came to."""
        taken, self._taken = self._taken, []
        if len(taken) == 2 and taken[0][0] is taken[1][0]:
            taken = [(taken[0][0], both(taken[0][1], taken[1][1]))]
        for settler, claim in taken:
            settler.settle(claim, tokens=tokens, nano_usd=nano_usd)
        self.has_entered = self.may_work = False
        if self._tell is not None:
            self._tell()

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return `x-ratelimit-*` as OpenAI names them, of the tightest limits."""
        return rate_lines(self._levels)


def both(first: Claim | None, second: Claim | None) -> Claim:
    """Return two claims as one."""
    if first is None or second is None:
        return first or second or NOTHING
    return Claim(first.paces + second.paces, first.rooms, second.purses)
