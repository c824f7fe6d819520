"""Estimates that mean what they say: of those at 0.8, eight in ten are right.

How much a calibrator may bend depends on how much it has seen: with few labels
two parameters (Platt 1999), with some three (beta calibration, Kull et al.
2017), with many any rising curve (isotonic, centred so that it keeps the order:
Oron and Flournoy 2017). It is used only if it makes held-out estimates better.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from router.linear import fit_logistic, sigmoid
from router.metrics import brier, calibration_error
from router.state import State
from router.types import RouterError

Floats = NDArray[np.float64]
Kind = Literal["identity", "platt", "beta", "isotonic"]

BINS = 15
_FOLDS = 5
_EDGE = 1e-4  # no estimate is surer than this; a logarithm needs it, and so does honesty
_FEWEST: Mapping[Kind, int] = {"platt": 40, "beta": 200, "isotonic": 1_000}
_ROUTE_FEWEST = 200


class CalibrationError(RouterError):
    """Estimates or labels that cannot be used, or a calibrator's state that is none."""


@dataclass(frozen=True, slots=True, eq=False)
class Calibrator:
    """A rising map from estimates to probabilities.

    `platt` and `beta` hold weights and a bias for logit p, or for ln p and
    -ln(1-p); `isotonic` holds the knots of a line, first x, then y.
    """

    kind: Kind = "identity"
    values: Floats = field(default_factory=lambda: np.zeros(0))

    def __call__(self, p: Any) -> Floats:
        """Return calibrated estimates, of the shape of `p`; NaN stays NaN."""
        given = np.asarray(p, dtype=np.float64)
        inside = np.clip(given, _EDGE, 1.0 - _EDGE)
        if self.kind == "identity":
            return inside
        if self.kind == "isotonic":
            x, y = self.values.reshape(2, -1)
            return np.where(np.isnan(given), np.nan, np.interp(inside, x, y))
        weights, bias = self.values[:-1], self.values[-1]
        return _clipped(sigmoid(_inputs(self.kind, inside) @ weights + bias))

    def to_state(self) -> State:
        """Return what is to be kept of it."""
        return State(values={"kind": self.kind}, arrays={"values": self.values})

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Make it again. Raises CalibrationError for a state that is not one of its own."""
        kind = state.values.get("kind")
        values = np.asarray(state.arrays.get("values", ()), dtype=np.float64)
        if kind not in ("identity", *_FEWEST) or not _fits(kind, values):
            raise CalibrationError(
                f"calibrator: expected identity, platt, beta or isotonic with rising values, "
                f"found {kind!r} with {values.shape}; train the bundle again"
            )
        return cls(kind, values)


def _fits(kind: Kind, values: Floats) -> bool:
    if values.ndim != 1 or not np.isfinite(values).all():
        return False
    if kind == "isotonic":
        if len(values) < 2 or len(values) % 2:
            return False
        x, y = values.reshape(2, -1)
        in_range = bool((values >= 0).all() and (values <= 1).all())
        return in_range and bool((np.diff(x) > 0).all() and (np.diff(y) >= 0).all())
    size = {"identity": 0, "platt": 2, "beta": 3}[kind]
    return len(values) == size and bool((values[:-1] >= 0).all())


def fit_calibrator(p: Any, y: Any, *, seed: int = 0) -> Calibrator:
    """Fit the calibrator that suits the number of labels, or none if none helps.

    `p` are estimates on rows that their model was not fitted on, `y` what came
    of them, 0 to 1. Kinds with enough labels are tried on held-out folds; one is
    used only if it raises neither the Brier score nor the calibration error, and
    of several the one with the least Brier score. Raises CalibrationError for NaN.
    """
    estimates, labels = _checked(p, y)
    tries = [kind for kind, fewest in _FEWEST.items() if len(labels) >= fewest]
    if labels.size == 0 or labels.min() == labels.max():
        return Calibrator()
    fold = np.random.default_rng(seed).permutation(len(labels)) % _FOLDS
    # Fine bins of few labels measure chance.
    bins = int(np.clip(len(labels) // 40, 3, BINS))
    plain = Calibrator()(estimates)
    best, least = Calibrator(), brier(plain, labels)
    worst_error = calibration_error(plain, labels, bins=bins)
    for kind in tries:
        held = np.empty_like(estimates)
        for each in range(_FOLDS):
            fitted = _fit(kind, estimates[fold != each], labels[fold != each])
            held[fold == each] = fitted(estimates[fold == each])
        score = brier(held, labels)
        if score < least and calibration_error(held, labels, bins=bins) <= worst_error:
            best, least = _fit(kind, estimates, labels), score
    return best


@dataclass(frozen=True, slots=True, eq=False)
class RouteCalibrators:
    """One calibrator for all, and one of its own for each route with enough labels."""

    overall: Calibrator
    routes: Mapping[str, Calibrator]

    @classmethod
    def fit(cls, p: Any, y: Any, routes: Sequence[str | None], *, seed: int = 0) -> Self:
        """Fit; `routes` names the route of each row, None where there is none.

        What a route's own calibrator sees is already calibrated over all.
        """
        estimates, labels = _checked(p, y)
        overall = fit_calibrator(estimates, labels, seed=seed)
        first = overall(estimates)
        names = np.array([str(route) for route in routes], dtype=object)
        found = {}
        for name in sorted({route for route in routes if route is not None}):
            rows = names == name
            if rows.sum() >= _ROUTE_FEWEST and not rows.all():
                own = fit_calibrator(first[rows], labels[rows], seed=seed)
                if own.kind != "identity":
                    found[name] = own
        return cls(overall, found)

    def __call__(self, p: Any, routes: Sequence[str | None]) -> Floats:
        """Return calibrated estimates, each by its route."""
        found = self.overall(p)
        if self.routes:
            for at, route in enumerate(routes):
                if route is not None and (own := self.routes.get(route)) is not None:
                    found[at] = own(found[at])
        return found

    def to_state(self) -> State:
        """Return what is to be kept of it."""
        names = list(self.routes)
        parts = {f"route{at}": self.routes[name].to_state() for at, name in enumerate(names)}
        return State(values={"routes": names}, parts={"overall": self.overall.to_state(), **parts})

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Make it again. Raises CalibrationError for a state that is not one of its own."""
        names = state.values.get("routes")
        wanted = {"overall"}
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            wanted |= {f"route{at}" for at in range(len(names))}
        if (
            not isinstance(names, list)
            or len(wanted) != len(names) + 1
            or (set(state.parts) != wanted)
        ):
            raise CalibrationError(
                f"calibrators: expected a list of routes and a part for each, found "
                f"{sorted(state.parts)}; train the bundle again"
            )
        read = {name: Calibrator.from_state(part) for name, part in state.parts.items()}
        own = {name: read[f"route{at}"] for at, name in enumerate(names)}
        return cls(read["overall"], own)


def _checked(p: Any, y: Any) -> tuple[Floats, Floats]:
    estimates, labels = np.asarray(p, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if estimates.shape != labels.shape or estimates.ndim != 1:
        raise CalibrationError(
            f"expected one label for each estimate, found {labels.shape} for {estimates.shape}"
        )
    for name, values in (("estimates", estimates), ("labels", labels)):
        if values.size and not ((values >= 0) & (values <= 1)).all():
            raise CalibrationError(f"{name}: expected 0 to 1, found NaN or a value outside")
    return estimates, labels


def _fit(kind: Kind, p: Floats, y: Floats) -> Calibrator:
    inside = np.clip(p, _EDGE, 1.0 - _EDGE)
    if kind == "isotonic":
        return Calibrator(kind, _knots(inside, y))
    x = _inputs(kind, inside)
    weights = _logistic(x, y)
    if (weights[:-1] < 0).any():
        # A falling side is noise: leave it out, and keep the other.
        kept = int(np.argmax(weights[:-1]))
        part = _logistic(x[:, [kept]], y)
        weights = np.zeros_like(weights)
        weights[kept], weights[-1] = max(0.0, part[0]), part[1]
    return Calibrator(kind, weights)


def _inputs(kind: Kind, p: Floats) -> Floats:
    odds = np.log(p), -np.log1p(-p)
    if kind == "beta":
        return np.stack(odds, axis=-1)
    return (odds[0] + odds[1])[..., None]


def _logistic(x: Floats, y: Floats) -> Floats:
    """Fit weights and a bias, shrunk a little towards leaving p as it is."""
    design = np.column_stack([x, np.ones(len(x))])
    return fit_logistic(design, y, towards=np.append(np.ones(x.shape[1]), 0.0), ridge=0.5)


def _knots(p: Floats, y: Floats) -> Floats:
    """Pool adjacent violators, then draw a line through the centres of the blocks."""
    order = np.argsort(p, kind="stable")
    blocks: list[list[float]] = []  # sum of y, sum of p, rows
    for x, label in zip(p[order], y[order], strict=True):
        blocks.append([float(label), float(x), 1.0])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][2] >= blocks[-1][0] / blocks[-1][2]:
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    found = np.array([[b[1] / b[2], b[0] / b[2]] for b in blocks])
    x, first = np.unique(found[:, 0], return_index=True)
    return np.concatenate([x, _clipped(found[first, 1])])


def _clipped(p: Floats) -> Floats:
    return np.clip(p, _EDGE, 1.0 - _EDGE)


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of a reliability diagram."""

    low: float
    high: float
    count: int
    said: float
    came: float


def reliability(p: Any, y: Any, bins: int = BINS) -> list[Bin]:
    """Return the bars of a reliability diagram, of equal width; empty ones are left out."""
    return [
        Bin(at / bins, (at + 1) / bins, int(rows.sum()), float(said), float(came))
        for at, rows, said, came in _binned(*_checked(p, y), bins)
    ]


def _binned(p: Floats, y: Floats, bins: int) -> Iterator[tuple[int, Any, float, float]]:
    place = np.minimum((p * bins).astype(np.intp), bins - 1)
    for at in np.unique(place):
        rows = place == at
        yield int(at), rows, float(p[rows].mean()), float(y[rows].mean())


def error_by_chance(
    p: Any, *, certainty: float = 0.95, draws: int = 1_000, bins: int = BINS, seed: int = 0
) -> float:
    """Return the calibration error that even perfect estimates stay below, this surely.

    Draws the labels from the estimates themselves: an error below it is no sign
    of bad calibration, at this number of rows.
    """
    estimates, _ = _checked(p, p)
    chance = np.random.default_rng(seed)
    place = np.minimum((estimates * bins).astype(np.intp), bins - 1)
    count = max(1, len(estimates))
    said = np.bincount(place, weights=estimates, minlength=bins)
    errors = np.empty(draws)
    for at in range(draws):
        came = chance.random(len(estimates)) < estimates
        errors[at] = np.abs(np.bincount(place, weights=came, minlength=bins) - said).sum() / count
    return float(np.quantile(errors, certainty))
