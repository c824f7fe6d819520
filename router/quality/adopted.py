"""A model that joined later, known by few probes: a shrunk mixture of the known ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.quality.linear import base_rates, expit, logit
from router.quality.state import array_of
from router.state import State

Floats = NDArray[np.float64]

_TO_MEAN = 25.0  # nats that a squared deviation from the mean of all models costs
_CLUSTER_PRIOR = 25.0
_STEPS = 15


@dataclass(frozen=True, slots=True, eq=False)
class Adopted:
    """Weights over the known models' log-odds, an intercept, an offset a cluster.

    `probes` says how many replies taught it.
    """

    weights: Floats
    intercept: float
    offsets: Floats
    probes: int

    @classmethod
    def fit(cls, known: Floats, shares: Floats, scores: Floats) -> Adopted:
        """Fit on log-odds [probes, models] of the known models and shares [probes, clusters].

        The prior is a model as hard pressed by a prompt as the known ones are on
        average. What that leaves in a cluster is its offset, shrunk towards none.
        """
        count = known.shape[1]
        centre = np.append(np.full(count, 1.0 / count), 0.0)
        rows = np.column_stack([known, np.ones(len(known))])
        cost = np.append(np.full(count, _TO_MEAN), 0.05)
        found = centre.copy()
        found[-1] = float(logit(base_rates(scores[:, None]))[0] - known.mean())
        for _ in range(_STEPS):
            p = expit(rows @ found)
            gradient = rows.T @ (scores - p) - cost * (found - centre)
            curvature = (rows * (p * (1 - p))[:, None]).T @ rows + np.diag(cost)
            found = found + np.clip(np.linalg.solve(curvature, gradient), -1, 1)
        p = expit(rows @ found)
        spread = p * (1 - p)
        offsets = shares.T @ (scores - p) / (shares.T @ spread + _CLUSTER_PRIOR * spread.mean())
        return cls(found[:-1], float(found[-1]), offsets, len(scores))

    def log_odds(self, known: Floats, shares: Floats) -> Floats:
        """Return [queries]."""
        odds: Floats = known @ self.weights + self.intercept + shares @ self.offsets
        return odds

    def to_state(self) -> State:
        """Return what is kept on disk."""
        values = {"intercept": self.intercept, "probes": self.probes}
        return State(values, {"weights": self.weights, "offsets": self.offsets})

    @classmethod
    def from_state(cls, state: State, *, models: int, clusters: int) -> Adopted:
        """Make it again. Raises QualityError."""
        intercept = float(np.clip(float(state.values.get("intercept", 0.0)), -20, 20))
        return cls(
            array_of(state, "weights", (models,)),
            intercept if intercept == intercept else 0.0,
            array_of(state, "offsets", (clusters,)),
            int(state.values.get("probes", 0)),
        )
