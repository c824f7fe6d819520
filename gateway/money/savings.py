"""What was saved, as measured: requests that went straight to the reference against the others.

The difference of two means by Welch, with an interval that holds with a
probability of 95 %. Costs are skewed, so it says nothing before each arm has
`ENOUGH` requests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

ENOUGH = 30
_Z = 1.959964
_NANO = 1e9


@dataclass(frozen=True, slots=True)
class Arm:
    """What the requests of one arm cost: their number, their sum, and that of squared dollars."""

    requests: int = 0
    cost_nano_usd: int = 0
    cost_squared: float = 0.0

    @property
    def mean_usd(self) -> float:
        """Return what one cost."""
        return self.cost_nano_usd / _NANO / self.requests

    @property
    def error_squared(self) -> float:
        """Return the square of the mean's standard error, in dollars."""
        spread = self.cost_squared / self.requests - self.mean_usd**2
        return max(0.0, spread) / (self.requests - 1)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a route saved on those of its requests that a model answered, with its interval.

    All three are None until there is enough to say so.
    """

    route: str
    control_requests: int
    policy_requests: int
    saved_nano_usd: int | None = None
    low_nano_usd: int | None = None
    high_nano_usd: int | None = None


def measured(route: str, control: Arm, policy: Arm) -> Measured:
    """Compare the arms of a route."""
    if min(control.requests, policy.requests) < ENOUGH:
        return Measured(route, control.requests, policy.requests)
    each = control.mean_usd - policy.mean_usd
    variance = control.error_squared + policy.error_squared
    half = _quantile(_freedom(control, policy)) * math.sqrt(variance)
    saved, low, high = (
        round(usd * policy.requests * _NANO) for usd in (each, each - half, each + half)
    )
    return Measured(route, control.requests, policy.requests, saved, low, high)


def _freedom(one: Arm, other: Arm) -> float:
    """Return the degrees of freedom after Welch and Satterthwaite."""
    parts = [arm.error_squared**2 / (arm.requests - 1) for arm in (one, other)]
    total = (one.error_squared + other.error_squared) ** 2
    return total / sum(parts) if sum(parts) else math.inf


def _quantile(freedom: float) -> float:
    """Return the two-sided 95 % quantile of Student's t, expanded around the normal one."""
    first = (_Z**3 + _Z) / 4
    second = (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / 96
    return _Z + first / freedom + second / freedom**2
