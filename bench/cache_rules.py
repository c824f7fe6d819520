"""Ways to decide whether a stored answer serves, for replays side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import sqrt
from typing import Protocol

import numpy as np

from cache.semantic.calibration import Calibration
from cache.semantic.decision import CalibratedDecider
from cache.semantic.types import Candidate

_HEARD = 0.5
Refuses = Callable[[str, str], bool]


class Rule(Protocol):
    """Decides one lookup after the other, and is told what it met."""

    @property
    def keeps_hit(self) -> bool:
        """Whether the question last served becomes an entry, too, with the answer it got."""
        ...

    @property
    def hears_crowds(self) -> bool:
        """Whether candidates must tell what is `around` them, which takes time."""
        ...

    def serve(self, asked: str, near: Sequence[Candidate]) -> int | None:
        """Return the place of the candidate that serves, or None."""
        ...

    def met(self, near: Sequence[Candidate], is_right: Sequence[bool], place: int | None) -> None:
        """Take note of which candidates held the answer; `place` is the one that served."""
        ...


@dataclass(frozen=True, slots=True)
class Cosine:
    """The nearest question serves from one threshold up."""

    threshold: float
    keeps_hit: bool = False
    hears_crowds: bool = False

    def serve(self, asked: str, near: Sequence[Candidate]) -> int | None:
        """Serve the nearest, if it is near enough."""
        return 0 if near and near[0].similarity >= self.threshold else None

    def met(self, near: Sequence[Candidate], is_right: Sequence[bool], place: int | None) -> None:
        """Learn nothing."""


class DistanceEvaluator:
    """GPTCache's default: squared distance turned into a score, held against a threshold.

    The score is asked of the package where it is installed; where it is not, it is
    re-derived from what its documentation says: the largest distance (4) less the
    distance found, of which a share of `threshold` must be left.
    """

    keeps_hit = False
    hears_crowds = False
    _LARGEST = 4.0

    def __init__(self, threshold: float = 0.8) -> None:
        self._least = threshold * self._LARGEST
        self._evaluate: Callable[[float], float] = self._rederived
        self.is_rederived = find_spec("gptcache") is None
        if not self.is_rederived:
            from importlib import import_module

            module = import_module("gptcache.similarity_evaluation.distance")
            evaluation = module.SearchDistanceEvaluation(max_distance=self._LARGEST)
            self._evaluate = lambda distance: float(
                evaluation.evaluation({}, {"search_result": (distance, None)})
            )

    def serve(self, asked: str, near: Sequence[Candidate]) -> int | None:
        """Serve the nearest where its score is enough."""
        if not near:
            return None
        distance = 2.0 - 2.0 * near[0].similarity
        return 0 if self._evaluate(distance) >= self._least else None

    def met(self, near: Sequence[Candidate], is_right: Sequence[bool], place: int | None) -> None:
        """Learn nothing."""

    def _rederived(self, distance: float) -> float:
        return self._LARGEST - min(max(distance, 0.0), self._LARGEST)


class Shipped:
    """Guards and decider as the gateway runs them; what is bought teaches, as audits do."""

    keeps_hit = False
    hears_crowds = True

    def __init__(
        self, calibration: Calibration, refuses: Refuses, max_error: float, *, learns: bool = True
    ) -> None:
        self.decider = CalibratedDecider(calibration)
        self._refuses = refuses
        self._max_error = max_error
        self._learns = learns
        self._teaches: int | None = None

    def serve(self, asked: str, near: Sequence[Candidate]) -> int | None:
        """Serve what the guards let pass and the decider is sure of."""
        left = [at for at, c in enumerate(near)
                if c.similarity >= _HEARD and not self._refuses(asked, c.question)]  # fmt: skip
        found = self.decider.decide(asked, [near[at] for at in left], self._max_error)
        self._teaches = None if found.teaches is None else left[found.teaches]
        return None if found.serve is None else left[found.serve]

    def met(self, near: Sequence[Candidate], is_right: Sequence[bool], place: int | None) -> None:
        """Learn from what was bought whether the nearest answer would have served."""
        if self._learns and place is None and self._teaches is not None:
            self.decider.observe(near[self._teaches].entry_id, is_right[self._teaches])


class Verified:
    """A threshold for every entry, learned from its own labels alone.

    Re-derived from the published idea of a per-entry verified cache: the nearest entry
    is asked; with four labels of its own it serves where the lower 95 % bound of its
    logistic curve allows, else the question is answered anew and labels it.
    """

    keeps_hit = False
    hears_crowds = False
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

    def met(self, near: Sequence[Candidate], is_right: Sequence[bool], place: int | None) -> None:
        """Label the nearest entry, once its question has been answered anew."""
        if near and place is None:
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
