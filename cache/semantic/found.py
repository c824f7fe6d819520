"""What a route allows of the semantic cache, what it gives, and what it counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from cache.semantic.keeping import is_changing
from cache.types import CachedReply


@dataclass(frozen=True, slots=True)
class Terms:
    """What a route allows: the share of wrong answers among those served, and bounds.

    `max_entries` and `max_writes`, those of a minute, hold for each tenant, so that nobody
    drives out another's answers. What changes is kept for `changing_ttl`, where that is given.
    What cost less than `min_usd` is not kept.
    `cross_encoder` is the model that is asked about close decisions, None for nobody.
    """

    max_error: float
    ttl: float
    max_entry: int = 256 * 1024
    max_entries: int = 1_000_000
    cross_encoder: str | None = None
    changing_ttl: float | None = None
    max_writes: int = 1_000_000
    min_usd: float = 0.0

    def ttl_of(self, question: str) -> float:
        """Return for how many seconds the answer to a question is kept."""
        if self.changing_ttl is None or not is_changing(question):
            return self.ttl
        return min(self.ttl, self.changing_ttl)


@dataclass(frozen=True, slots=True)
class SemanticHit:
    """An answer that serves, and how near its question was.

    One that is withheld is there to be compared with the answer that is given in its
    place. It would serve, were the route's error budget not spent, if it `is_sure`;
    else it only teaches.
    """

    reply: CachedReply
    similarity: float
    entry_id: str
    question: str
    probability: float
    is_withheld: bool = False
    is_sure: bool = True


@dataclass(slots=True)
class SemanticStats:
    """Counts since the start. `refused` tells guards apart, `decided` why none was served.

    `doubted` are hits that clients found wrong.
    """

    lookups: int = 0
    hits: int = 0
    withheld: int = 0
    kept: int = 0
    taught: int = 0
    doubted: int = 0
    errors: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    decided: Counter[str] = field(default_factory=Counter)
