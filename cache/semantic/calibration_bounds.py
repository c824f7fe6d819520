"""Exact bounds of a share that was counted."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log, log1p

_STEPS = 50


def upper_bound(wrong: int, counted: int, certainty: float) -> float:
    """Return the share that is exceeded with a chance of 1 - certainty (Clopper, Pearson 1934)."""
    if wrong >= counted:
        return 1.0
    return _crossing(lambda share: _at_most(wrong, counted, share) > 1 - certainty)


def lower_bound(wrong: int, counted: int, certainty: float) -> float:
    """Return the share that is undercut with a chance of 1 - certainty (Clopper, Pearson 1934)."""
    if wrong <= 0:
        return 0.0
    return _crossing(lambda share: _at_most(wrong - 1, counted, share) > certainty)


def _crossing(is_below: Callable[[float], bool]) -> float:
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return high


def _at_most(wrong: int, counted: int, share: float) -> float:
    """Return the chance of at most `wrong` in `counted` draws."""
    if not 0.0 < share < 1.0:
        return 1.0 if share <= 0.0 else 0.0
    if 2 * wrong > counted:  # the shorter tail
        return 1.0 - _at_most(counted - wrong - 1, counted, 1.0 - share)
    odds = log(share) - log1p(-share)
    term = counted * log1p(-share)
    total = term
    for k in range(1, wrong + 1):
        term += log((counted - k + 1) / k) + odds
        total = max(total, term) + log1p(exp(-abs(total - term)))
    return min(1.0, exp(total))
