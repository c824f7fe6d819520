"""Fit the calibration of the semantic cache on replayed streams.

    python -m bench.cache_fit --data ../data --out cache/semantic/calibration_default.json

Streams are drawn from the train splits, in several sizes and densities, and from
generated paraphrases. With `--without SHARE` that share of the intents, chosen by
a hash of their names, is left out, so that they can be reported on. The bound on
the error at a score comes from streams that the weights were not fitted on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from bench.cache_streams import Lookup
from cache.semantic.calibration import Calibration, Model
from cache.semantic.calibration_bounds import upper_bound
from cache.semantic.decision_features import NAMES

Array = npt.NDArray[np.float64]
_RIDGE = 1.0
_ROUNDS = 30
_CERTAINTY = 0.8
_KNOTS = 160
CAUTION = 0.5
ENTRY_VARIANCE = 1.0
ROUTE_VARIANCE = 0.1


def fit_calibration(streams: Mapping[str, Sequence[Sequence[Lookup | None]]]) -> Calibration:
    """Fit both models on lookups by domain, each domain in several draws.

    Lookups whose evidence is not shared teach the model for answers that are not told apart.
    """
    return Calibration(
        NAMES,
        shared=_fitted(_tables(streams, is_shared=True)),
        alone=_fitted(_tables(streams, is_shared=False)),
        entry_variance=ENTRY_VARIANCE,
        route_variance=ROUTE_VARIANCE,
        caution=CAUTION,
    )


Table = tuple[Array, Array]


def _tables(
    streams: Mapping[str, Sequence[Sequence[Lookup | None]]], *, is_shared: bool
) -> dict[str, Table]:
    tables: dict[str, Table] = {}
    for name, draws in streams.items():
        met = [x for draw in draws for x in draw if x and x.evidence.is_shared == is_shared]
        if met:
            rows = np.array([x.evidence.values for x in met])
            tables[name] = rows, np.array([float(x.right) for x in met])
    return tables


def _fitted(tables: Mapping[str, Table]) -> Model:
    rows = np.concatenate([rows for rows, _ in tables.values()])
    right = np.concatenate([right for _, right in tables.values()])
    centre, scale = rows.mean(0), rows.std(0) + 1e-6
    weights = _weights(tables)
    weighed, covariance = _newton((rows - centre) / scale, right, weights)
    held_out = [_held_out(tables, name) for name in tables]
    scores, errors = _tail(held_out)
    return Model(
        tuple(np.round(centre, 6)), tuple(np.round(scale, 6)), tuple(np.round(weighed, 6)),
        tuple(tuple(np.round(line, 8)) for line in covariance), tuple(scores), tuple(errors),
    )  # fmt: skip


def _weights(tables: Mapping[str, Table]) -> Array:
    """Let every domain count the same, however many rows it has."""
    total = sum(len(right) for _, right in tables.values())
    return np.concatenate(
        [np.full(len(right), total / len(tables) / len(right)) for _, right in tables.values()]
    )


def _held_out(tables: Mapping[str, Table], name: str) -> Table:
    """Return the scores of one domain under the weights that the others taught."""
    others = {other: table for other, table in tables.items() if other != name} or dict(tables)
    rows = np.concatenate([rows for rows, _ in others.values()])
    right = np.concatenate([right for _, right in others.values()])
    centre, scale = rows.mean(0), rows.std(0) + 1e-6
    weighed, covariance = _newton((rows - centre) / scale, right, _weights(others))
    row = np.column_stack([np.ones(len(tables[name][1])), (tables[name][0] - centre) / scale])
    deviation = np.sqrt(np.einsum("ij,jk,ik->i", row, covariance, row) + ENTRY_VARIANCE)
    return row @ weighed - CAUTION * deviation, tables[name][1]


def _newton(rows: Array, right: Array, weights: Array) -> tuple[Array, Array]:
    """Return the weights of a ridge logistic regression and their covariance."""
    row = np.column_stack([np.ones(len(rows)), rows])
    penalty = np.diag([1e-6, *[_RIDGE] * rows.shape[1]])
    found = np.zeros(row.shape[1])
    for _ in range(_ROUNDS):
        chance = 1 / (1 + np.exp(-np.clip(row @ found, -30, 30)))
        spread = weights * chance * (1 - chance)
        curvature = (row * spread[:, None]).T @ row + penalty
        step = np.linalg.solve(curvature, row.T @ (weights * (right - chance)) - penalty @ found)
        found = found + step
        if np.abs(step).max() < 1e-8:
            break
    return found, np.linalg.inv(curvature)


def _tail(held_out: Sequence[Table]) -> tuple[list[float], list[float]]:
    """Return scores and, for each, the bound on the error from there up in the worst domain."""
    every = np.concatenate([scores for scores, _ in held_out])
    knots = np.unique(np.round(np.quantile(every, 1 - np.geomspace(0.002, 1, _KNOTS)), 4))
    bounds = np.array([max(_bound(table, knot) for table in held_out) for knot in knots])
    # An error once allowed stays allowed further up.
    return knots.tolist(), np.round(np.minimum.accumulate(bounds), 6).tolist()


def _bound(table: Table, knot: float) -> float:
    scores, right = table
    above = scores >= knot
    counted = int(above.sum())
    if counted == 0:
        return 0.0  # says nothing: another domain decides
    return upper_bound(counted - int(right[above].sum()), counted, _CERTAINTY)
