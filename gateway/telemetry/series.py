"""Counters and histograms by labels, with a bound on how many lines they may become."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

MOST_SERIES = 500
"""Of each family, how many sets of labels are told apart; those that come later are `other`."""
OTHER = "other"
Labels = tuple[str, ...]


class Sums:
    """A counter by labels. Who comes first is told apart for good, so that no line ever falls.

    `known` are told from the beginning, as 0.
    """

    def __init__(self, most: int = MOST_SERIES, known: Iterable[str] = ()) -> None:
        self.values: dict[Labels, float] = {(name,): 0.0 for name in list(known)[:most]}
        self._most = most

    def add(self, labels: Labels, value: float) -> None:
        """Add to a line, or where there are too many to that of the others."""
        if labels not in self.values and len(self.values) >= self._most:
            labels = (OTHER,) * len(labels)
        self.values[labels] = self.values.get(labels, 0.0) + value


class Histogram:
    """Durations by labels, counted in classes: up to each bound, in seconds, and above the last."""

    def __init__(self, bounds: Sequence[float], most: int = MOST_SERIES) -> None:
        self.bounds = tuple(bounds)
        self.seconds = Sums(most)
        self._counts: dict[Labels, list[int]] = {}
        self._most = most

    def add(self, labels: Labels, slot: int, count: int, seconds: float) -> None:
        """Add so many durations of one class, which come to `seconds` together."""
        if labels not in self._counts and len(self._counts) >= self._most:
            labels = (OTHER,) * len(labels)
        own = self._counts.setdefault(labels, [0] * (len(self.bounds) + 1))
        own[slot] += count
        self.seconds.add(labels, seconds)

    def cumulative(self) -> dict[Labels, list[int]]:
        """Return by labels how many durations are at most each bound, last of all how many."""
        return {labels: list(accumulate(counts)) for labels, counts in self._counts.items()}
