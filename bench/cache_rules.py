"""Ways to decide whether a stored answer serves, for replays side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, log, sqrt
from typing import Protocol

import numpy as np

from cache.semantic.calibration import Calibration
from cache.semantic.decision import CalibratedDecider, assess
from cache.semantic.decision_features import Evidence, weigh
from cache.semantic.types import Candidate

_STEP = 1e-3
SURER = inf
Refuses = Callable[[str, str], bool]


class Rule(Protocol):
    """Decides one lookup after the other, and is told what it met."""

    @property
    def keeps_hit(self) -> bool:
        """Whether the question last served becomes an entry, too, with the answer it got."""
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

    def serve(self, asked: str, near: Sequence[Candidate]) -> int | None:
        """Serve the nearest, if it is near enough."""
        return 0 if near and near[0].similarity >= self.threshold else None

    def met(self, near: Sequence[Candidate], is_right: Sequence[bool], place: int | None) -> None:
        """Learn nothing."""


class Calibrated:
    """Guards, then the calibrated score from one threshold up.

    What was served is kept as an entry where it is `surer` times as sure as it must be;
    as in the gateway, that is never unless asked for.
    """

    def __init__(
        self,
        calibration: Calibration,
        refuses: Refuses,
        threshold: float,
        *,
        surer: float = SURER,
    ) -> None:
        self.keeps_hit = False
        self._calibration = calibration
        self._refuses = refuses
        self._threshold = threshold
        self._surer = log(surer)

    def serve(self, asked: str, near: Sequence[Candidate]) -> int | None:
        """Serve what the guards let pass and the score allows."""
        left = [at for at, c in enumerate(near) if not self._refuses(asked, c.question)]
        if not left:
            return None
        evidence, score = scored(self._calibration, asked, [near[at] for at in left])
        place = left[evidence.place]
        self.keeps_hit = score >= self._threshold + self._surer
        return place if score >= self._threshold else None

    def met(self, near: Sequence[Candidate], is_right: Sequence[bool], place: int | None) -> None:
        """Learn nothing."""


def scored(
    calibration: Calibration, asked: str, near: Sequence[Candidate]
) -> tuple[Evidence, float]:
    """Return the evidence for what would serve, and minus the log of the bound on its error.

    Bounds of different models compare where their scores do not.
    """
    evidence = weigh(asked, near)
    found = assess(calibration, evidence, 0.0, calibration.entry_variance)
    # The bound is a staircase in places: the score parts what stands on one step.
    return evidence, -log(found.error) + _STEP * found.score


def levels(calibration: Calibration) -> list[float]:
    """Return thresholds of `scored` from an error of a quarter down to the surest of each model."""
    found: set[float] = set()
    for model in (calibration.shared, calibration.alone):
        surest = model.errors[-1]
        found.update(-log(error) for error in np.geomspace(0.25, surest, 16)[:-1])
        steps = np.linspace(model.scores[model.errors.index(surest)], model.scores[-1], 10)
        found.update(-log(surest) + _STEP * score for score in steps[:-1])
    return sorted(found)


class Shipped:
    """Guards and decider as the gateway runs them, with a share of the hits audited."""

    keeps_hit = False

    def __init__(self, calibration: Calibration, refuses: Refuses, max_error: float) -> None:
        self.decider = CalibratedDecider(calibration)
        self._refuses = refuses
        self._max_error = max_error

    def serve(self, asked: str, near: Sequence[Candidate]) -> int | None:
        """Serve what the guards let pass and the decider is sure of."""
        left = [at for at, c in enumerate(near) if not self._refuses(asked, c.question)]
        found = self.decider.decide(asked, [near[at] for at in left], self._max_error)
        return None if found.serve is None else left[found.serve]

    def met(self, near: Sequence[Candidate], is_right: Sequence[bool], place: int | None) -> None:
        """Learn nothing: only audited hits teach."""


class Verified:
    """A threshold for every entry, learned from its own labels alone.

    Re-derived from the published idea of a per-entry verified cache: the nearest entry
    is asked; with four labels of its own it serves where the lower 95 % bound of its
    logistic curve allows, else the question is answered anew and labels it.
    """

    keeps_hit = False
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
