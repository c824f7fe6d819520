"""Boosted trees as plain arrays: grown by LightGBM, kept and read without it.

A node's numbers are in arrays of one length; a child below zero is no node. So
a forest comes back from disk by a check of shapes and ranges, nothing is
parsed, and serving needs only numpy. Every node knows the mean of what lies
below it, and the steps of a row from mean to mean are its explanation (Saabas
2014).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from router.state import State
from router.types import RouterError

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

_ROWS = 4_096  # at a time, so that rows times trees stays in the processor's cache
_CELLS = 1 << 20  # rows times trees at a time, where each tree's value is wanted
_ARRAYS = ("roots", "feature", "threshold", "left", "right", "missing_left", "value")


class ForestError(RouterError):
    """Arrays that are no forest."""


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """Trees over `width` features; `roots` are the first nodes of each.

    A row goes left at a node where its feature is at most `threshold`, or is NaN
    and `missing_left` says so. `value` is the mean below a node, or a leaf's own.
    """

    width: int
    roots: Ints
    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    missing_left: NDArray[np.bool_]
    value: Floats

    def __call__(self, rows: Any) -> Floats:
        """Return the sum of the trees' values for each row of [n, width]."""
        table = self._checked(rows)
        parts = [self._sum(table[at : at + _ROWS]) for at in range(0, len(table), _ROWS)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def values(self, rows: Any) -> Floats:
        """Return each tree's value [n, trees] for each row of [n, width]."""
        table = self._checked(rows)
        many = max(1, _CELLS // max(1, len(self.roots)))
        parts = [self._leaves(table[at : at + many]) for at in range(0, len(table), many)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.roots)))

    def _checked(self, rows: Any) -> Floats:
        table = np.asarray(rows, dtype=np.float64)
        if table.ndim != 2 or table.shape[1] != self.width:
            raise ForestError(f"expected rows of {self.width} features, found {table.shape}")
        return table

    def _sum(self, table: Floats) -> Floats:
        return np.asarray(self._leaves(table).sum(axis=1))

    def _leaves(self, table: Floats) -> Floats:
        at = np.broadcast_to(self.roots, (len(table), len(self.roots)))
        rows = np.arange(len(table))[:, None]
        while (inner := self.left[at] >= 0).any():
            at = np.where(inner, self._next(table, rows, at), at)
        return np.asarray(self.value[at])

    def _next(self, table: Floats, rows: Any, at: Any) -> Any:
        seen = table[rows, self.feature[at]]
        goes_left = (seen <= self.threshold[at]) | (np.isnan(seen) & self.missing_left[at])
        return np.where(goes_left, self.left[at], self.right[at])

    def explain(self, row: Any) -> tuple[float, Floats]:
        """Return what all rows begin with, and what each feature added for this one."""
        table = np.asarray(row, dtype=np.float64)[None, :]
        at: Any = self.roots[None, :]
        added = np.zeros(self.width)
        while (inner := self.left[at] >= 0).any():
            after = np.where(inner, self._next(table, np.zeros((1, 1), np.intp), at), at)
            np.add.at(added, self.feature[at][inner], (self.value[after] - self.value[at])[inner])
            at = after
        return float(self.value[self.roots].sum()), added

    def to_state(self) -> State:
        """Return what is to be kept of it."""
        return State(
            values={"width": self.width}, arrays={name: getattr(self, name) for name in _ARRAYS}
        )

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Make it again. Raises ForestError where a row could be led astray, or round for ever."""
        width, arrays = state.values.get("width"), state.arrays
        if not isinstance(width, int) or set(arrays) != set(_ARRAYS):
            raise ForestError(f"forest: expected a width and {', '.join(_ARRAYS)}")
        forest = cls(
            width,
            arrays["roots"].astype(np.int32),
            arrays["feature"].astype(np.int32),
            arrays["threshold"].astype(np.float64),
            arrays["left"].astype(np.int32),
            arrays["right"].astype(np.int32),
            arrays["missing_left"].astype(bool),
            arrays["value"].astype(np.float64),
        )
        if not forest._is_sound():
            raise ForestError("forest: the arrays are no trees; train the bundle again")
        return forest

    def _is_sound(self) -> bool:
        size = len(self.value)
        nodes = (self.feature, self.threshold, self.left, self.right, self.missing_left, self.value)
        if any(each.shape != (size,) for each in nodes) or self.roots.ndim != 1:
            return False
        place = np.arange(size)
        inner = self.left >= 0
        # Children come after their parents, so that every way down ends.
        below = (self.left > place) & (self.right > place)
        below &= (self.left < size) & (self.right < size)
        known = (self.feature >= 0) & (self.feature < self.width)
        roots = (self.roots >= 0) & (self.roots < size)
        finite = np.isfinite(self.value).all() and not np.isnan(self.threshold).any()
        return bool((below & known)[inner].all() and roots.all() and finite)


def grow(
    rows: Any,
    score: Any,
    *,
    weight: Any = None,
    trees: int = 200,
    leaves: int = 15,
    rate: float = 0.08,
    rising: Mapping[int, int] | None = None,
    features: float = 0.5,
    calm: float = 1.0,
    fewest: int | None = None,
    seed: int = 0,
) -> Forest:
    """Fit trees to scores from 0 to 1 by log loss; the forest gives log-odds.

    `rising` says of features whether more of them can only raise (1) or lower
    (-1) the outcome. Few rows are kept from being learnt by heart: a tree sees half of
    them and a share of `features`, a leaf holds `fewest` at the least and is drawn to zero
    by `calm`.
    """
    import lightgbm

    table = np.asarray(rows, dtype=np.float32)
    count = len(table)
    directions = [(rising or {}).get(at, 0) for at in range(table.shape[1])]
    settings = {
        "objective": "cross_entropy", "learning_rate": rate, "num_leaves": leaves,
        "min_data_in_leaf": fewest or max(5, min(40, count // 50)), "lambda_l2": calm,
        "feature_fraction": features, "bagging_fraction": 0.6, "bagging_freq": 1, "max_bin": 63,
        "seed": seed, "deterministic": True, "force_row_wise": True, "num_threads": 1,
        "verbose": -1, "monotone_constraints": directions,
    }  # fmt: skip
    data = lightgbm.Dataset(table, np.asarray(score, dtype=np.float64), weight=weight)
    model = lightgbm.train(settings, data, num_boost_round=trees)
    return _from_trees(model.dump_model()["tree_info"], table.shape[1])


def joined(forests: Sequence[Forest]) -> Forest:
    """Return the trees of several forests over the same features, one after the other."""
    if not forests or len({each.width for each in forests}) != 1:
        raise ForestError("expected forests over the same features")
    offsets = np.cumsum([0, *(len(each.value) for each in forests)])

    def moved(name: str) -> Ints:
        parts = [getattr(each, name) for each in forests]
        return np.concatenate([
            np.where(part >= 0, part + at, part) for part, at in zip(parts, offsets, strict=False)
        ]).astype(np.int32)  # fmt: skip

    def kept(name: str) -> Any:
        return np.concatenate([getattr(each, name) for each in forests])

    return Forest(
        forests[0].width, moved("roots"), kept("feature"), kept("threshold"),
        moved("left"), moved("right"), kept("missing_left"), kept("value"),
    )  # fmt: skip


def _from_trees(trees: Sequence[Mapping[str, Any]], width: int) -> Forest:
    nodes: list[list[float]] = []
    roots = []
    for tree in trees:
        roots.append(len(nodes))
        _flatten(tree["tree_structure"], nodes)
    table = np.array(nodes, dtype=np.float64).reshape(-1, 6)
    whole = table[:, [0, 2, 3]].astype(np.int32)
    return Forest(
        width,
        roots=np.array(roots, dtype=np.int32),
        feature=whole[:, 0],
        threshold=table[:, 1],
        left=whole[:, 1],
        right=whole[:, 2],
        missing_left=table[:, 4] > 0,
        value=table[:, 5],
    )


def _flatten(node: Mapping[str, Any], nodes: list[list[float]]) -> int:
    place = len(nodes)
    if "split_feature" not in node:
        nodes.append([0.0, 0.0, -1.0, -1.0, 0.0, float(node["leaf_value"])])
        return place
    threshold = float(node["threshold"])
    # LightGBM reads NaN as zero where it met none in training.
    goes_left = node["default_left"] if node["missing_type"] == "NaN" else threshold >= 0.0
    value = float(node["internal_value"])
    nodes.append([float(node["split_feature"]), threshold, 0.0, 0.0, float(goes_left), value])
    nodes[place][2] = float(_flatten(node["left_child"], nodes))
    nodes[place][3] = float(_flatten(node["right_child"], nodes))
    return place
