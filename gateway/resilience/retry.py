"""Whether to ask the same model again, and how long to wait first."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime

from gateway.errors import ProviderError, ProviderRateLimited
from gateway.resilience.guard import is_upstreams_fault
from policies.resilience import RetryRules

_NO_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
Draw = Callable[[], float]
"""Gives a number from 0 to below 1."""


def is_worth_another_try(exc: ProviderError) -> bool:
    """Return whether the same request may fare better: the upstream's state was at fault."""
    if isinstance(exc, ProviderRateLimited):
        return exc.code not in _NO_QUOTA
    return is_upstreams_fault(exc)


def wait_before(
    rules: RetryRules, exc: ProviderError, *, failed: int, wall: float, draw: Draw
) -> float | None:
    """Return how long to wait after the `failed`th failure, in seconds; None to give up.

    Full jitter on top of what the upstream asks for in this very error. Where
    another deployment can be asked, it need not wait for the first one.
    """
    if failed >= rules.attempts or not is_worth_another_try(exc):
        return None
    if exc.has_alternative:
        return 0.0
    floor = seconds_in(exc.retry_after, wall)
    if floor > rules.max_wait:
        return None
    jitter = draw() * rules.base * 2.0 ** (failed - 1)
    return min(floor + jitter, max(floor, rules.max_wait))


def seconds_in(retry_after: str | None, wall: float) -> float:
    """Return the seconds that a `retry-after` of seconds or a date asks for; 0 for none."""
    if retry_after is None:
        return 0.0
    try:
        seconds = float(retry_after)
    except ValueError:
        seconds = _until(retry_after, wall)
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _until(date: str, wall: float) -> float:
    try:
        at = parsedate_to_datetime(date)
    except ValueError:
        return 0.0
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - wall
