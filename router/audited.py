"""Audits as a certificate must take them: what nobody could score counts as worse."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from router.drafts import Drafts
from router.learn_table import LearnTable
from router.learnt import Learnt
from router.train import records_at
from router.value_fit import Records


@dataclass(frozen=True, slots=True)
class Audited:
    """Records of audits; `known` [n, models] says whose scores were told, the rest are losses."""

    records: Records
    known: NDArray[np.bool_]

    @property
    def unscored(self) -> int:
        """Return how many requests have an answer that nobody scored."""
        return int((~self.known).any(axis=1).sum())


def audited(learnt: Learnt, table: LearnTable, reference: str) -> Audited:
    """Return the records of a table that may lack scores; it was read with `replies=True`.

    To leave such requests out would leave out served drafts alone. The reference is no worse
    than itself, whether it was asked or not.
    """
    table = table.of_models(learnt.models)
    score = table.score.copy()
    score[:, learnt.models.index(reference)] = 1.0
    known = ~np.isnan(score)
    table = replace(table, score=np.nan_to_num(score, nan=0.0))
    return Audited(records_at(learnt, table, Drafts.read(table)), known)
