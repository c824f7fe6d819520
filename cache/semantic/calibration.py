"""What was learned about when a stored answer serves, as it lies on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import exp, sqrt
from pathlib import Path

import msgspec

from cache.semantic.decision_features import NAMES


class CalibrationInvalid(ValueError):
    """A calibration does not fit this version's features."""


@dataclass(frozen=True, slots=True)
class Model:
    """One logistic regression with the uncertainty of its weights.

    `weights` begins with the constant; `covariance` is over all weights, row by row.
    """

    centre: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]

    def logit(self, values: Sequence[float]) -> float:
        """Return the log-odds that the answer serves."""
        return sum(w * x for w, x in zip(self.weights, self._row(values), strict=True))

    def variance(self, values: Sequence[float]) -> float:
        """Return the variance of the log-odds that stems from the weights."""
        row = self._row(values)
        return sum(
            x * sum(c * y for c, y in zip(line, row, strict=True))
            for x, line in zip(row, self.covariance, strict=True)
        )

    def _row(self, values: Sequence[float]) -> list[float]:
        scaled = zip(values, self.centre, self.scale, strict=True)
        return [1.0, *((x - centre) / scale for x, centre, scale in scaled)]


@dataclass(frozen=True, slots=True)
class Calibration:
    """One model for neighbours whose answers are told apart, one for where they are not.

    The variances say how far, in log-odds, a route, an answer that several entries
    share, and an entry are expected to lie from the average before anything is known
    of them. A bound lies `caution` deviations below the mean.
    """

    features: tuple[str, ...]
    shared: Model
    alone: Model
    entry_variance: float
    answer_variance: float
    route_variance: float
    caution: float

    def score(self, model: Model, values: Sequence[float], shift: float, variance: float) -> float:
        """Return the lower bound of the log-odds, `caution` deviations below their mean."""
        deviation = sqrt(model.variance(values) + variance)
        return model.logit(values) + shift - self.caution * deviation


def read_calibration(path: Path) -> Calibration:
    """Read a calibration; raises CalibrationInvalid unless its features are those of today."""
    return _decoded(path.read_bytes(), str(path))


@cache
def default_calibration() -> Calibration:
    """Return the calibration that ships."""
    name = "calibration_default.json"
    return _decoded(files("cache.semantic").joinpath(name).read_bytes(), name)


def encode(calibration: Calibration) -> bytes:
    """Return a calibration as JSON."""
    return msgspec.json.format(msgspec.json.encode(calibration), indent=1)


def _decoded(data: bytes, name: str) -> Calibration:
    try:
        calibration = msgspec.json.decode(data, type=Calibration)
    except msgspec.DecodeError as exc:
        raise CalibrationInvalid(f"{name} is no calibration: {exc}") from exc
    if calibration.features != NAMES:
        raise CalibrationInvalid(
            f"{name} was fitted on {calibration.features}, this version asks for {NAMES}: "
            "fit it again"
        )
    return calibration


def probability(logit: float) -> float:
    """Return the chance that belongs to log-odds."""
    if logit < 0:
        odds = exp(max(logit, -700.0))
        return odds / (1 + odds)
    return 1 / (1 + exp(-logit))
