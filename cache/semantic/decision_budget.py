"""The stop: exact answers only once audits show more wrong hits than a route allows."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cache.semantic.calibration_bounds import lower_bound, upper_bound


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a route allows, and how sure a change of mind must be.

    A route is stopped once its false-hit rate is above `max_error` with a chance of
    `to_stop`, and serves again once it is below with a chance of `to_certify`, both
    judged on the last `window` audits or fewer.
    """

    max_error: float
    to_stop: float = 0.95
    to_certify: float = 0.8
    window: int = 2000


@dataclass(frozen=True, slots=True)
class ErrorBudget:
    """What the audits of one route and tenant came to since the last change of mind.

    While stopped, hits that would have been served are still audited: that is how a
    route is certified again. `stops` counts how often it was stopped.
    """

    is_serving: bool = True
    audited: float = 0.0
    wrong: float = 0.0
    stops: int = 0

    def after(self, was_right: bool, allowance: Allowance) -> ErrorBudget:
        """Return the state after one more audited hit, served or withheld.

        Beyond the window, older audits fade, so that the counts stay a share of it.
        """
        fading = min(1.0, (allowance.window - 1) / max(self.audited, 1.0))
        counted = replace(
            self,
            audited=self.audited * fading + 1,
            wrong=self.wrong * fading + (not was_right),
        )
        return counted._judged(allowance)

    def interval(self, certainty: float = 0.95) -> tuple[float, float]:
        """Return the two-sided interval of the false-hit rate."""
        tail = (1 + certainty) / 2
        wrong, audited = self._counts()
        return lower_bound(wrong, audited, tail), upper_bound(wrong, audited, tail)

    @property
    def false_hit_rate(self) -> float:
        """Return the share of audited hits that were wrong."""
        return self.wrong / self.audited if self.audited else 0.0

    def _judged(self, allowance: Allowance) -> ErrorBudget:
        wrong, audited = self._counts()
        if self.is_serving:
            if lower_bound(wrong, audited, allowance.to_stop) <= allowance.max_error:
                return self
            return ErrorBudget(is_serving=False, stops=self.stops + 1)
        if upper_bound(wrong, audited, allowance.to_certify) > allowance.max_error:
            return self
        return ErrorBudget(is_serving=True, stops=self.stops)

    def _counts(self) -> tuple[int, int]:
        """Round so that the share is never understated."""
        audited = int(self.audited)
        return min(audited, -int(-self.wrong // 1)), audited
