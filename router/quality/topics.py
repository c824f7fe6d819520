"""What a prompt is about, as shares: of the operator's categories, or of clusters found.

A category is known of the requests that were logged and perhaps not of those to
come, so it is also inferred from the prompt. Scores play no part in this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.quality.state import QualityError, array_of, names_of
from router.state import State

Floats = NDArray[np.float64]

_MOST, _LEAST = 64, 8  # topics kept, and the rows one needs
_RIDGE = 1.0
_SHARPNESS = (2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0)


@dataclass(frozen=True, slots=True, eq=False)
class Topics:
    """A classifier of vectors: regularised least squares, then a softmax.

    Its sharpness is chosen on rows held out, so that a share is a probability.
    """

    names: tuple[str, ...]
    weights: Floats
    offsets: Floats
    sharpness: float

    @classmethod
    def fit(
        cls, vectors: NDArray[np.float32], labels: Sequence[str | None], fold: NDArray[np.intp]
    ) -> tuple[Topics, Floats] | None:
        """Return the classifier and its shares of rows it was not fitted on.

        None where fewer than two labels have enough rows. Rarer ones are left out.
        """
        counts = Counter(label for label in labels if label is not None)
        names = [name for name, count in counts.most_common(_MOST) if count >= _LEAST]
        if len(names) < 2:
            return None
        number = {name: at for at, name in enumerate(names)}
        owner = np.array([-1 if x is None else number.get(x, -1) for x in labels], dtype=np.intp)
        held = np.zeros((len(labels), len(names)))
        for each in np.unique(fold):
            weights, offsets = _least_squares(vectors, owner, fold != each, len(names))
            held[fold == each] = vectors[fold == each] @ weights + offsets
        sharpness = _best_sharpness(held, owner)
        weights, offsets = _least_squares(vectors, owner, owner >= 0, len(names))
        return cls(tuple(names), weights, offsets, sharpness), _softmax(held * sharpness)

    def shares(self, vectors: NDArray[np.float32]) -> Floats:
        """Return [queries, topics], rows that sum to one."""
        return _softmax((vectors @ self.weights + self.offsets) * self.sharpness)

    def to_state(self) -> State:
        """Return what is kept on disk."""
        values = {"names": list(self.names), "sharpness": self.sharpness}
        return State(values, {"weights": self.weights, "offsets": self.offsets})

    @classmethod
    def from_state(cls, state: State, *, width: int) -> Topics:
        """Make it again. Raises QualityError."""
        names, sharpness = names_of(state, "names"), state.values.get("sharpness")
        if not isinstance(sharpness, float) or not 0 < sharpness <= max(_SHARPNESS):
            raise QualityError(f"quality model: sharpness of topics: found {sharpness!r:.60}")
        weights = array_of(state, "weights", (width, len(names)))
        return cls(tuple(names), weights, array_of(state, "offsets", (len(names),)), sharpness)


def _least_squares(
    vectors: NDArray[np.float32], owner: NDArray[np.intp], rows: NDArray[np.bool_], count: int
) -> tuple[Floats, Floats]:
    rows = rows & (owner >= 0)
    x, y = vectors[rows].astype(np.float64), np.eye(count)[owner[rows]]
    middle, share = x.mean(0), y.mean(0)
    x, y = x - middle, y - share
    weights: Floats = np.linalg.solve(x.T @ x + _RIDGE * np.eye(x.shape[1]), x.T @ y)
    return weights, share - middle @ weights


def _best_sharpness(held: Floats, owner: NDArray[np.intp]) -> float:
    known = np.flatnonzero(owner >= 0)

    def surprise(sharpness: float) -> float:
        shares = _softmax(held[known] * sharpness)
        return float(-np.log(shares[np.arange(len(known)), owner[known]] + 1e-9).mean())

    return min(_SHARPNESS, key=surprise)


def _softmax(scores: Floats) -> Floats:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    shares: Floats = powers / powers.sum(1, keepdims=True)
    return shares
