"""Soft groups of prompts, and how each model does in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.quality.linear import base_rates
from router.quality.state import array_of
from router.state import State

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]

_ROWS_EACH, _MOST = 60, 150
_WARMTH = 0.08  # of the softmax over squared distances: some groups share a prompt
_FITTED_ON = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Centres found by k-means; a prompt belongs to all of them, to the nearest most."""

    centres: Vectors

    @classmethod
    def fit(cls, vectors: Vectors, *, seed: int = 0) -> Clusters:
        """Find one cluster for each 60 prompts, 2 to 150. Needs no scores."""
        from sklearn.cluster import KMeans

        rows = np.random.default_rng(seed).permutation(len(vectors))[:_FITTED_ON]
        distinct = len(np.unique(vectors[rows], axis=0))
        count = int(np.clip(len(rows) // _ROWS_EACH, min(2, distinct), min(_MOST, distinct)))
        found = KMeans(count, n_init=1, max_iter=30, random_state=seed).fit(vectors[rows])
        return cls(found.cluster_centers_.astype(np.float32))

    def shares(self, vectors: Vectors) -> Floats:
        """Return [queries, clusters], rows that sum to one."""
        apart = (self.centres**2).sum(1) - 2 * vectors @ self.centres.T
        apart = (apart - apart.min(1, keepdims=True)).astype(np.float64)
        powers = np.exp(-apart / _WARMTH)
        shares: Floats = powers / powers.sum(1, keepdims=True)
        return shares

    def to_state(self) -> State:
        """Return what is kept on disk."""
        return State(arrays={"centres": self.centres})

    @classmethod
    def from_state(cls, state: State, *, width: int) -> Clusters:
        """Make it again. Raises QualityError."""
        return cls(array_of(state, "centres", (None, width)).astype(np.float32))


def group_means(shares: Floats, scores: Floats, *, prior: float) -> Floats:
    """Return [groups, models]: mean scores, each shrunk by `prior` rows of the model's own mean."""
    known = ~np.isnan(scores)
    mass = shares.T @ known
    total = shares.T @ np.where(known, scores, 0.0)
    means: Floats = (total + prior * base_rates(scores)) / (mass + prior)
    return means
