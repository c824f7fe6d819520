"""What will have been spent by the end of a window, with a range; pure.

The days (or hours) to come are taken to be like those gone by: as many draws from the
same law, whose mean is itself only known from so many. So the range holds for the sum,
and is wide where little was seen. It knows no weekdays and no trend, and says so by its
width alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

FEWEST = 3
"""Steps without which nothing is foretold."""
_Z = 1.281552
"""Both sides of an 80 % interval."""


@dataclass(frozen=True, slots=True)
class Foretold:
    """Nano-dollars at the window's end; `rate` is what a step adds."""

    spend: int
    low: int
    high: int
    rate: float

    def steps_until(self, left: int) -> float | None:
        """Return after how many steps so much more is spent, None where nothing is being spent."""
        return left / self.rate if self.rate > 0 else None


def foretell(spent: int, steps: Sequence[int], to_come: float) -> Foretold | None:
    """Return what will be spent after `to_come` more steps, given the sums of steps gone by."""
    if len(steps) < FEWEST:
        return None
    rate, spread = fmean(steps), stdev(steps)
    middle = spent + rate * to_come
    half = _quantile(len(steps) - 1) * spread * math.sqrt(to_come + to_come**2 / len(steps))
    return Foretold(round(middle), max(spent, round(middle - half)), round(middle + half), rate)


def _quantile(freedom: int) -> float:
    """Return the two-sided 80 % quantile of Student's t, expanded around the normal one."""
    first = (_Z**3 + _Z) / 4
    second = (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / 96
    return _Z + first / freedom + second / freedom**2
