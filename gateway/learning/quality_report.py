"""How good the drafts of a route were, by what was learnt of them while it served."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.learning.book import OutcomeRow
from gateway.learning.feedback import Feedback

_Z = 1.959964
"""Both sides of a 95 % interval."""


@dataclass(frozen=True, slots=True)
class Drafts:
    """One model's drafts; means are of those that were judged and scored."""

    model: str
    drafts: int
    scored: int
    mean_quality: float | None
    mean_score: float | None


@dataclass(frozen=True, slots=True)
class Heard:
    """What clients said of one model's answers, or (`model` empty) of a cache's.

    `bad` are those below one half; `counted` the words that learning may take.
    """

    model: str
    cache: str
    words: int
    counted: int
    bad: int
    mean_score: float


@dataclass(frozen=True, slots=True)
class Quality:
    """What is known of a route.

    Of `drawn` requests that had a draft, `losses` were answered by a draft worse than the
    reference's answer, and of `unknown` nobody could tell. `low` and `high` bound the share of
    losses with 95 % confidence (Wilson), every unknown one taken for none, or for a loss.
    What clients said (`feedback`) is told beside it, and is no part of it.
    """

    route: str
    drawn: int
    losses: int
    unknown: int
    rate: float | None
    low: float
    high: float
    labels: dict[str, int]
    models: tuple[Drafts, ...]
    feedback: tuple[Heard, ...] = ()


def quality_of(route: str, rows: Iterable[OutcomeRow], words: Iterable[Feedback] = ()) -> Quality:
    """Sum up the outcomes of a route."""
    drafts = [row for row in rows if row.model != row.reference]
    drawn = {row.request_id for row in drafts if row.drawn}
    served = [row for row in drafts if row.drawn and row.served]
    losses = sum(row.score is not None and row.score < 1.0 for row in served)
    unknown = sum(row.score is None for row in served)
    known = len(drawn) - unknown
    by_model: dict[str, list[OutcomeRow]] = defaultdict(list)
    for row in drafts:
        by_model[row.model].append(row)
    return Quality(
        route,
        len(drawn),
        losses,
        unknown,
        losses / known if known else None,
        wilson(losses, len(drawn))[0],
        wilson(losses + unknown, len(drawn))[1],
        dict(Counter(row.labeller for row in drafts if row.score is not None)),
        tuple(_drafts(name, own) for name, own in sorted(by_model.items())),
        heard(words),
    )


def heard(words: Iterable[Feedback]) -> tuple[Heard, ...]:
    """Sum up what clients said, by model and cache."""
    groups: dict[tuple[str, str], list[Feedback]] = defaultdict(list)
    for word in words:
        groups[word.model, word.cache].append(word)
    return tuple(
        Heard(
            model,
            cache,
            len(own),
            sum(word.weight > 0 for word in own),
            sum(word.score < 0.5 for word in own),
            sum(word.score for word in own) / len(own),
        )
        for (model, cache), own in sorted(groups.items())
    )


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927); (0, 1) where nothing was seen."""
    if not count:
        return 0.0, 1.0
    share, square = hits / count, _Z * _Z
    middle = (share + square / (2 * count)) / (1 + square / count)
    spread = share * (1 - share) / count + square / (4 * count * count)
    half = _Z * math.sqrt(spread) / (1 + square / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def _drafts(model: str, rows: Sequence[OutcomeRow]) -> Drafts:
    scored = [(r.quality, r.score) for r in rows if r.quality is not None and r.score is not None]
    count = len(scored)
    return Drafts(
        model,
        len(rows),
        count,
        sum(quality for quality, _ in scored) / count if count else None,
        sum(score for _, score in scored) / count if count else None,
    )
