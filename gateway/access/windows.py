"""The calendar of budgets: which hour, day or month of a time zone a moment belongs to.

A window is computed from the moment itself, so nothing has to run when one ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from policies.limits import Period

_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` until before `end`, in seconds since the epoch."""

    start: float
    end: float

    @property
    def name(self) -> str:
        """Return what tells this window from the others of its budget."""
        return str(int(self.start))


ALL_TIME = Window(0.0, _NEVER)


def window_at(period: Period, zone: str, at: float) -> Window:
    """Return the window that holds the moment `at`."""
    if period == "total":
        return ALL_TIME
    local = datetime.fromtimestamp(at, UTC if zone == "UTC" else ZoneInfo(zone))
    if period == "hour":
        start = at - (local.minute * 60 + local.second + local.microsecond / 1e6)
        return Window(round(start), round(start) + 3600.0)
    first = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if period == "day":
        return Window(first.timestamp(), _midnight(first + timedelta(days=1)))
    first = first.replace(day=1)
    # The 1st and 31 days later is always within the next month.
    return Window(first.timestamp(), _midnight((first + timedelta(days=31)).replace(day=1)))


def _midnight(local: datetime) -> float:
    return local.replace(fold=0).timestamp()
