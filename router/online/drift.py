"""Whether the traffic is still what it was learnt on: detectors that may be asked at any time.

A detector bets against the claim that a number is at most so much on average. Its capital
starts anew with every draw (Shiryaev-Roberts), so a change is noticed whenever it comes, and
while the claim is true the mean number of draws to a false alarm is at least `run_length`
(Shin, Ramdas and Rinaldo 2023, "E-detectors").
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

RUN_LENGTH = 10_000.0
"""Draws to a false alarm, on average, at the least."""

_STAKES = (0.05, 0.1, 0.2, 0.4, 0.7)
_DATING = 0.2
_BINS = 8
_FEWEST = 200
_SHIFTED = 0.25
_SELDOM_Z = 3.09  # one in a thousand


@dataclass(frozen=True, slots=True)
class Alarm:
    """The draw at which an alarm was raised, and the one since which things seem changed."""

    at: int
    since: int


class Detector:
    """Watches numbers from -1 to 1 of which it is claimed that they are at most `claim` on average.

    `capital` is the evidence against it, in the unit of draws to a false alarm.
    """

    __slots__ = ("_capital", "_claim", "_count", "_since", "_sum", "run_length")

    def __init__(self, claim: float, run_length: float = RUN_LENGTH) -> None:
        self._claim = claim
        self._capital = [0.0] * len(_STAKES)
        self._count = 0
        self._sum = 0.0
        self._since = 0
        self.run_length = run_length

    @property
    def capital(self) -> float:
        """Return the mean capital of all stakes."""
        return sum(self._capital) / len(self._capital)

    def add(self, value: float) -> Alarm | None:
        """Bet on one draw; return an alarm when the capital has reached the run length.

        Raises ValueError for a value outside [-1, 1].
        """
        if not -1.0 <= value <= 1.0:
            raise ValueError(f"expected a value from -1 to 1, found {value}")
        surplus = value - self._claim
        # Things have changed since when it would have paid most to begin betting (CUSUM).
        if self._sum <= 0.0:
            self._sum, self._since = 0.0, self._count
        self._sum += math.log1p(_DATING * surplus)
        self._capital = [
            (1.0 + own) * (1.0 + stake * surplus)
            for own, stake in zip(self._capital, _STAKES, strict=True)
        ]
        self._count += 1
        return Alarm(self._count - 1, self._since) if self.capital >= self.run_length else None


def alarm_of(values: Iterable[float], claim: float, run_length: float = RUN_LENGTH) -> Alarm | None:
    """Return the first alarm of a detector that sees these values, None where it raises none."""
    detector = Detector(claim, run_length)
    for value in values:
        if (alarm := detector.add(value)) is not None:
            return alarm
    return None


def tolerance(fitted_on: int) -> float:
    """Return by how much estimates fitted on so many labels may be off on average."""
    return min(0.02 + 1.0 / math.sqrt(max(fitted_on, 1)), 0.25)


@dataclass(frozen=True, slots=True)
class Shift:
    """How far a feature has moved: its population stability index, and from what on that counts."""

    index: float
    limit: float

    @property
    def has_moved(self) -> bool:
        """Return whether it has moved by more than chance and more than a little."""
        return self.index > self.limit


def shift_of(before: Sequence[float], now: Sequence[float]) -> Shift | None:
    """Compare a feature's values with what they were; None where too few are known.

    The index sums (a - b)·ln(a / b) over the shares of bins of equal size. Of the same traffic it
    is about χ² with bins - 1 degrees, times (1/n + 1/m); the limit is what that exceeds one time
    in a thousand, and never below the customary 0.25.
    """
    if min(len(before), len(now)) < _FEWEST:
        return None
    ordered = sorted(before)
    cuts = sorted({ordered[len(ordered) * place // _BINS] for place in range(1, _BINS)})
    old, new = _shares(before, cuts), _shares(now, cuts)
    index = sum((a - b) * math.log(a / b) for a, b in zip(new, old, strict=True))
    return Shift(index, max(_SHIFTED, _chance(len(cuts), 1 / len(before) + 1 / len(now))))


def _shares(values: Sequence[float], cuts: Sequence[float]) -> list[float]:
    counts = [0.5] * (len(cuts) + 1)  # half a row each, so that no share is nought
    for value in values:
        counts[bisect_right(cuts, value)] += 1.0
    total = sum(counts)
    return [count / total for count in counts]


def _chance(degrees: int, scale: float) -> float:
    """Return what χ² of so many degrees seldom exceeds (Wilson and Hilferty 1931), scaled."""
    if not degrees:
        return math.inf
    ninth = 2.0 / (9.0 * degrees)
    return scale * degrees * (1.0 - ninth + _SELDOM_Z * math.sqrt(ninth)) ** 3
