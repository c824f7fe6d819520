"""Several estimates of one probability made one: logistic, per model, shrunk to what is common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.quality.linear import expit
from router.quality.state import array_of, names_of
from router.state import State

Floats = NDArray[np.float64]

_APART = 300.0  # nats that a squared difference of the weights from their mean costs
_SCALE = 5.0  # and one of their mean from 1 / learners: how bold to be is for the data to say
_STEPS = 12


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    """Weights [models, learners] and intercepts [models] over the learners' log-odds."""

    learners: tuple[str, ...]
    weights: Floats
    intercepts: Floats

    @classmethod
    def fit(cls, learners: tuple[str, ...], odds: Floats, scores: Floats) -> Blend:
        """Fit on log-odds [queries, models, learners] of rows that the learners were not shown."""
        many = odds.shape[2]
        start = np.full(many, 1.0 / many)
        known = ~np.isnan(scores)
        common, _ = _newton(odds[known], scores[known], start)
        weights, intercepts = np.tile(common, (odds.shape[1], 1)), np.zeros(odds.shape[1])
        for model in range(odds.shape[1]):
            rows = known[:, model]
            if rows.any():
                weights[model], intercepts[model] = _newton(
                    odds[rows, model], scores[rows, model], common
                )
        return cls(learners, weights, intercepts)

    def log_odds(self, odds: Floats) -> Floats:
        """Return [queries, models]."""
        mixed: Floats = np.einsum("qml,ml->qm", odds, self.weights) + self.intercepts
        return mixed

    def to_state(self) -> State:
        """Return what is kept on disk."""
        arrays = {"weights": self.weights, "intercepts": self.intercepts}
        return State({"learners": list(self.learners)}, arrays)

    @classmethod
    def from_state(cls, state: State, *, models: int) -> Blend:
        """Make it again. Raises QualityError."""
        learners = tuple(names_of(state, "learners"))
        weights = array_of(state, "weights", (models, len(learners)))
        return cls(learners, weights, array_of(state, "intercepts", (models,)))


def _newton(x: Floats, y: Floats, prior: Floats) -> tuple[Floats, float]:
    """Return weights and intercept of greatest posterior; the intercept is nearly free."""
    rows = np.column_stack([x, np.ones(len(x))])
    middle, cost = np.append(prior, 0.0), _cost(len(prior))
    found = middle.copy()
    for _ in range(_STEPS):
        p = expit(rows @ found)
        gradient = rows.T @ (y - p) - cost @ (found - middle)
        curvature = (rows * (p * (1 - p))[:, None]).T @ rows + cost
        step = np.linalg.solve(curvature, gradient)
        found = found + np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-6:
            break
    return found[:-1], float(found[-1])


def _cost(many: int) -> Floats:
    cost = np.zeros((many + 1, many + 1))
    cost[:-1, :-1] = _APART * (np.eye(many) - 1 / many) + _SCALE / many
    cost[-1, -1] = 0.5
    return cost
