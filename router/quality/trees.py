"""Boosted trees over what the other learners say, the structure and the topics of a prompt.

Linear learners know a model's strength in a subject and a prompt's length each by itself; what
both together mean (a weak model, a hard subject, ten options) is seen by trees. Every model has
trees of its own, and sees in them what is expected of all the others (stacking, Wolpert 1992).
They are grown on estimates from outside each row's fold, or they would trust them too much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.forest import Forest, grow, joined
from router.quality.linear import expit
from router.quality.state import QualityError, array_of, part_of
from router.state import State

Floats = NDArray[np.float64]

FEWEST = 100
"""Scores of a model below which it has no trees."""

_TREES, _LEAVES, _RATE, _SHOWN, _CALM = 60, 4, 0.06, 0.3, 5.0
_TIMES = 2  # grown anew and averaged: what chance put into one of them cancels
_MOST, _HALFWAY = 0.65, 300.0


@dataclass(frozen=True, slots=True, eq=False)
class Trees:
    """Trees, those of a model from `starts` on, and their weight beside the blend, 0 to 1."""

    forest: Forest
    starts: NDArray[np.intp]
    weights: Floats

    @classmethod
    def fit(cls, rows: Any, scores: Floats) -> Trees | None:
        """Grow them on [queries, features]; None where no model has scores enough."""
        counts = (~np.isnan(scores)).sum(axis=0)
        if (counts < FEWEST).all():
            return None
        grown = [_grown(rows, column) for column in scores.T]
        weights = np.where(counts < FEWEST, 0.0, _MOST * counts / (counts + _HALFWAY))
        starts = np.cumsum([0, *(len(each.roots) for each in grown[:-1])])
        return cls(joined(grown), starts, weights)

    def mix(self, rows: Any, mixed: Floats) -> Floats:
        """Return [queries, models]: the blend's estimates, and the trees' by their weight."""
        odds = np.add.reduceat(self.forest.values(rows), self.starts, axis=1)
        return np.asarray(mixed + self.weights * (expit(odds) - mixed), dtype=np.float64)

    def to_state(self) -> State:
        """Return what is kept on disk."""
        arrays = {"starts": self.starts, "weights": self.weights}
        return State(arrays=arrays, parts={"forest": self.forest.to_state()})

    @classmethod
    def from_state(cls, state: State, *, width: int, models: int) -> Trees:
        """Make it again. Raises QualityError or ForestError."""
        forest = Forest.from_state(part_of(state, "forest"))
        weights = array_of(state, "weights", (models,)).astype(np.float64)
        starts = array_of(state, "starts", (models,)).astype(np.intp)
        ends = np.append(starts[1:], len(forest.roots))
        if forest.width != width or starts[0] != 0 or not (starts < ends).all():
            raise QualityError(f"quality model: expected trees over {width} features, each model's")
        return cls(forest, starts, np.clip(weights, 0.0, 1.0))


def rows_of(mixed: Floats, structure: NDArray[np.float32], topics: Floats) -> NDArray[np.float32]:
    """Return what the trees see of each prompt."""
    return np.hstack([mixed, structure, topics]).astype(np.float32)


def _grown(rows: NDArray[np.float32], scores: Floats) -> Forest:
    known = np.flatnonzero(~np.isnan(scores))
    if len(known) < FEWEST:
        return _nothing(rows.shape[1])
    grown = joined([
        grow(
            rows[known], scores[known],
            trees=_TREES, leaves=_LEAVES, rate=_RATE, features=_SHOWN, calm=_CALM,
            fewest=max(5, min(60, len(known) // 15)), seed=seed,
        )
        for seed in range(_TIMES)
    ])  # fmt: skip
    return replace(grown, value=grown.value / _TIMES)


def _nothing(width: int) -> Forest:
    """Return a tree that says nothing."""
    zero, end = np.zeros(1), np.full(1, -1, np.int32)
    return Forest(
        width, np.zeros(1, np.int32), np.zeros(1, np.int32), zero, end, end,
        np.zeros(1, np.bool_), zero,
    )  # fmt: skip
