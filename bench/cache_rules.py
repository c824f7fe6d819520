"""Ways to decide whether a stored answer serves, for replays side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log, sqrt
from typing import Protocol

import numpy as np

from cache.semantic.calibration import Calibration
from cache.semantic.decision import CalibratedDecider
from cache.semantic.decision_features import weigh
from cache.semantic.types import Candidate

Refuses = Callable[[str, str], bool]


class Rule(Protocol):
    """Decides one lookup after the other, and is told what a miss would have met."""

    def serve(self, asked: str, near: Sequence[Candidate]) -> int | None:
        """Return the place of the candidate that serves, or None."""
        ...

    def missed(self, near: Sequence[Candidate], is_right: Sequence[bool]) -> None:
        """Learn from a question that was answered anew: which candidates held its answer."""
        ...


@dataclass(frozen=True, slots=True)
class Cosine:
    """The nearest question serves from one threshold up."""

    threshold: float

    def serve(self, asked: str, near: Sequence[Candidate]) -> int | None:
        """Serve the nearest, if it is near enough."""
        return 0 if near and near[0].similarity >= self.threshold else None

    def missed(self, near: Sequence[Candidate], is_right: Sequence[bool]) -> None:
        """Learn nothing."""


class Calibrated:
    """Guards, then the calibrated score from one threshold up."""

    def __init__(self, calibration: Calibration, refuses: Refuses, threshold: float) -> None:
        self._calibration = calibration
        self._refuses = refuses
        self._threshold = threshold

    def serve(self, asked: str, near: Sequence[Candidate]) -> int | None:
        """Serve what the guards let pass and the score allows."""
        left = [at for at, c in enumerate(near) if not self._refuses(asked, c.question)]
        if not left:
            return None
        place, score = scored(self._calibration, asked, [near[at] for at in left])
        return left[place] if score >= self._threshold else None

    def missed(self, near: Sequence[Candidate], is_right: Sequence[bool]) -> None:
        """Learn nothing."""


def scored(calibration: Calibration, asked: str, near: Sequence[Candidate]) -> tuple[int, float]:
    """Return the candidate that would serve, and minus the log of the bound on its error.

    Bounds of different models compare where their scores do not.
    """
    evidence = weigh(asked, near)
    model = calibration.shared if evidence.is_shared else calibration.alone
    score = calibration.score(model, evidence.values, 0.0, calibration.entry_variance)
    # The bound is a staircase in places: the score parts what stands on one step.
    return evidence.place, -log(model.error_from(score) + 1e-9) + 1e-3 * score


class Shipped:
    """Guards and decider as the gateway runs them, with a share of the hits audited."""

    def __init__(self, calibration: Calibration, refuses: Refuses, max_error: float) -> None:
        self.decider = CalibratedDecider(calibration)
        self._refuses = refuses
        self._max_error = max_error

    def serve(self, asked: str, near: Sequence[Candidate]) -> int | None:
        """Serve what the guards let pass and the decider is sure of."""
        left = [at for at, c in enumerate(near) if not self._refuses(asked, c.question)]
        place = self.decider.decide(asked, [near[at] for at in left], self._max_error).serve
        return None if place is None else left[place]

    def missed(self, near: Sequence[Candidate], is_right: Sequence[bool]) -> None:
        """Learn nothing: only audited hits teach."""


class Verified:
    """A threshold for every entry, learned from its own labels alone.

    Re-derived from the published idea of a per-entry verified cache: the nearest entry
    is asked; with four labels of its own it serves where the lower 95 % bound of its
    logistic curve allows, else the question is answered anew and labels it.
    """

    _LABELS = 4
    _RIDGE = 0.05

    def __init__(self, max_error: float) -> None:
        self._max_error = max_error
        self._labels: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def serve(self, asked: str, near: Sequence[Candidate]) -> int | None:
        """Serve the nearest entry where its own curve is sure enough."""
        if not near:
            return None
        labels = self._labels[near[0].entry_id]
        if len(labels) < self._LABELS:
            return None
        return (
            0 if _surely(labels, near[0].similarity, self._RIDGE) >= 1 - self._max_error else None
        )

    def missed(self, near: Sequence[Candidate], is_right: Sequence[bool]) -> None:
        """Label the nearest entry."""
        if near:
            self._labels[near[0].entry_id].append((near[0].similarity, float(is_right[0])))


def _surely(labels: Sequence[tuple[float, float]], at: float, ridge: float) -> float:
    """Return the lower bound of one entry's chance to be right at a similarity."""
    seeded = np.array([(0.0, 0.0), (1.0, 1.0), *labels])
    rows = np.column_stack([np.ones(len(seeded)), seeded[:, 0]])
    found, covariance = np.zeros(2), np.eye(2)
    for _ in range(12):
        chance = 1 / (1 + np.exp(-np.clip(rows @ found, -30, 30)))
        covariance = np.linalg.inv(
            (rows * (chance * (1 - chance))[:, None]).T @ rows + ridge * np.eye(2)
        )
        found = found + covariance @ (rows.T @ (seeded[:, 1] - chance) - ridge * found)
    row = np.array([1.0, at])
    bound = float(row @ found) - 1.645 * sqrt(float(row @ covariance @ row))
    return float(1 / (1 + np.exp(-bound)))
