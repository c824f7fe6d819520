"""What an operator asks of a cascade, and the exchange rate that meets it.

Three ways to ask: at most this share of answers worse than the reference's
(`QualityLoss`), at most this much money (`Spend`), or this much money for a point of
quality (`PriceOfQuality`). Each is solved on records that the decision was not learnt
from, and money is paced while requests come in.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from router.beliefs import Beliefs
from router.guarantee import Certified, Floor, walk
from router.value import ValueModel
from router.value_fit import Records, Run, simulate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_HALVINGS = 30
_POINT = 0.01
_AS_CHEAP = 0.01
_MOST_BETWEEN = 100
_SAME_RATE = 1.002


@dataclass(frozen=True, slots=True)
class QualityLoss:
    """At most `floor.max_loss` of all answers are worse than the reference's."""

    floor: Floor


@dataclass(frozen=True, slots=True)
class Spend:
    """At most this many dollars for a thousand requests, at the best quality they buy."""

    usd_per_1k: float

    @property
    def usd_per_request(self) -> float:
        """Return the dollars that a request may cost on average."""
        return self.usd_per_1k / 1000.0


@dataclass(frozen=True, slots=True)
class PriceOfQuality:
    """A point of quality (a hundredth of a right answer) is worth this many dollars."""

    usd_per_point: float


Target = QualityLoss | Spend | PriceOfQuality


@dataclass(frozen=True, slots=True)
class Mix:
    """Two neighbouring exchange rates, of which `share` of the requests take the second."""

    rate: float
    other: float
    share: float = 0.0

    def of(self, chance: float) -> float:
        """Return the rate of a request, given an even chance from 0 to 1."""
        return self.other if chance < self.share else self.rate


def rate_of_price(price: PriceOfQuality, model: ValueModel) -> float:
    """Return the exchange rate at which a reference call must bring what its money would buy."""
    rate = _POINT * model.reference_usd / price.usd_per_point
    return float(np.clip(rate, model.rates[0], model.rates[-1]))


def mix_for_spend(spend: Spend, model: ValueModel, beliefs: Beliefs, records: Records) -> Mix:
    """Return the cheapest-to-dearest mix that spends what is allowed on these records.

    Spending falls as the rate rises, by steps: bisection finds the step that jumps over
    the budget, and both its sides are mixed. Where even the dearest rate spends less,
    it alone is returned; where even the cheapest spends more, so is that.
    """
    low, high = math.log(model.rates[0]), math.log(model.rates[-1])
    allowed = spend.usd_per_request

    def spent(logarithm: float) -> float:
        return float(simulate(model, beliefs, records, math.exp(logarithm)).usd.mean())

    most, least = spent(low), spent(high)
    if most <= allowed:
        return Mix(math.exp(low), math.exp(low))
    if least > allowed:
        return Mix(math.exp(high), math.exp(high))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        found = spent(middle)
        if found > allowed:
            low, most = middle, found
        else:
            high, least = middle, found
    share = (allowed - least) / (most - least) if most > least else 0.0
    return Mix(math.exp(high), math.exp(low), share)


@dataclass(frozen=True, slots=True)
class Point:
    """One operating point on given records. `loss` is the share worse than the reference."""

    rate: float
    usd: float
    quality: float
    loss: float
    losses: int
    reference_share: float


def points(
    model: ValueModel, beliefs: Beliefs, records: Records, rates: Sequence[float]
) -> list[Point]:
    """Return what each rate leads to on these records."""
    return [_point(rate, simulate(model, beliefs, records, rate), records) for rate in rates]


def _point(rate: float, run: Run, records: Records) -> Point:
    worse = records.is_worse(run.served)
    return Point(
        rate=rate,
        usd=float(run.usd.mean()),
        quality=float(run.quality(records).mean()),
        loss=float(worse.mean()),
        losses=int(worse.sum()),
        reference_share=float(run.called[:, records.lineup.reference].mean()),
    )


def whole_path(model: ValueModel, *, steps: int = 40) -> tuple[float, ...]:
    """Return every rate that may be tested, from the most careful one."""
    return tuple(float(rate) for rate in np.geomspace(model.rates[0], model.rates[-1], steps))


def path_of(
    floor: Floor, model: ValueModel, beliefs: Beliefs, tuning: Records, *, steps: int = 40
) -> tuple[float, ...]:
    """Return the rates to be tested in their order, fixed on records kept for that.

    From the most careful one to the first that loses twice as often as is allowed: the
    walk would never come farther. Between two neighbours the share of losses grows by an
    eighth of what is allowed at most, unless no rate lies between them: the walk ends at
    the last point that holds, so what lies between points is given away.
    """
    loss: dict[float, float] = {}

    def lost(rate: float) -> float:
        if rate not in loss:
            run = simulate(model, beliefs, tuning, rate)
            loss[rate] = float(tuning.is_worse(run.served).mean())
        return loss[rate]

    kept: list[float] = []
    for rate in whole_path(model, steps=steps):
        kept.append(rate)
        if lost(rate) > 2.0 * floor.max_loss:
            break
    for _ in range(_MOST_BETWEEN):
        gaps = [
            (lost(above) - lost(below), math.sqrt(below * above))
            for below, above in pairwise(kept)
            if above / below > _SAME_RATE
        ]
        widest, between = max(gaps, default=(0.0, 0.0))
        if widest <= floor.max_loss / 8:
            break
        insort(kept, between)
    return tuple(kept)


def certify(
    floor: Floor,
    model: ValueModel,
    beliefs: Beliefs,
    path: Sequence[float],
    calibration: Records,
    *,
    error: float | None = None,
) -> tuple[float | None, Certified]:
    """Walk the path on records that neither it nor the decision was made from.

    Returns the most careful of the rates certified that costs what the last of them does,
    or None where the reference must answer alone. All points up to the last are certified
    together, so which of them is run may be chosen by looking.
    """
    found = points(model, beliefs, calibration, path)
    certified = walk([point.losses for point in found], len(calibration), floor, error=error)
    if certified.chosen is None:
        return None, certified
    held = found[: certified.chosen.point + 1]
    enough = (1.0 + _AS_CHEAP) * min(point.usd for point in held)
    place = next(place for place, point in enumerate(held) if point.usd <= enough)
    return path[place], replace(certified, chosen=certified.walked[place])


class Pacer:
    """Keeps the spending of a route at its budget by moving the exchange rate (dual ascent).

    After each request the rate moves by what it spent over its allowance, as a share of
    that allowance; steps shrink with the requests seen, and never below what lets a
    changed traffic be followed (Balseiro et al. 2020, "Dual mirror descent for online
    allocation problems"). Multiplicative, so the rate stays positive.
    """

    __slots__ = ("_allowed", "_bounds", "_logarithm", "_seen")

    FASTEST = 0.05
    SLOWEST = 0.005

    def __init__(self, spend: Spend, rate: float, bounds: tuple[float, float]) -> None:
        self._allowed = spend.usd_per_request
        self._bounds = (math.log(bounds[0]), math.log(bounds[1]))
        self._logarithm = math.log(rate)
        self._seen = 0

    @property
    def rate(self) -> float:
        """Return the exchange rate of the next request."""
        return math.exp(self._logarithm)

    def spent(self, usd: float) -> None:
        """Learn what one request has cost."""
        self._seen += 1
        step = max(self.FASTEST / math.sqrt(self._seen), self.SLOWEST)
        # A single dear request may not throw the rate about.
        surplus = max(-1.0, min(usd / self._allowed - 1.0, 10.0))
        low, high = self._bounds
        self._logarithm = max(low, min(self._logarithm + step * surplus, high))
