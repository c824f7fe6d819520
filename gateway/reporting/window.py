"""The time that a report is asked of: from when, until when, in which steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway.money.cells import HOUR_US
from gateway.money.errors import ReportError
from gateway.money.reports import micros, parse_since
from gateway.reporting.shapes import Range, Step

if TYPE_CHECKING:
    from sqlalchemy import Connection

MOST_POINTS = 1_000
_HOURS_UP_TO = 7 * 24
STEPS: dict[Step, int] = {"hour": 1, "day": 24}


@dataclass(frozen=True, slots=True)
class Window:
    """Moments in microseconds; `is_open` where nothing after `until_us` is left out."""

    since_us: int
    until_us: int
    step: Step
    is_open: bool = True

    @property
    def end_us(self) -> int | None:
        """Return the end as a period takes it: None for one without."""
        return None if self.is_open else self.until_us

    @property
    def hours(self) -> int:
        """Return how many hours a step has."""
        return STEPS[self.step]

    def before(self) -> Window:
        """Return the time before this one, of the same length."""
        length = self.until_us - self.since_us
        return Window(max(0, self.since_us - length), self.since_us, self.step, is_open=False)

    def begins(self) -> Iterator[int]:
        """Yield the hour with which each step begins, without gaps."""
        step = self.hours
        first = self.since_us // HOUR_US // step * step
        last = max(self.since_us, self.until_us - 1) // HOUR_US
        yield from range(first, last + 1, step)

    def shown(self) -> Range:
        """Return it as it is told."""
        return Range(since=iso(self.since_us), until=iso(self.until_us), step=self.step)


def day_of(now_s: float) -> str:
    """Return the day of a moment in seconds, such as 2026-11-21, in UTC."""
    return datetime.fromtimestamp(now_s, UTC).date().isoformat()


def window(since: str, until: str | None, step: Step | None, now: datetime) -> Window:
    """Read what was asked: moments as `frugal costs` takes them, `step` chosen where none is named.

    Raises ReportError.
    """
    begin = micros(parse_since(since, now))
    end = micros(now) if until is None else micros(parse_since(until, now))
    if begin >= end:
        raise ReportError(f"expected since before until, found {since[:40]!r} and {until or 'now'}")
    hours = (end - begin) // HOUR_US
    step = step or ("hour" if hours <= _HOURS_UP_TO else "day")
    if hours // STEPS[step] > MOST_POINTS:
        raise ReportError(
            f"expected at most {MOST_POINTS} steps, found {hours // STEPS[step]}; "
            "choose longer steps or a later since"
        )
    return Window(begin, end, step, is_open=until is None)


def iso(moment_us: int) -> str:
    """Write a moment in UTC, to the second, or finer where it is."""
    moment = datetime.fromtimestamp(moment_us // 1_000_000, UTC).replace(
        microsecond=moment_us % 1_000_000
    )
    return moment.isoformat().replace("+00:00", "Z")


def begun_us(connection: Connection) -> int | None:
    """Return the hour in which the ledger begins, in microseconds; None where it is empty."""
    from sqlalchemy import func, select

    from gateway.money.schema import entry, rollup_by

    hour = connection.scalar(
        select(func.min(rollup_by.c.hour)).where(rollup_by.c.by == "all", rollup_by.c.step == 24)
    )
    first = connection.scalar(select(func.min(entry.c.started_at_us)))
    found = [each for each in (hour and hour * HOUR_US, first) if each is not None]
    return min(found, default=None)
