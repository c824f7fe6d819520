"""Giving up a draft under way: a scorer of beginnings, and how low one must score.

The scorer is learnt like that of whole drafts, from drafts cut at a few lengths. How low is
low enough is certified apart: of the drafts that would have been served, at most a small
share may be given up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from router.correctness import AnswerScorer, CorrectnessError, fit_scorer
from router.drafts import Drafts, Shorten, cut_at
from router.guarantee import upper_bound

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from router.learn_table import LearnTable

    Floats = NDArray[np.float64]
    Served = NDArray[np.int64]
    Rows = NDArray[np.intp]

LENGTHS: tuple[int, ...] = (250, 750)
"""Characters after which a draft is looked at."""

SPARED = 0.02
"""Of the drafts that would have been served, at most this share is given up, with 95 %."""

_ERROR = 0.05
_GRID: tuple[float, ...] = tuple(round(0.02 * step, 2) for step in range(1, 41))
_MOST = 3_000
_FOLDS = 3


def fit_beginnings(
    table: LearnTable,
    estimates: Floats,
    routes: Sequence[str | None],
    judged: Iterable[int],
    *,
    seed: int = 0,
) -> AnswerScorer | None:
    """Fit a scorer of the beginnings of drafts; None where hardly any is long enough.

    `table` has the first of the rows of `halves_of`; `estimates` are cross-fitted.
    """
    chosen = sorted(judged)
    drafts = Drafts.read(table, shorten=_of(chosen, cut_at(LENGTHS, seed=seed)))
    if drafts.present.sum() < 2 * len(chosen) * _FOLDS:
        return None
    fold = table.fold_of(_FOLDS, seed)
    try:
        return fit_scorer(drafts, table.score, estimates, routes, fold, judged=chosen, seed=seed)[0]
    except CorrectnessError:
        return None


def halves_of(count: int) -> tuple[Rows, Rows]:
    """Return the rows that beginnings are learnt from, and those that the threshold stands on.

    Of many, some evenly chosen.
    """
    rows = np.unique(np.linspace(0, count - 1, min(count, _MOST)).astype(np.intp))
    return rows[::2], rows[1::2]


def lowest_of(
    scorer: AnswerScorer,
    table: LearnTable,
    estimates: Floats,
    routes: Sequence[str | None],
    judged: Iterable[int],
) -> Floats:
    """Return the least that each draft scores at any look, [n, K]; infinity where there is none."""
    lowest = np.full(estimates.shape, np.inf)
    chosen = sorted(judged)
    for length in LENGTHS:
        drafts = Drafts.read(table, shorten=_of(chosen, _cut(length)))
        for place in chosen:
            found = scorer.quality(drafts, estimates, (place,), routes)[:, 0]
            lowest[:, place] = np.fmin(lowest[:, place], found)
    return lowest


def threshold_of(lowest: Floats, served: Served, judged: Iterable[int]) -> float | None:
    """Return the highest score below which a draft may be given up; None where none may be.

    `served` is who serves each request when every draft comes to its end. The thresholds are
    tried from the lowest up, and the first that fails ends it: no correction is needed.
    """
    chosen = np.isin(served, sorted(judged))
    spared = lowest[chosen, served[chosen]]
    found = None
    for threshold in _GRID:
        lost = int((spared < threshold).sum())
        if not len(spared) or upper_bound(lost, len(spared), _ERROR) > SPARED:
            break
        found = threshold
    return found


def _cut(length: int) -> Shorten:
    return lambda row, model, text: length if len(text) > length else 0


def _of(models: Sequence[int], shorten: Shorten) -> Shorten:
    return lambda row, model, text: shorten(row, model, text) if model in models else 0
