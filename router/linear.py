"""The small linear fits of the decision: ridge logistic regression on shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FARTHEST = 6.0
_STEPS = 50
_HALVINGS = 20
_ENOUGH = 1e-8


def logit(share: Floats) -> Floats:
    """Return the log odds, kept within `FARTHEST` of zero."""
    edge = 1.0 / (1.0 + np.exp(FARTHEST))
    bounded = np.clip(share, edge, 1.0 - edge)
    return np.asarray(np.log(bounded / (1.0 - bounded)))


def sigmoid(value: Floats) -> Floats:
    """Return the share with these log odds."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(value, -30.0, 30.0))))


def fit_logistic(rows: Floats, share: Floats, *, towards: Floats, ridge: float) -> Floats:
    """Fit coefficients by penalised likelihood, shrunk towards a first guess (Newton's method).

    `rows` is [n, d], `share` [n] from 0 to 1 (graded scores count as what they are), and
    `towards` [d]. With no rows the first guess is the answer.
    """
    coefficients = towards.astype(np.float64).copy()
    if not len(rows):
        return coefficients
    reached = _penalised(rows, share, coefficients, towards, ridge)
    for _ in range(_STEPS):
        found = sigmoid(rows @ coefficients)
        slope = rows.T @ (share - found) - ridge * (coefficients - towards)
        curvature = (rows * (found * (1.0 - found))[:, None]).T @ rows
        step = np.linalg.solve(curvature + ridge * np.eye(len(towards)), slope)
        # Far from the answer a whole step overshoots: halve it until it climbs.
        for _ in range(_HALVINGS):
            tried = _penalised(rows, share, coefficients + step, towards, ridge)
            if tried >= reached:
                break
            step *= 0.5
        else:
            break
        coefficients += step
        reached = tried
        if float(np.max(np.abs(step))) < _ENOUGH:
            break
    return coefficients


def _penalised(
    rows: Floats, share: Floats, coefficients: Floats, towards: Floats, ridge: float
) -> float:
    odds = rows @ coefficients
    likelihood = share @ odds - np.logaddexp(0.0, odds).sum()
    return float(likelihood - 0.5 * ridge * ((coefficients - towards) ** 2).sum())
