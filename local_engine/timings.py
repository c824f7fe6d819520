"""How long requests took, in buckets: what averages hide."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Histogram:
    """Counts of values up to each bound, their sum and number.

    Written by one thread; another may read it at any time and miss the latest value.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


def _seconds() -> Histogram:
    return Histogram(_SECONDS)


@dataclass(frozen=True, slots=True)
class Timings:
    """What is measured of every request and step; times in seconds.

    First tokens are timed from the submission, tokens by the mean of each answer.
    """

    queue: Histogram = field(default_factory=_seconds)
    first_token: Histogram = field(default_factory=_seconds)
    per_token: Histogram = field(default_factory=_seconds)
    batch: Histogram = field(default_factory=lambda: Histogram(_SIZES))
