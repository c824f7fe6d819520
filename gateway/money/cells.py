"""Sums of the ledger by hour and by who asked: as statements, over its lines or over its roll-ups.

A report adds up cells. Those of hours gone by are kept (the tables `rollup…`),
those of lines not yet added are made as they are asked for; so a report is
exact at any moment, and as quick over a million entries as over a thousand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Double,
    FromClause,
    Select,
    Table,
    and_,
    case,
    cast,
    func,
    literal_column,
    or_,
    select,
    union_all,
)

from gateway.money.records import GATEWAY
from gateway.money.schema import BUCKETS, CALL_SUMS, attempt, entry, rollup, rollup_arm, rollup_call

HOUR_US = 3_600_000_000
HITS = ("exact", "semantic")
_REJECTED = ("rejected", "rejected_early")
rowid: ColumnElement[int] = literal_column("entry.rowid")
"""The order in which SQLite got its entries."""

Statement = Callable[[ColumnElement[bool]], Select[Any]]


def entry_cells(where: ColumnElement[bool]) -> Select[Any]:
    """Sum up the chosen entries as rows of `rollup`."""
    is_hit = entry.c.cache.in_(HITS)
    saved = entry.c.saved_nano_usd
    was_rejected = (
        select(attempt.c.seq)
        .where(attempt.c.request_id == entry.c.request_id, is_rejected())
        .correlate(entry)
        .exists()
    )
    sums = (
        func.count().label("requests"),
        sum_of(tokens(entry)).label("tokens"),
        sum_of(entry.c.cost_nano_usd).label("cost_nano_usd"),
        sum_of(case((is_hit, 0), else_=saved)).label("saved_nano_usd"),
        sum_of(case((is_hit, saved), else_=0)).label("cache_saved_nano_usd"),
        _count(is_hit).label("cache_hits"),
        _count(was_rejected).label("escalations"),
        sum_of(entry.c.estimated).label("estimated"),
        sum_of(unsure()).label("unsure_nano_usd"),
    )
    keys = (hour(), *(entry.c[name] for name in ("tenant", "key", "route", "model", "tags")))
    return select(*keys, *sums).where(where).group_by(*keys)


def call_cells(where: ColumnElement[bool]) -> Select[Any]:
    """Sum up the attempts of the chosen entries as rows of `rollup_call`."""
    keys = (
        hour(),
        *(entry.c[name] for name in ("tenant", "key", "route", "tags")),
        *(attempt.c[name] for name in ("model", "provider", "purpose", "tier")),
        case((attempt.c.payer == GATEWAY, 1), else_=0).label("is_own"),
    )
    added = [name for name in CALL_SUMS if name not in ("calls", "escalations")]
    sums = (
        func.count().label("calls"),
        *(sum_of(attempt.c[name]).label(name) for name in added),
        _count(is_rejected()).label("escalations"),
    )
    joined = attempt.join(entry, entry.c.request_id == attempt.c.request_id)
    return select(*keys, *sums).select_from(joined).where(where).group_by(*keys)


def arm_cells(where: ColumnElement[bool]) -> Select[Any]:
    """Sum up what answered requests cost in each arm, as rows of `rollup_arm`.

    Hits of a cache are in neither: they are saved another way. Audits are paid for learning.
    """
    chosen = (
        select(entry.c.request_id, hour(), entry.c.route)
        .where(where, entry.c.state == "settled", entry.c.cache.not_in(HITS))
        .where(entry.c.tenant != GATEWAY)
        .cte("chosen")
        # Else SQLite goes through all entries, since they are grouped by their ids below.
        .prefix_with("MATERIALIZED")
    )
    own = (
        select(
            chosen.c.request_id,
            chosen.c.hour,
            chosen.c.route,
            sum_of(attempt.c.cost_nano_usd).label("cost"),
            func.max(case((attempt.c.purpose == "control", 1), else_=0)).label("is_control"),
        )
        .join(attempt, attempt.c.request_id == chosen.c.request_id)
        .where(attempt.c.purpose != "audit")
        .group_by(chosen.c.request_id, chosen.c.hour, chosen.c.route)
        .subquery()
    )
    arm = case((own.c.is_control == 1, "control"), else_="policy").label("arm")
    dollars = cast(own.c.cost, Double) * 1e-9
    return select(
        own.c.hour,
        own.c.route,
        arm,
        func.count().label("requests"),
        sum_of(own.c.cost).label("cost_nano_usd"),
        func.sum(dollars * dollars).label("cost_squared"),
    ).group_by(own.c.hour, own.c.route, literal_column("arm"))


ROLLUPS: tuple[tuple[Table, Statement], ...] = (
    (rollup, entry_cells),
    (rollup_call, call_cells),
    (rollup_arm, arm_cells),
)
"""What is kept, and how it comes from lines."""


@dataclass(frozen=True, slots=True)
class Span:
    """Which part of a ledger a report covers.

    Hours from `hour` on are whole, and summed up already but for rows after
    `upto` (None in PostgreSQL, where no such rows are). `part` is the first
    moment of the broken hour before them, None where there is none.
    """

    hour: int
    part: int | None = None
    upto: int | None = None

    def lines(self) -> ColumnElement[bool] | None:
        """Return which lines are to be added up now, None where none are."""
        first = entry.c.started_at_us
        chosen: list[ColumnElement[bool]] = []
        if self.part is not None:
            chosen.append(and_(first >= self.part, first < self.hour * HOUR_US))
        if self.upto is not None:
            chosen.append(and_(rowid > self.upto, first + 0 >= self.hour * HOUR_US))
        return or_(*chosen) if chosen else None

    def cells(self, table: Table) -> FromClause:
        """Return the cells of one kind: those kept, and those of the lines not added yet."""
        kept = select(table).where(table.c.hour >= self.hour)
        where = self.lines()
        if where is None:
            return kept.subquery()
        (make,) = (make for each, make in ROLLUPS if each is table)
        return union_all(kept, make(where)).subquery()


def hour() -> ColumnElement[int]:
    """Return the hour since the epoch in which an entry began."""
    return (entry.c.started_at_us // HOUR_US).label("hour")


def unsure() -> ColumnElement[int]:
    """Return what an entry may have cost beyond our own count, where budgets hold that, too."""
    beyond = entry.c.upper_nano_usd - entry.c.cost_nano_usd
    return case(((entry.c.estimated == 1) & (entry.c.state != "abandoned"), beyond), else_=0)


def tokens(table: FromClause) -> ColumnElement[int]:
    """Return all tokens of a row, whatever their bucket."""
    total: ColumnElement[int] = table.c[BUCKETS[0]]
    for bucket in BUCKETS[1:]:
        total = total + table.c[bucket]
    return total


def sum_of(column: ColumnElement[Any]) -> ColumnElement[int]:
    """Return a sum that is 0 over nothing."""
    return func.coalesce(func.sum(column), 0)


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return sum_of(case((condition, 1), else_=0))


def is_rejected() -> ColumnElement[bool]:
    """Return whether an attempt was a draft that was not good enough."""
    return and_(attempt.c.outcome.in_(_REJECTED), attempt.c.purpose == "serve")
