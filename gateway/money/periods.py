"""A period of a ledger, and its sums: read from whole days, whole hours, and the lines at its ends.

Days and hours are kept as cells; what was not added to them yet, and the broken hours at
either end, are summed up from lines as they are asked for. So a report is exact at any
moment, and reads little however much there is. Where the lines of a broken hour were let
go, all of that hour belongs to the period that it ends in.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, FromClause, Select, and_, or_, select, union_all

from gateway.money.cells import HOUR_US, arm_cells, rowid, sum_of
from gateway.money.location import is_postgres
from gateway.money.rollup import OWN, kept_since_us, position
from gateway.money.schema import (
    VIEW_SUMS,
    entry,
    rollup_arm,
    rollup_by,
    rollup_latency,
)
from gateway.money.views import DAYS, HOURS, latency_cells, view_cells

if TYPE_CHECKING:
    from sqlalchemy import Connection

NEVER_US = 24 * 100_000_000 * HOUR_US
"""The end of a period without end."""
Piece = tuple[int, int, int]
"""Cells of a step, from an hour until before another."""


@dataclass(frozen=True, slots=True)
class Period:
    """From `since_us` until before `until_us`; `first` to `last` are its whole hours.

    `upto` is the last row that was added to cells, None in PostgreSQL, where all are.
    """

    since_us: int
    until_us: int
    first: int
    last: int
    upto: int | None

    @property
    def days(self) -> Piece:
        """Return the whole days, none where their end is not after their beginning."""
        return DAYS, -(-self.first // DAYS) * DAYS, self.last // DAYS * DAYS

    def pieces(self, *, step: int = DAYS) -> list[Piece]:
        """Return the cells that make the whole hours: as few as may be, or of hours alone."""
        _, begin, end = self.days
        if step == HOURS or begin >= end:
            return [(HOURS, self.first, self.last)] if self.first < self.last else []
        found = [(HOURS, self.first, begin), (DAYS, begin, end), (HOURS, end, self.last)]
        return [piece for piece in found if piece[1] < piece[2]]

    def lines(self) -> ColumnElement[bool] | None:
        """Return which lines are to be summed up now, None where none are."""
        at, chosen = entry.c.started_at_us, []
        first_us, last_us = self.first * HOUR_US, self.last * HOUR_US
        if self.first > self.last:  # all of it lies within one hour
            return and_(at >= self.since_us, at < self.until_us)
        if self.since_us < first_us:
            chosen.append(and_(at >= self.since_us, at < first_us))
        if self.until_us > last_us:
            chosen.append(and_(at >= last_us, at < self.until_us))
        if self.upto is not None:
            # As a sum the moment has no index, so the newest rows are found by their numbers.
            chosen.append(and_(rowid > self.upto, at + 0 >= first_us, at + 0 < last_us))
        return or_(*chosen) if chosen else None

    def cells(self, by: str, *, step: int = DAYS) -> FromClause:
        """Return the cells of one view: hour (of a day, its first), name and sums."""
        table = rollup_by.c
        columns = (table.hour, table.name, *(table[name] for name in VIEW_SUMS))
        parts: list[Any] = [
            select(*columns).where(table.by == by, *_within(rollup_by, piece))
            for piece in self.pieces(step=step)
        ]
        if (where := self.lines()) is not None:
            live = view_cells(where, (by,)).subquery()
            parts.append(select(live.c.hour, live.c.name, *(live.c[name] for name in VIEW_SUMS)))
        if not parts:
            parts.append(select(*columns).where(table.by == ""))
        return union_all(*parts).subquery()

    def classes(self, *, step: int = DAYS) -> Select[Any]:
        """Return the classes of latencies that are kept: kind, hour, class and count."""
        table = rollup_latency.c
        columns = (table.kind, table.hour, table["class"], table["count"])
        parts = [
            select(*columns).where(table.kind.in_(("latency", "ttft")), *_within(rollup_latency, p))
            for p in self.pieces(step=step)
        ]
        cells = union_all(*parts or [select(*columns).where(table.kind == "")]).subquery()
        return select(cells.c.kind, cells.c.hour, cells.c["class"], cells.c["count"])

    def arms(self) -> FromClause:
        """Return the cells of the routes' experiments."""
        table = rollup_arm.c
        kept = select(rollup_arm).where(table.hour >= self.first, table.hour < self.last)
        where = self.lines()
        return (kept if where is None else union_all(kept, arm_cells(where))).subquery()


def period(connection: Connection, url: str, since_us: int, until_us: int | None = None) -> Period:
    """Return a period of the ledger that is read through `connection`."""
    upto = None if is_postgres(url) else position(connection, OWN)[0]
    kept = kept_since_us(connection)
    end_us = NEVER_US if until_us is None else until_us
    first, last = -(-since_us // HOUR_US), end_us // HOUR_US
    if (since_us // HOUR_US) * HOUR_US < kept:
        first = since_us // HOUR_US
    if last * HOUR_US < kept:
        end_us = last * HOUR_US
    return Period(since_us, end_us, first, last, upto)


def sums(connection: Connection, cells: FromClause, *keys: ColumnElement[Any]) -> list[Any]:
    """Return the sums of cells by some keys, in their order, as whole numbers."""
    totals = (sum_of(cells.c[name]).label(name) for name in VIEW_SUMS)
    wanted: Select[Any] = select(*keys, *totals)
    if keys:
        wanted = wanted.group_by(*keys).order_by(*keys)
    if connection.dialect.name != "postgresql":
        return list(connection.execute(wanted))
    # PostgreSQL adds whole numbers up to decimals.
    return [SimpleNamespace(**_whole(row._asdict())) for row in connection.execute(wanted)]


def latencies(
    connection: Connection, asked: Period, *, step: int | None = None
) -> dict[tuple[str, int], list[tuple[int, int]]]:
    """Return classes and counts by kind, and with a step by the hour that it begins with."""
    kept = connection.execute(asked.classes(step=step or DAYS))
    where = asked.lines()
    live: Iterable[Any] = () if where is None else connection.execute(latency_cells(where))
    counts: dict[tuple[str, int], Counter[int]] = defaultdict(Counter)
    for kind, at, number, count in chain(kept, live):
        counts[kind, at // step * step if step else 0][int(number)] += int(count)
    return {key: sorted(found.items()) for key, found in counts.items()}


def _whole(row: dict[str, Any]) -> dict[str, Any]:
    return {name: int(v) if isinstance(v, Decimal) else v for name, v in row.items()}


def _within(table: Any, piece: Piece) -> tuple[ColumnElement[bool], ...]:
    step, begin, end = piece
    return table.c.step == step, table.c.hour >= begin, table.c.hour < end
