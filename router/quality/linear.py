"""Logistic regression of many models at once, on dense or sparse rows with gaps in the scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.quality.state import array_of
from router.state import State

Floats = NDArray[np.float64]

_EDGE = 0.02  # a base rate is kept this far from 0 and 1, so that its logit stays finite
_STEPS, _INNER = 6, 25
_ENOUGH = 0.02  # of the first residual: the next step mends the rest
_DONE = 0.01  # of the weights: smaller steps change no estimate


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """Weights [features, models] and intercepts [models] of log-odds."""

    weights: NDArray[np.float32]
    intercepts: Floats

    @classmethod
    def fit(cls, features: Any, scores: Floats, *, penalty: float) -> Linear:
        """Fit one column a model; NaN scores do not count.

        `features` is a numpy array or a scipy matrix [queries, features], and
        `penalty` what a squared weight costs in nats. Scores between 0 and 1
        count as that share of a success (quasi-binomial). Newton's method, with
        its linear systems solved by conjugate gradients for all models together.
        """
        known = ~np.isnan(scores)
        target = np.where(known, scores, 0.0)
        base = base_rates(scores)
        intercepts = logit(base)
        weights = np.zeros((features.shape[1], scores.shape[1]))
        for _ in range(_STEPS):
            odds = features @ weights + intercepts
            p = expit(odds)
            slope = np.where(known, p * (1 - p), 0.0)
            short = np.where(known, target - p, 0.0)
            gradient = features.T @ short - penalty * weights
            step = _solve(_curvature(features, slope, penalty), gradient)
            weights += step
            is_done = (step**2).sum() <= _DONE**2 * (weights**2).sum()
            intercepts = intercepts + short.sum(0) / np.maximum(slope.sum(0), 1e-6)
            intercepts = np.clip(intercepts, -8, 8)
            if is_done:
                break
        return cls(weights.astype(np.float32), intercepts)

    def log_odds(self, features: Any) -> Floats:
        """Return [queries, models]."""
        found: Floats = np.asarray(features @ self.weights, dtype=np.float64) + self.intercepts
        return found

    def to_state(self) -> State:
        """Return what is kept on disk."""
        return State(arrays={"weights": self.weights, "intercepts": self.intercepts})

    @classmethod
    def from_state(cls, state: State, *, width: int, models: int) -> Linear:
        """Make it again. Raises QualityError for other shapes, and for what is not finite."""
        weights = array_of(state, "weights", (width, models))
        return cls(weights.astype(np.float32), array_of(state, "intercepts", (models,)))


def _curvature(features: Any, slope: Floats, penalty: float) -> Callable[[Floats], Floats]:
    narrow = slope.astype(features.dtype)  # else numpy and scipy copy all features each time

    def times(direction: Floats) -> Floats:
        along = features @ direction.astype(features.dtype)
        pulled: Floats = features.T @ (narrow * along) + penalty * direction
        return pulled

    return times


def _solve(times: Callable[[Floats], Floats], wanted: Floats) -> Floats:
    """Solve one linear system a column (conjugate gradients, Hestenes and Stiefel 1952)."""
    found = np.zeros_like(wanted)
    residual, direction = wanted.copy(), wanted.copy()
    size = (residual**2).sum(0)
    enough = size * _ENOUGH**2
    for _ in range(_INNER):
        if (size <= enough).all():
            break
        pulled = times(direction)
        length = size / np.maximum((direction * pulled).sum(0), 1e-30)
        found += length * direction
        residual -= length * pulled
        before, size = size, (residual**2).sum(0)
        direction = residual + (size / np.maximum(before, 1e-30)) * direction
    return found


def base_rates(scores: Floats) -> Floats:
    """Return each model's mean score, one pseudo-observation of ½ included; ½ without any."""
    known = (~np.isnan(scores)).sum(0)
    rate: Floats = (np.nansum(scores, 0) + 0.5) / (known + 1)
    return np.clip(rate, _EDGE, 1 - _EDGE)


def expit(odds: Floats) -> Floats:
    """Return probabilities of log-odds."""
    p: Floats = 0.5 * (1 + np.tanh(odds / 2))
    return p


def logit(p: Floats, edge: float = 1e-4) -> Floats:
    """Return log-odds, finite also for 0 and 1."""
    kept = np.clip(p, edge, 1 - edge)
    odds: Floats = np.log(kept) - np.log1p(-kept)
    return odds
