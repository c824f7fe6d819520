"""How old an answer may be: as the route says, and as the request says (RFC 9111)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a request says of age, in seconds; None where it says nothing.

    `max_age` and `max_stale` (infinite where it is bare) come from `cache-control`.
    `ttl` is how long the answer to this request may be kept, where that is less
    than the route says.
    """

    max_age: float | None = None
    max_stale: float | None = None
    ttl: float | None = None


ANY_AGE = Bounds()


@dataclass(frozen=True, slots=True)
class Freshness:
    """An answer is fresh for `ttl` seconds, and kept to be served stale for `stale` more.

    Whoever names a `max-age` has no use for a stale answer, unless `max-stale` says so;
    whoever renews an answer is `only_fresh`. Where it `is_plain`, whatever is kept
    may be served as it is.
    """

    ttl: float
    stale: float = 0.0
    bounds: Bounds = ANY_AGE
    only_fresh: bool = False
    is_plain: bool = field(init=False)

    def __post_init__(self) -> None:
        plain = not self.stale and self.bounds is ANY_AGE and not self.only_fresh
        object.__setattr__(self, "is_plain", plain)

    @property
    def keep_for(self) -> float:
        """Return how long an answer is kept, in seconds."""
        longest = self.ttl + self.stale
        return longest if self.bounds.ttl is None else min(longest, self.bounds.ttl)

    def is_stale(self, age: float) -> bool:
        """Return whether an answer of that age should be made anew."""
        return age >= self.ttl

    def accepts(self, age: float) -> bool:
        """Return whether an answer of that age may be served."""
        bounds = self.bounds
        if bounds.max_age is not None and age > bounds.max_age + (bounds.max_stale or 0.0):
            return False
        return age < self.ttl + self._allowance()

    def _allowance(self) -> float:
        bounds = self.bounds
        if self.only_fresh:
            return 0.0
        if bounds.max_stale is not None:
            return min(self.stale, bounds.max_stale)
        return self.stale if bounds.max_age is None else 0.0


def read_bounds(control: str) -> Bounds:
    """Return what a `cache-control` header says of age; what cannot be read is passed over."""
    found: dict[str, float] = {}
    for directive in control.lower().split(","):
        name, _, value = directive.partition("=")
        name, text = name.strip(), value.strip().strip('"')
        if text.isdecimal():
            found[name] = float(text)
        elif name == "max-stale" and not text:
            found[name] = math.inf
    if found.keys().isdisjoint(("max-age", "max-stale")):
        return ANY_AGE
    return Bounds(found.get("max-age"), found.get("max-stale"))
