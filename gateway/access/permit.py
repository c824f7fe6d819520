"""What one request has taken of its limits, until it gives it back."""

from __future__ import annotations

from collections.abc import Callable

from gateway.access.gcra import Level
from gateway.access.meters import NOTHING, Claim, LimitStore, Pace, Settler, Taken
from gateway.access.refusals import rate_headers


class Permit:
    """What one request has taken. `cheapest` is the only model it may call, where that is set.

    `tell` is called once it has given everything back.
    """

    def __init__(self, store: LimitStore, tell: Callable[[], None] | None = None) -> None:
        self._tell = tell
        self.cheapest: str | None = None
        self.levels: list[tuple[Pace, Level]] = []
        self._store = store
        self._entrance: Claim | None = None
        self._work: Claim | None = None
        self._settlers: tuple[Settler, Settler] = (store, store)

    @property
    def has_entered(self) -> bool:
        """Return whether the request counts as one under way."""
        return self._entrance is not None

    @property
    def may_work(self) -> bool:
        """Return whether tokens and money were set aside for it."""
        return self._work is not None

    def note(self, entrance: Claim | None, work: Claim | None, taken: Taken, whole: Claim) -> None:
        """Keep what was taken, to give it back."""
        of_entrance, of_work = self._settlers
        settler = taken.settler or self._store
        if entrance is not None:
            self._entrance, of_entrance = entrance, settler
        if work is not None:
            self._work, of_work = work, settler
        self._settlers = of_entrance, of_work
        # A store that is away knows no levels.
        self.levels += [
            (pace, at) for (pace, _), at in zip(whole.paces, taken.levels, strict=False)
        ]

    def close(self, *, tokens: int, nano_usd: int) -> None:
        """Settle with what the request came to."""
        first, second = self._settlers
        if first is second:
            claims = [(first, both(self._entrance, self._work))]
        else:
            claims = [(first, self._entrance or NOTHING), (second, self._work or NOTHING)]
        for settler, claim in claims:
            settler.settle(claim, tokens=tokens, nano_usd=nano_usd)
        self._entrance = self._work = None
        if self._tell is not None:
            self._tell()

    def headers(self) -> dict[str, str]:
        """Return `x-ratelimit-*` as OpenAI names them, of the tightest limits."""
        return rate_headers(self.levels)


def both(first: Claim | None, second: Claim | None) -> Claim:
    """Return two claims as one."""
    if first is None or second is None:
        return first or second or NOTHING
    return Claim(first.paces + second.paces, first.rooms, second.purses)
