"""Calibration of judged drafts by their company: alone, beside one other draft, beside two.

An answer that another model gives, too, leaves little doubt, and one that stands alone much: the
same odds are overstated in one company and understated in another. One curve for all is a
compromise that fits none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from router.calibration import CalibrationError, RouteCalibrators
from router.state import State

Floats = NDArray[np.float64]

MOST_OTHERS = 2
"""Other drafts that are looked at beside one: a cascade's are three."""

_FEWEST = 200  # labels in one company, below which it shares the curve of all


@dataclass(frozen=True, slots=True)
class CompanyCalibrators:
    """Calibrators by the number of other drafts, from none to `MOST_OTHERS`."""

    by_others: tuple[RouteCalibrators, ...]

    @classmethod
    def fit(cls, p: Any, y: Any, routes: Sequence[str | None], others: Any) -> Self:
        """Fit to estimates from outside, their labels, routes, and numbers of other drafts."""
        estimates, labels, company = np.asarray(p), np.asarray(y), np.asarray(others)
        rows = [np.flatnonzero(company == number) for number in range(MOST_OTHERS + 1)]
        shared = None
        if any(len(each) < _FEWEST for each in rows):
            shared = RouteCalibrators.fit(estimates, labels, routes)

        def own(each: NDArray[np.intp]) -> RouteCalibrators:
            if shared is not None and len(each) < _FEWEST:
                return shared
            return RouteCalibrators.fit(
                estimates[each], labels[each], [routes[int(at)] for at in each]
            )

        return cls(tuple(own(each) for each in rows))

    def __call__(self, p: Any, routes: Sequence[str | None], others: Any) -> Floats:
        """Return calibrated estimates, each by its route and its number of other drafts."""
        estimates, company = np.asarray(p, dtype=np.float64), np.asarray(others)
        found = np.full(estimates.shape, np.nan)
        for number, calibrators in enumerate(self.by_others):
            rows = np.flatnonzero(company == number)
            if len(rows):
                found[rows] = calibrators(estimates[rows], [routes[int(at)] for at in rows])
        return found

    def to_state(self) -> State:
        """Return what is to be kept of it."""
        return State(
            parts={f"beside{at}": each.to_state() for at, each in enumerate(self.by_others)}
        )

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Make it again; one that was fitted for any company serves each.

        Raises CalibrationError for a state that is neither.
        """
        if "overall" in state.parts:
            return cls((RouteCalibrators.from_state(state),) * (MOST_OTHERS + 1))
        wanted = [f"beside{at}" for at in range(MOST_OTHERS + 1)]
        if state.values or set(state.parts) != set(wanted):
            raise CalibrationError(
                f"calibrators: expected {', '.join(wanted)}, found "
                f"{', '.join(state.parts) or 'none'}; train the bundle again"
            )
        return cls(tuple(RouteCalibrators.from_state(state.parts[name]) for name in wanted))
