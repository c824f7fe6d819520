"""Whether a candidate wins: estimated on requests that were logged under another policy.

Each request stands in the log by a known chance, and some of its values were seen by one
again. The estimate is doubly robust: it is right where either those chances or the predicted
values are (Robins et al. 1994; Dudík et al. 2014, "Doubly robust policy evaluation").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MARGIN = 0.01
"""Where no floor is to be held, quality may be unproven by so much for a lower price."""

_FEWEST = 30
_RAREST = 0.01


@dataclass(frozen=True, slots=True)
class Estimated:
    """A mean with its two-sided bounds, from so many requests."""

    mean: float
    low: float
    high: float
    count: int


def doubly_robust(value: Floats, predicted: Floats, chance: Floats) -> Floats:
    """Return each request's part of the estimate, [n].

    `value` is NaN where it was not seen, `predicted` what was expected of it, `chance` the
    probability with which it was seen. Raises ValueError for chances outside (0, 1], and for
    predictions that are no numbers.
    """
    if not ((chance > 0.0) & (chance <= 1.0)).all():
        raise ValueError("expected chances above 0 and at most 1")
    if not np.isfinite(predicted).all():
        raise ValueError("expected predictions, found one that is no number")
    seen = ~np.isnan(value)
    surprise = np.where(seen, np.nan_to_num(value) - predicted, 0.0)
    return np.asarray(predicted + surprise / np.maximum(chance, _RAREST))


def estimated(parts: Floats, chance: Floats, *, certainty: float = 0.95) -> Estimated:
    """Return the mean of requests that stand in the log by these chances (Hájek's estimator).

    Bounds are of Student's t on the linearised variance; too few requests bound nothing.
    """
    from scipy.special import stdtrit

    count = len(parts)
    weight = 1.0 / np.maximum(chance, _RAREST)
    if count < _FEWEST:
        mean = float(np.average(parts, weights=weight)) if count else 0.0
        return Estimated(mean, -math.inf, math.inf, count)
    share = weight / weight.sum()
    mean = float(share @ parts)
    spread = math.sqrt(float((share**2) @ (parts - mean) ** 2) * count / (count - 1))
    enough = 1.0 / float((share**2).sum())  # requests of equal weight that would tell as much
    half = float(stdtrit(max(enough - 1.0, 1.0), 0.5 + certainty / 2.0)) * spread
    return Estimated(mean, mean - half, mean + half, count)


@dataclass(frozen=True, slots=True)
class Weighed:
    """A candidate beside what runs now: differences a request, new less old.

    `holds` is whether the floor was certified of it, None where none is to be held.
    """

    usd: Estimated
    quality: Estimated
    holds: bool | None = None


def why_not(weighed: Weighed, *, usd_per_point: float | None = None) -> str | None:
    """Return why a candidate is not promoted; None where it wins.

    Under a floor it must hold it and be cheaper for certain. Where quality has a price, what it
    is worth must exceed what it costs for certain. Else it must be cheaper at a quality that is
    no lower, or better at a price that is no higher.
    """
    usd, quality = weighed.usd, weighed.quality
    if weighed.holds is False:
        return "the floor could not be certified of it"
    if weighed.holds:
        return None if usd.high < 0.0 else f"costs are not lower for certain ({_told(usd)})"
    if usd_per_point is not None:
        # Differences of one request are bounded together by the sum of their bounds.
        least = 100.0 * usd_per_point * quality.low - usd.high
        return None if least > 0.0 else f"its worth is not proven (${least:+.6f} at the least)"
    if usd.high < 0.0 and quality.low > -MARGIN:
        return None
    if quality.low > 0.0 and usd.high <= 0.0:
        return None
    return f"neither cheaper nor better for certain ({_told(usd)}; quality {_told(quality)})"


def _told(found: Estimated) -> str:
    return f"{found.mean:+.6f} [{found.low:+.6f}, {found.high:+.6f}]"
