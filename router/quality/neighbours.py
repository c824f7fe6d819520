"""How the models did on the most similar prompts seen before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.quality.linear import base_rates
from router.quality.state import array_of
from router.state import State

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]

MOST = 8192
"""How many prompts are remembered: to search more takes longer than a decision may."""

_SHARPNESS = 8.0
_PRIOR = 5.0  # the base rate weighs as much as so many perfect neighbours
_BLOCK = 512


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Means of the neighbours' scores [queries, models], and how much evidence they are.

    `evidence` counts neighbours, each as the share of the way from a random pair's
    similarity to that of the training prompts' own nearest.
    """

    quality: Floats
    evidence: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """The k nearest by cosine, weighted by similarity and shrunk to the base rates."""

    vectors: Vectors
    scores: NDArray[np.float32]
    rates: Floats
    count: int
    far: float
    near: float

    @classmethod
    def fit(cls, vectors: Vectors, scores: Floats, *, count: int = 50, seed: int = 0) -> Neighbours:
        """Remember these prompts, or a random part of them where they are very many."""
        chance = np.random.default_rng(seed)
        rows = np.sort(chance.permutation(len(vectors))[:MOST])
        kept = np.ascontiguousarray(vectors[rows], dtype=np.float32)
        sample = kept[chance.permutation(len(kept))[:_BLOCK]]
        alike = sample @ kept.T
        far = float(np.median(alike))
        alike[alike > 0.999] = -1.0  # a prompt is not its own neighbour
        near = max(float(np.median(alike.max(1))), far + 0.05)
        count = max(1, min(count, len(kept) // 4))
        told = scores[rows]
        return cls(kept, told.astype(np.float32), base_rates(told), count, far, near)

    def find(self, vectors: Vectors) -> Found:
        """Return what the neighbours of these prompts say."""
        parts = [self._find(vectors[at : at + _BLOCK]) for at in range(0, len(vectors), _BLOCK)]
        return Found(
            np.concatenate([part.quality for part in parts]),
            np.concatenate([part.evidence for part in parts]),
        )

    def _find(self, vectors: Vectors) -> Found:
        alike = vectors @ self.vectors.T
        chosen = np.argpartition(alike, -self.count, axis=1)[:, -self.count :]
        close = np.take_along_axis(alike, chosen, 1).astype(np.float64)
        weight = np.exp(_SHARPNESS * (close - close.max(1, keepdims=True)))
        scores = self.scores[chosen].astype(np.float64)
        known = ~np.isnan(scores)
        total = np.einsum("qk,qkm->qm", weight, np.where(known, scores, 0.0))
        mass = np.einsum("qk,qkm->qm", weight, known)
        quality = (total + _PRIOR * self.rates) / (mass + _PRIOR)
        evidence = np.clip((close - self.far) / (self.near - self.far), 0, 1).sum(1)
        return Found(quality, evidence)

    def to_state(self) -> State:
        """Return what is kept on disk; unknown scores are -1, since NaN is not trusted there."""
        scores = np.where(np.isnan(self.scores), np.float32(-1), self.scores)
        values = {"count": self.count, "far": self.far, "near": self.near}
        return State(values, {"vectors": self.vectors, "scores": scores})

    @classmethod
    def from_state(cls, state: State, *, width: int, models: int) -> Neighbours:
        """Make it again. Raises QualityError."""
        vectors = array_of(state, "vectors", (None, width)).astype(np.float32)
        scores = array_of(state, "scores", (len(vectors), models)).astype(np.float32)
        count = int(np.clip(int(state.values.get("count", 1)), 1, len(vectors)))
        far, near = float(state.values.get("far", 0.0)), float(state.values.get("near", 1.0))
        known = np.where(scores < 0, np.float32(np.nan), np.minimum(scores, 1))
        rates = base_rates(known.astype(np.float64))
        return cls(vectors, known, rates, count, far, max(near, far + 0.05))
