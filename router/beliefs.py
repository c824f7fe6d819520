"""What the drafts seen so far say about the models not asked yet.

A draft that its own scorer doubts more than was expected of its model speaks for a
hard question: every other model's estimate falls with it. `Beliefs` moves the first
estimates by that surprise, and says how likely a draft is worse than what the
reference would have written (its *harm*).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from router.linear import fit_logistic, logit, sigmoid
from router.state import State
from router.types import RouterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# Until data say otherwise, half of a draft's surprise carries over to the other models.
_UNTAUGHT_MOVE = (0.0, 1.0, 0.5, 0.0)
_UNTAUGHT_HARM = (0.0, -1.0, 0.5)
_RIDGE = 5.0
DEEPEST = 3


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known after calls: the `models` asked, their drafts' qualities [n, len(models)]."""

    models: tuple[int, ...]
    quality: Floats


@dataclass(frozen=True, slots=True)
class Beliefs:
    """Coefficients by the number of drafts seen; `move` [DEEPEST, 4], `harm` [DEEPEST, 3]."""

    move: Floats
    harm: Floats

    @classmethod
    def untaught(cls) -> Beliefs:
        """Return the beliefs that hold before any outcome was seen."""
        return cls(np.tile(_UNTAUGHT_MOVE, (DEEPEST, 1)), np.tile(_UNTAUGHT_HARM, (DEEPEST, 1)))

    @classmethod
    def fit(
        cls, first: Floats, states: Sequence[Seen], score: Floats, reference: int, tolerance: float
    ) -> Beliefs:
        """Learn from cross-fitted estimates and true scores, both [n, K], NaN where unknown.

        `states` are the sets of drafts that may have been seen. An answer is worse than the
        reference's when its score is lower by more than `tolerance`.
        """
        untaught = cls.untaught()
        move, harm = untaught.move.copy(), untaught.harm.copy()
        for depth in range(1, DEEPEST + 1):
            here = [state for state in states if len(state.models) == depth]
            if here:
                move[depth - 1] = _fit_move(first, here, score)
                moved = cls(move, harm)  # harm is foretold from estimates that have moved
                harm[depth - 1] = _fit_harm(moved, first, here, score, reference, tolerance)
        return cls(move, harm)

    def after(self, first: Floats, seen: Seen) -> Floats:
        """Return every model's estimated quality [n, K] once these drafts were seen."""
        if not seen.models:
            return first
        rows = _surprise(first, seen)
        coefficients = self.move[len(seen.models) - 1]
        moved = coefficients[0] + coefficients[1] * logit(first)
        moved += (rows @ coefficients[2:])[:, None]
        estimates = sigmoid(moved)
        estimates[:, list(seen.models)] = seen.quality
        return estimates

    def harms(self, estimates: Floats, seen: Seen, reference: int) -> Floats:
        """Return, for each draft seen, P(worse than the reference's answer): [n, len(models)]."""
        rows = _harm_rows(estimates, seen, reference)
        return sigmoid(rows @ self.harm[len(seen.models) - 1])

    def to_state(self) -> State:
        """Return what is kept on disk."""
        return State(arrays={"move": self.move, "harm": self.harm})

    @classmethod
    def from_state(cls, state: State) -> Beliefs:
        """Make the beliefs again. Raises RouterError for arrays of another shape or no numbers."""
        found = {}
        for name, wide in (("move", len(_UNTAUGHT_MOVE)), ("harm", len(_UNTAUGHT_HARM))):
            array = state.arrays.get(name)
            if array is None or array.shape != (DEEPEST, wide) or not np.isfinite(array).all():
                raise RouterError(f"beliefs: expected finite numbers {name} [{DEEPEST}, {wide}]")
            found[name] = array.astype(np.float64)
        return cls(**found)


def _surprise(first: Floats, seen: Seen) -> Floats:
    surprise = logit(seen.quality) - logit(first[:, list(seen.models)])
    return np.stack([surprise.mean(axis=1), surprise.max(axis=1)], axis=1)


def _fit_move(first: Floats, states: Sequence[Seen], score: Floats) -> Floats:
    rows, labels = [], []
    for seen in states:
        surprise = _surprise(first, seen)
        for model in range(first.shape[1]):
            known = ~np.isnan(score[:, model]) & ~np.isnan(surprise).any(axis=1)
            if model in seen.models or not known.any():
                continue
            here = logit(first[known, model])
            rows.append(np.column_stack([np.ones(len(here)), here, surprise[known]]))
            labels.append(score[known, model])
    towards = np.array(_UNTAUGHT_MOVE)
    if not rows:
        return towards
    return fit_logistic(np.concatenate(rows), np.concatenate(labels), towards=towards, ridge=_RIDGE)


def _harm_rows(estimates: Floats, seen: Seen, reference: int) -> Floats:
    best = np.broadcast_to(logit(estimates[:, [reference]]), seen.quality.shape)
    return np.stack([np.ones_like(best), logit(seen.quality), best], axis=2)


def _fit_harm(
    beliefs: Beliefs,
    first: Floats,
    states: Sequence[Seen],
    score: Floats,
    reference: int,
    tolerance: float,
) -> Floats:
    rows, labels = [], []
    for seen in states:
        each = _harm_rows(beliefs.after(first, seen), seen, reference)
        for place, model in enumerate(seen.models):
            lost = score[:, reference] - score[:, model]
            known = ~np.isnan(lost) & ~np.isnan(each[:, place]).any(axis=1)
            rows.append(each[known, place])
            labels.append((lost[known] > tolerance).astype(np.float64))
    towards = np.array(_UNTAUGHT_HARM)
    return fit_logistic(np.concatenate(rows), np.concatenate(labels), towards=towards, ridge=_RIDGE)
