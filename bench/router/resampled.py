"""APGR over many resamples of the same queries, without sorting them anew each time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from router.metrics import Interval

Floats = NDArray[np.float64]
RESAMPLES = 300
_SHARES = np.linspace(0, 1, 11)[:-1]


class Ranked:
    """One router's ranking of n queries, whose APGR can be told for any counts of them."""

    def __init__(self, small: Floats, large: Floats, rank: Floats) -> None:
        self._order = np.argsort(rank, kind="stable")
        sorted_ranks = rank[self._order]
        self._gain = (large - small)[self._order]
        # Queries that tie with a threshold are called together, from the first of them on.
        self._group = np.searchsorted(sorted_ranks, sorted_ranks)

    def apgr(self, counts: NDArray[np.intp]) -> float:
        """Return `router.metrics.apgr` of the queries repeated `counts` times."""
        weights = counts[self._order]
        below = np.concatenate(([0], np.cumsum(weights)))
        left = np.concatenate(([0.0], np.cumsum(weights * self._gain)))
        total, whole = below[-1], left[-1]
        # A quantile between two values calls from the greater of them on.
        place = np.ceil(_SHARES * (total - 1))
        first = self._group[np.searchsorted(below, place, side="right") - 1]
        share = np.append(total - below[first], 0) / total
        recovered = np.append(whole - left[first], 0.0) / whole
        return float(np.trapezoid(recovered[::-1], share[::-1]) / share[0])


def intervals(
    small: Floats, large: Floats, ways: Sequence[Sequence[Floats]], against: int | None
) -> Iterator[tuple[Interval, Interval | None]]:
    """Yield each way's mean APGR over its seeds' ranks, and how far it is above one of the ways.

    All of them are told of the same resamples, so that the differences are paired.
    """
    count = len(small)
    ranked = [[Ranked(small, large, rank) for rank in ranks] for ranks in ways]
    chance = np.random.default_rng(0)
    drawn = [np.ones(count, dtype=np.intp)]
    drawn += [
        np.bincount(chance.integers(0, count, count), minlength=count) for _ in range(RESAMPLES)
    ]
    found = np.array(
        [[np.mean([one.apgr(counts) for one in seeds]) for counts in drawn] for seeds in ranked]
    )
    for place, values in enumerate(found):
        rival = None if against in (None, place) else _interval(values - found[against])
        yield _interval(values), rival


def _interval(values: Floats) -> Interval:
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return Interval(float(values[0]), float(low), float(high))
