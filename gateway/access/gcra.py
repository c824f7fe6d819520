"""The generic cell rate algorithm: a rate and a burst in one number, exact in any order.

The state of a limit is the moment at which its bucket will be full again (the
*theoretical arrival time*). What is taken moves it away, time brings it nearer;
nothing may move it further than one whole bucket ahead. A bucket holds one
minute's worth. Whatever the order of those who ask, what is admitted less what
is given back never passes burst + rate * t.
"""

from __future__ import annotations

from msgspec import Struct

BURST_S = 60.0
"""How much a bucket holds, as the time in which it fills."""
_ROUNDING_S = 1e-7


class Level(Struct, frozen=True, gc=False):
    """A limit as the caller may know it: per minute, what is left, seconds until all is back."""

    limit: int
    remaining: int
    reset_s: float


def granted(full_at: float, amount: float, per_minute: int, now: float) -> Level | None:
    """Return the level once `amount` is taken, or None where it has to wait.

    What `wait_for`, `taken` and `level` say, at once; the new state is `now` and the
    level's `reset_s`.
    """
    ahead_s = full_at - now if full_at > now else 0.0
    ahead_s += amount * BURST_S / per_minute
    if amount > per_minute or ahead_s > BURST_S + _ROUNDING_S:
        return None
    remaining = int((BURST_S - ahead_s + _ROUNDING_S) * per_minute / BURST_S)
    return Level(per_minute, remaining if remaining > 0 else 0, ahead_s)


def wait_for(full_at: float, amount: float, per_minute: float, now: float) -> float:
    """Return how long until `amount` may be taken, in seconds; 0 when it may be now.

    An amount of more than a minute's worth can never be: that wait is infinite.
    """
    if amount > per_minute:
        return float("inf")
    ahead_s = max(full_at - now, 0.0) + amount * BURST_S / per_minute
    return ahead_s - BURST_S if ahead_s > BURST_S + _ROUNDING_S else 0.0


def taken(full_at: float, amount: float, per_minute: float, now: float) -> float:
    """Return the state after `amount` was taken, or given back where that is negative."""
    return max(full_at, now) + amount * BURST_S / per_minute


def level(full_at: float, per_minute: int, now: float) -> Level:
    """Return what the state means at `now`."""
    ahead_s = max(full_at - now, 0.0)
    remaining = int((BURST_S - ahead_s + _ROUNDING_S) * per_minute / BURST_S)
    return Level(per_minute, max(remaining, 0), ahead_s)
