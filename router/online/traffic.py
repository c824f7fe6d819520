"""What a route's traffic has shown: drafts beside what became of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from zlib import crc32

_PARTS = 4


@dataclass(frozen=True, slots=True)
class Seen:
    """A draft. `score` is 1 where it was no worse than the reference's answer, 0 where it was.

    None where nobody could tell. `raw` is its confidence before any calibration (None: no use at
    all), `quality` the probability that was believed, `expected` what was believed before it.
    `is_heard`: the score is what clients said, of their own choice of requests.
    """

    model: str
    raw: float | None
    score: float | None
    usd: float = 0.0
    served: bool = False
    quality: float | None = None
    expected: float | None = None
    version: str = ""
    tokens: int = 0
    is_heard: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A request with its drafts, in the order in which they were asked for.

    `drawn` with `propensity`: it was drawn before anything was known of it. `reference_usd` is
    None where the reference was not asked. `beside` are tiers asked once the request had been
    answered, so that it tells of every one; they were judged by nobody.
    """

    id: str
    at_us: int
    drawn: bool
    drafts: tuple[Seen, ...]
    reference_usd: float | None = None
    reference_version: str = ""
    prompt_tokens: int = 0
    propensity: float | None = None
    beside: tuple[Seen, ...] = ()

    @property
    def is_for_tuning(self) -> bool:
        """Return whether thresholds may be chosen by it; a certificate then stands on others.

        A quarter of those drawn, told by their ids alone, and all that were not drawn.
        """
        return not self.drawn or crc32(self.id.encode()) % _PARTS == 0


def labels(requests: Iterable[Asked]) -> int:
    """Return how many drafts were scored."""
    return sum(seen.score is not None for each in requests for seen in each.drafts)


def drawn(requests: Iterable[Asked]) -> list[Asked]:
    """Return those that were drawn."""
    return [each for each in requests if each.drawn]


def held_out(requests: Iterable[Asked]) -> list[Asked]:
    """Return those drawn that nothing may be chosen by."""
    return [each for each in requests if not each.is_for_tuning]


def for_tuning(requests: Iterable[Asked]) -> list[Asked]:
    """Return those that thresholds are chosen by."""
    return [each for each in requests if each.is_for_tuning]


def mean_reference_usd(requests: Sequence[Asked]) -> float:
    """Return what an answer of the reference costs on average, 0 where it was never asked."""
    known = [each.reference_usd for each in requests if each.reference_usd is not None]
    return sum(known) / len(known) if known else 0.0
