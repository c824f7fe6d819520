"""What a route's traffic has shown: drafts beside what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zlib import crc32

_PARTS = 4


@dataclass(frozen=True, slots=True)
class Seen:
    """A draft. `score` is 1 where it was no worse than the reference's answer, 0 where it was.

    None where nobody could tell. `raw` is its confidence before any calibration (None: no use at
    all), `quality` the probability that was believed, `expected` what was believed before it.
    `is_heard`: the score is what clients said, of their own choice of requests. `labeller` says
    who told the score, `checked` what a judge said where the answers told it by themselves.
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
    labeller: str = ""
    checked: float | None = None


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


def provenance(requests: Iterable[Asked]) -> dict[str, Any]:
    """Return what a certificate on these audits is to say of them: their days, and who judged.

    `labelled` counts by labeller. Where a judge is among them `labeller_error` is the share of its
    verdicts that were wrong where the answers told it by themselves, of `judge_checked`; None
    where there was no such.
    """
    audits = list(requests)
    drafts = [seen for each in audits for seen in each.drafts if seen.score is not None]
    counts = Counter(seen.labeller for seen in drafts if seen.labeller)
    told: dict[str, Any] = {"labeller": " and ".join(sorted(counts)), "labelled": dict(counts)}
    if audits:
        first, last = (_day(each.at_us) for each in (audits[0], audits[-1]))
        told |= {"data": f"audits of {first} to {last}", "date": last}
    if "judge" in counts:
        checks = [seen.checked != seen.score for seen in drafts if seen.checked is not None]
        error = sum(checks) / len(checks) if checks else None
        told |= {"judge_checked": len(checks), "labeller_error": error}
    return told


def _day(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).date().isoformat()


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
