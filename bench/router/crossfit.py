"""The router's own parts for rows that they never saw: what tables of drafts stand on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.correctness import AnswerScorer, HeldOut, fit_scorer
from router.drafts import Drafts
from router.learn_table import LearnTable
from router.quality.model import QualityModel

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
_FOLDS = 3  # within what is fitted on; each costs as much as the fit that is asked in the end


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """Parts that saw the rows `inside` alone; `first` estimates all rows of the table.

    Those of the rows inside, and what `held` says of their drafts, come from the other folds.
    """

    inside: Rows
    first: Floats
    scorer: AnswerScorer
    held: HeldOut


def fitted(
    table: LearnTable,
    drafts: Drafts,
    inside: Rows,
    outside: Rows,
    *,
    judged: list[int] | None = None,
    without: tuple[str, ...] = (),
) -> Fitted:
    """Fit on rows of a table as `frugal train` does, for asking it of the rows outside."""
    first, fold = estimated(table, inside, outside)
    scorer, held = fit_scorer(
        some(drafts, inside), table.score[inside], first[inside],
        [table.source[int(row)] for row in inside], fold, judged=judged, without=without,
    )  # fmt: skip
    return Fitted(inside, first, scorer, held)


def estimated(table: LearnTable, inside: Rows, outside: Rows) -> tuple[Floats, Rows]:
    """Return the router's own estimates of every row by rows it is not among, and inside's folds.

    No query that is estimated tells its category.
    """
    train = table.subset(inside)
    fold = train.fold_of(_FOLDS, seed=1)
    found = np.full(table.score.shape, np.nan)
    parts = [(np.flatnonzero(fold != each), inside[fold == each]) for each in range(_FOLDS)]
    for known, asked in (*parts, (np.arange(len(train)), outside)):
        model = QualityModel.fit(train.subset(known), bare=table.queries[0].vector is None)
        found[asked] = model.estimate(table.subset(asked).without_categories().queries).quality
    return found, fold


def some(drafts: Drafts, rows: Rows) -> Drafts:
    """Return the drafts of these rows."""
    return Drafts(
        drafts.models, drafts.features[rows], drafts.present[rows], drafts.agree[rows],
        [drafts.bags[int(row)] for row in rows],
    )  # fmt: skip
