"""Bootstrap intervals of means, over queries."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its 95 % interval."""

    mean: float
    lower: float
    upper: float

    def shown(self, scale: float = 1.0, digits: int = 1, sign: str = "") -> str:
        """Return the estimate as text, such as `93.5 [90.5, 96.4]`."""
        number = f"{sign}.{digits}f"
        mean, lower, upper = (
            format(x * scale, number) for x in (self.mean, self.lower, self.upper)
        )
        return f"{mean} \\[{lower}, {upper}]"


def bootstrap(values: Sequence[float], *, resamples: int = 4000, seed: int = 1) -> Estimate:
    """Return the mean of values and its 95 % percentile interval (Efron 1979).

    Give the differences of two ways on the same queries for a paired interval.
    """
    chance = random.Random(seed)
    n = len(values)
    means = sorted(sum(chance.choices(values, k=n)) / n for _ in range(resamples))
    low, high = int(0.025 * resamples), int(0.975 * resamples) - 1
    return Estimate(sum(values) / n, means[low], means[high])
