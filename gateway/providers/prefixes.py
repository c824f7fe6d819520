"""Which beginnings of prompts come again, and whether a provider's cache of them pays.

A cached prefix is written at a share `write` of the input price and read at a
share `read`. Where each request finds its prefix warm with chance p, it costs
p * read + (1 - p) * write on average, which is less than 1 once p passes
(write - 1) / (write - read): 0.22 for five minutes at Anthropic's prices, 0.53
for an hour. The chance is learned from a bounded memory of digests, for each
prefix and, for one that is new, from what became of its tenant's others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Ttl = Literal["5m", "1h"]
Kind = Literal["tools", "system", "turn"]

SECONDS: dict[Ttl, float] = {"5m": 300.0, "1h": 3600.0}
_AT_FIRST = 0.1
"""Chance that a prefix comes again before anything is known: below any break-even."""
_FIRST_WEIGHT = 5.0
_KIN_WEIGHT = 2.0
_MOST_PREFIXES = 16_384
_MOST_TENANTS = 1_024


@dataclass(frozen=True, slots=True)
class CacheRates:
    """What reading and writing a cached prefix costs, as shares of the input price."""

    read: float = 0.1
    write: float = 1.25
    write_1h: float = 2.0


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a prompt where a cached prefix may end: after its tools, system or a turn.

    `digest` covers tenant and prefix; `tokens` is its length by our own guess.
    """

    kind: Kind
    digest: bytes
    tokens: int


class Sightings:
    """How often something was seen, and how often it came again in five minutes, in an hour."""

    __slots__ = ("later", "seen", "soon")

    def __init__(self) -> None:
        self.seen = 0
        self.soon = 0
        self.later = 0

    def again(self, after_s: float) -> None:
        """Note that what was seen came again."""
        self.soon += after_s <= SECONDS["5m"]
        self.later += after_s <= SECONDS["1h"]

    def chances(self) -> tuple[float, float]:
        """Return the chances that something of this kind comes again soon, and later."""
        whole = self.seen + _FIRST_WEIGHT
        return (
            (self.soon + _AT_FIRST * _FIRST_WEIGHT) / whole,
            (self.later + _AT_FIRST * _FIRST_WEIGHT) / whole,
        )


class _Known(Sightings):
    """One prefix: when it was last seen, and until when we keep it warm."""

    __slots__ = ("last", "ttl", "warm_until")

    def __init__(self, now: float) -> None:
        super().__init__()
        self.last = now
        self.ttl: Ttl = "5m"
        self.warm_until = float("-inf")


def best_ttl(soon: float, later: float, rates: CacheRates) -> Ttl | None:
    """Return how long a prefix is best kept, given its chances to come again; None for not."""
    short = soon * rates.read + (1.0 - soon) * rates.write
    long = later * rates.read + (1.0 - later) * rates.write_1h
    if min(short, long) >= 1.0:
        return None
    return "5m" if short <= long else "1h"


class PrefixMemory:
    """Remembers the prefixes of one model, and says which of a request's are worth caching."""

    def __init__(self, rates: CacheRates, *, least_tokens: int, most: int = _MOST_PREFIXES) -> None:
        self._rates = rates
        self._least = least_tokens
        self._most = most
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._kin: OrderedDict[tuple[str, Kind], Sightings] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def plan(self, tenant: str, marks: Sequence[Mark], now: float) -> list[Ttl | None]:
        """Return for each mark, in the prompt's order, how long to keep it; at most four are kept.

        The last mark is the whole prompt. `now` is in seconds, from any clock.
        """
        kept: list[Ttl | None] = [None] * len(marks)
        has_turn = False
        for place in reversed(range(len(marks))):
            mark, is_last = marks[place], place == len(marks) - 1
            if mark.tokens < self._least:
                break
            if mark.kind == "turn" and not is_last:
                # Of earlier turns only the newest one that is warm: what follows is new.
                if has_turn or (known := self._known.get(mark.digest)) is None:
                    continue
                has_turn = True
                self._see(tenant, mark, known, now)
                kept[place] = known.ttl if now < known.warm_until else None
            else:
                kept[place] = self._kept(tenant, mark, now)
        self._keep(marks, kept, now)
        return kept

    def _kept(self, tenant: str, mark: Mark, now: float) -> Ttl | None:
        known = self._known.get(mark.digest)
        if known is None:
            known = self._known[mark.digest] = _Known(now)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
            kin = self._kind(tenant, mark.kind)
            chances = kin.chances()
            kin.seen += 1
            known.seen += 1
            return best_ttl(*chances, self._rates)
        self._see(tenant, mark, known, now)
        if now < known.warm_until:
            return known.ttl  # there already: to read it costs least
        return best_ttl(*self._chances(tenant, mark.kind, known), self._rates)

    def _see(self, tenant: str, mark: Mark, known: _Known, now: float) -> None:
        """Note that a known prefix came again."""
        self._known.move_to_end(mark.digest)
        kin = self._kind(tenant, mark.kind)
        for each in (kin, known):
            each.again(now - known.last)
            each.seen += 1
        known.last = now

    def _chances(self, tenant: str, kind: Kind, known: _Known) -> tuple[float, float]:
        soon, later = self._kind(tenant, kind).chances()
        # Its newest sighting has had no time yet to be followed by another.
        whole = known.seen - 1 + _KIN_WEIGHT
        return (known.soon + soon * _KIN_WEIGHT) / whole, (
            known.later + later * _KIN_WEIGHT
        ) / whole

    def _kind(self, tenant: str, kind: Kind) -> Sightings:
        kin = self._kin.setdefault((tenant, kind), Sightings())
        self._kin.move_to_end((tenant, kind))
        while len(self._kin) > _MOST_TENANTS:
            self._kin.popitem(last=False)
        return kin

    def _keep(self, marks: Sequence[Mark], kept: list[Ttl | None], now: float) -> None:
        """Remember what will be warm; what is kept for an hour must stand before the rest."""
        is_long = False
        for place in reversed(range(len(marks))):
            ttl = kept[place]
            if ttl is None:
                continue
            is_long = is_long or ttl == "1h"
            if is_long:
                ttl = kept[place] = "1h"
            if (known := self._known.get(marks[place].digest)) is not None:
                known.ttl, known.warm_until = ttl, now + SECONDS[ttl]
