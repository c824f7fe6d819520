"""How many calls a deployment is given at once, learned from its latency; pure.

The gradient of Netflix's concurrency-limits (Gradient2): the limit shrinks by
the ratio of the usual time to a first part to the present one, and grows by the
square root of itself where that is not worse than tolerated. A failure for want
of capacity takes a tenth away (AIMD; Jacobson 1988). It is the time to a first
part that counts, since that of a whole answer is a matter of its length.
"""

from __future__ import annotations

import math

from policies.resilience import AdaptiveRules

_SMOOTHING = 0.2
_USUAL_OVER = 300
_USUAL_WHEN_FULL_OVER = 3000
"""Under load the usual time hardly moves, else a queue would become usual."""
_WARM_UP = 10
_BACK_OFF = 0.9
_FORGET = 0.95


class AdaptiveLimit:
    """A limit on calls under way that follows what the deployment can take."""

    def __init__(self, rules: AdaptiveRules) -> None:
        self._rules = rules
        self._limit = float(min(max(rules.start, rules.min), rules.max))
        self._usual_s = 0.0
        self._seen = 0

    @property
    def limit(self) -> int:
        """Return how many calls may be under way."""
        return int(self._limit)

    def answered(self, first_s: float, under_way: int) -> None:
        """Learn a time to a first part, with so many calls under way, that one included."""
        is_light = under_way < self._limit / 2
        usual_s = self._learn(first_s, _USUAL_OVER if is_light else _USUAL_WHEN_FULL_OVER)
        if is_light:
            return  # so few calls say nothing of what many would meet
        rules = self._rules
        gradient = min(1.0, max(0.5, rules.tolerance * usual_s / max(first_s, 1e-9)))
        aim = self._limit * gradient + math.sqrt(self._limit)
        self._set(self._limit * (1 - _SMOOTHING) + aim * _SMOOTHING)

    def overloaded(self) -> None:
        """Learn that a call was refused, or not answered in time."""
        self._set(self._limit * _BACK_OFF)

    def _learn(self, first_s: float, over: int) -> float:
        """Return the usual time: a mean at first, then one that moves slowly."""
        self._seen += 1
        over = self._seen if self._seen <= _WARM_UP else over
        self._usual_s += (first_s - self._usual_s) / over
        if self._usual_s > 2 * first_s:
            self._usual_s *= _FORGET  # it was overloaded when it was measured
        return self._usual_s

    def _set(self, limit: float) -> None:
        self._limit = min(max(limit, float(self._rules.min)), float(self._rules.max))
