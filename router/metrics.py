"""How good a router is: the measures of the published protocols, on arrays.

`small`, `large` are two models' scores of the same queries, and `rank` what a
router sorts them by: the higher, the rather the large model is called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from router.types import RouterError

Floats = NDArray[np.float64]


class MetricError(RouterError):
    """Figures asked of data that cannot give them, such as one class alone or NaN."""


@dataclass(frozen=True, slots=True)
class PairCurve:
    """Quality against the share of calls to the large model, both ascending in the share."""

    share: Floats
    quality: Floats
    small: float
    large: float

    @property
    def gap_recovered(self) -> Floats:
        """Return PGR: the part of the way from the small to the large model's quality."""
        return (self.quality - self.small) / (self.large - self.small)

    @property
    def apgr(self) -> float:
        """Return the mean of PGR over the share (RouteLLM's trapezoids)."""
        width = self.share[-1] - self.share[0]
        return float(np.trapezoid(self.gap_recovered, self.share) / width)

    def cpt(self, target: float) -> float:
        """Return the least share of large calls that recovers this part of the gap."""
        reached = np.maximum.accumulate(self.gap_recovered)
        after = int(np.searchsorted(reached, target))
        if after == 0:
            return float(self.share[0])
        if after == len(reached):
            return float(self.share[-1])
        step = (target - reached[after - 1]) / (reached[after] - reached[after - 1])
        return float(self.share[after - 1] + step * (self.share[after] - self.share[after - 1]))


def pair_curve(
    small: ArrayLike, large: ArrayLike, rank: ArrayLike, *, points: int = 10
) -> PairCurve:
    """Return the curve at `points` + 1 thresholds, the quantiles of `rank` (RouteLLM, section 4).

    As there, queries that tie with a threshold are called together. Raises
    MetricError where the two models are equally good: there is no gap.
    """
    w, s, r = _finite(small), _finite(large), _finite(rank)
    if w.mean() == s.mean():
        raise MetricError("expected two models of different quality, found equal mean scores")
    thresholds = np.quantile(r, np.linspace(0, 1, points + 1))
    calls = [r >= t for t in thresholds[:-1]] + [r > thresholds[-1]]
    share = np.array([call.mean() for call in calls])[::-1]
    quality = np.array([np.where(call, s, w).mean() for call in calls])[::-1]
    return PairCurve(share, quality, float(w.mean()), float(s.mean()))


def apgr(small: ArrayLike, large: ArrayLike, rank: ArrayLike, *, points: int = 10) -> float:
    """Return the area under PGR against the share of large calls."""
    return pair_curve(small, large, rank, points=points).apgr


def auroc(score: ArrayLike, positive: ArrayLike) -> float:
    """Return the chance that a positive is scored above a negative, ties counting half."""
    values, labels = _finite(score), np.asarray(positive, dtype=bool)
    ones, zeros = int(labels.sum()), int((~labels).sum())
    if not ones or not zeros:
        raise MetricError("AUROC needs positives and negatives, found one of them alone")
    ranks = _mean_ranks(values)
    return float((ranks[labels].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def _mean_ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[inverse]
    return ranks


def aurc(confidence: ArrayLike, loss: ArrayLike) -> float:
    """Return the mean, over k, of the loss among the k most confident."""
    order = np.argsort(-_finite(confidence), kind="stable")
    losses = _finite(loss)[order]
    return float(np.mean(np.cumsum(losses) / np.arange(1, len(losses) + 1)))


def brier(predicted: ArrayLike, score: ArrayLike) -> float:
    """Return the mean squared distance of predictions from scores."""
    return float(np.mean((_finite(predicted) - _finite(score)) ** 2))


def calibration_error(predicted: ArrayLike, score: ArrayLike, *, bins: int = 15) -> float:
    """Return ECE: the mean distance of prediction from outcome, over bins of equal width."""
    p, y = _finite(predicted), _finite(score)
    place = np.clip((p * bins).astype(int), 0, bins - 1)
    apart = np.abs(np.bincount(place, p, bins) - np.bincount(place, y, bins))
    return float(apart.sum() / len(p))


@dataclass(frozen=True, slots=True)
class Frontier:
    """What a router reaches: mean quality at mean cost, at each of its operating points."""

    cost: Floats
    quality: Floats

    def hull(self) -> Frontier:
        """Return the upper concave hull, non-decreasing: what mixing points reaches."""
        order = np.lexsort((-self.quality, self.cost))
        kept: list[int] = []
        for at in order:
            if kept and self.quality[at] <= self.quality[kept[-1]]:
                continue
            while len(kept) > 1 and not self._bends(kept[-2], kept[-1], at):
                kept.pop()
            kept.append(int(at))
        return Frontier(self.cost[kept], self.quality[kept])

    def _bends(self, a: int, b: int, c: int) -> bool:
        rise = (self.quality[b] - self.quality[a]) * (self.cost[c] - self.cost[a])
        return bool(rise > (self.quality[c] - self.quality[a]) * (self.cost[b] - self.cost[a]))

    def cost_at(self, quality: float) -> float:
        """Return the least cost on the hull that reaches a quality; NaN where none does."""
        hull = self.hull()
        if quality > hull.quality[-1]:
            return float("nan")
        return float(np.interp(quality, hull.quality, hull.cost))

    def aiq(self, low: float, high: float) -> float:
        """Return the mean quality of the hull over a range of cost, fixed across routers.

        Below the cheapest point there is nothing to buy, so quality counts as 0;
        above the dearest, money buys no more. Raises MetricError for an empty range.
        """
        if not low < high:
            raise MetricError(f"expected a range of cost, found {low} to {high}")
        hull = self.hull()
        inside = hull.cost[(hull.cost > low) & (hull.cost < high)]
        at = np.concatenate([[max(low, hull.cost[0])], inside[inside > low], [high]])
        if at[0] >= high:
            return 0.0
        return float(np.trapezoid(np.interp(at, hull.cost, hull.quality), at) / (high - low))


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its bootstrap interval."""

    value: float
    lower: float
    upper: float

    def __format__(self, spec: str) -> str:
        """Return the figure as text, such as `0.70 [0.68, 0.72]`."""
        value, low, high = (format(x, spec) for x in (self.value, self.lower, self.upper))
        return f"{value} [{low}, {high}]"


def interval(
    figure: Callable[[NDArray[np.intp]], float],
    count: int,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return a figure of rows with its percentile interval over resampled queries (Efron 1979).

    `figure` is given row numbers, with repeats. For a paired interval let it
    return the difference of two ways on the same rows.
    """
    chance = np.random.default_rng(seed)
    found = [figure(chance.integers(0, count, count)) for _ in range(resamples)]
    tail = (1 - level) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return Interval(figure(np.arange(count)), float(low), float(high))


def _finite(values: ArrayLike) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if not array.size or not np.isfinite(array).all():
        what = "an empty list" if not array.size else "NaN or infinity"
        raise MetricError(f"expected finite numbers, found {what}")
    return array
