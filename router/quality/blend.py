"""Several estimates of one quality made one, with the same weights for every model.

A router compares models with each other. What the learners get wrong about a
prompt they get wrong about all models alike, and that cancels in a difference
only where all are weighted alike: weights, or a calibration, of each model's own
ranked the gains worse on RouteLLM's MMLU (0.637 against 0.647 APGR), at the
same Brier score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.quality.linear import base_rates
from router.quality.state import array_of, names_of
from router.state import State

Floats = NDArray[np.float64]

_PRIOR = 50.0  # what a squared deviation from equal weights costs, in squared errors


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    """Weights [learners] of how far each learner is from the base rates [models]."""

    learners: tuple[str, ...]
    weights: Floats
    rates: Floats

    @classmethod
    def fit(cls, learners: tuple[str, ...], found: Floats, scores: Floats) -> Blend:
        """Fit on estimates [queries, models, learners] of rows that the learners were not shown.

        Least squares, shrunk to equal weights.
        """
        rates = base_rates(scores)
        known = ~np.isnan(scores)
        apart = (found - rates[:, None])[known]
        wanted = (scores - rates)[known]
        many = len(learners)
        curvature = apart.T @ apart + _PRIOR * np.eye(many)
        weights = np.linalg.solve(curvature, apart.T @ wanted + _PRIOR / many)
        return cls(learners, np.asarray(weights, dtype=np.float64), rates)

    def mix(self, found: Floats) -> Floats:
        """Return [queries, models], kept from 0 to 1."""
        mixed: Floats = (found - self.rates[:, None]) @ self.weights + self.rates
        return np.clip(mixed, 0.0, 1.0)

    def to_state(self) -> State:
        """Return what is kept on disk."""
        arrays = {"weights": self.weights, "rates": self.rates}
        return State({"learners": list(self.learners)}, arrays)

    @classmethod
    def from_state(cls, state: State, *, models: int) -> Blend:
        """Make it again. Raises QualityError."""
        learners = tuple(names_of(state, "learners"))
        weights = array_of(state, "weights", (len(learners),))
        return cls(learners, weights, array_of(state, "rates", (models,)))
