"""What the ledger tells: one row a request, or sums by model, route, tenant, key or day.

Reads only. Every dollar is in exactly one line: what tenants pay is in the
groups, what the gateway pays on its own account (audits, controls) in lines by
purpose, and the time that our own machines stood idle in lines by model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

from sqlalchemy import URL, ColumnElement, Select, Table, and_, case, create_engine, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from gateway.money.errors import LedgerError, ReportError
from gateway.money.location import locate
from gateway.money.records import GATEWAY
from gateway.money.schema import BUCKETS, attempt, entry, uptime

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

By = Literal["model", "route", "tenant", "key", "day"]
WAYS: tuple[str, ...] = get_args(By)

_DAY_US = 86_400_000_000
_HOUR_US = 3_600_000_000
_SHOWN_BUCKETS = ("input", "cached_input", "cache_write", "output", "reasoning")
_REJECTED = ("rejected", "rejected_early")


@dataclass(frozen=True, slots=True)
class Group:
    """Sums over some requests. `escalations` counts drafts that were not good enough."""

    name: str
    requests: int = 0
    tokens: int = 0
    cost_nano_usd: int = 0
    saved_nano_usd: int = 0
    cache_hits: int = 0
    escalations: int = 0
    estimated: int = 0

    def __add__(self, other: Group) -> Group:
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)[1:]}
        return Group(self.name, **sums)


@dataclass(frozen=True, slots=True)
class Background:
    """What the gateway spent on its own account, for one purpose."""

    purpose: str
    attempts: int
    tokens: int
    cost_nano_usd: int


@dataclass(frozen=True, slots=True)
class Idle:
    """The time a machine of ours was up for a model and did nothing, and its price."""

    model: str
    up_us: int
    busy_us: int
    idle_nano_usd: int


@dataclass(frozen=True, slots=True)
class Report:
    """All that was spent in a time, each dollar once."""

    by: str
    groups: tuple[Group, ...]
    background: tuple[Background, ...]
    idle: tuple[Idle, ...]

    @property
    def total(self) -> Group:
        """Return the sum of the groups."""
        return sum(self.groups, Group("total"))


def request_rows(
    url: str, *, since: str | None = None, limit: int | None = None, now: datetime | None = None
) -> list[dict[str, Any]]:
    """Return one row a request, newest first.

    `since` is a duration before `now` (24h, 7d) or a date. Raises ReportError,
    LedgerError.
    """
    wanted = select(entry).where(_started_since(since, now))
    wanted = wanted.order_by(entry.c.started_at_us.desc(), entry.c.request_id.desc())
    with _reading(url) as connection:
        return [_request_row(row._asdict()) for row in connection.execute(wanted.limit(limit))]


def cost_report(
    url: str, *, by: By = "model", since: str | None = None, now: datetime | None = None
) -> Report:
    """Return sums by `by` with the background and idle lines.

    Raises ReportError, LedgerError.
    """
    moment = now or datetime.now(UTC)
    recent = _started_since(since, moment)
    with _reading(url) as connection:
        groups = _by_model(connection, recent) if by == "model" else _by(connection, by, recent)
        return Report(
            by,
            tuple(groups),
            tuple(_background(connection, recent)),
            tuple(_idle(connection, _since_us(since, moment), _micros(moment))),
        )


@contextmanager
def _reading(url: str) -> Iterator[Connection]:
    path = locate(url).path
    if not path.is_file():
        raise LedgerError(f"ledger {path}: no such file; is this the ledger that `serve` writes?")
    quoted = path.absolute().as_uri()
    uri = URL.create("sqlite", database=quoted, query={"mode": "ro", "uri": "true"})
    engine = create_engine(uri, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            yield connection
    except DBAPIError as exc:
        raise LedgerError(f"ledger {path}: cannot be read as a ledger: {exc.orig}") from exc
    finally:
        engine.dispose()


def _request_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "request_id": row["request_id"],
        "state": row["state"],
        "usage": {bucket: row[bucket] for bucket in _SHOWN_BUCKETS},
        "cost_nano_usd": row["cost_nano_usd"],
        "saved_nano_usd": row["saved_nano_usd"],
        "estimated": bool(row["estimated"]),
        "lower_nano_usd": row["lower_nano_usd"],
        "upper_nano_usd": row["upper_nano_usd"],
        **{name: row[name] for name in ("cache", "path", "tenant", "key", "route", "model")},
    }


def _by(connection: Connection, by: By, recent: ColumnElement[bool]) -> Iterator[Group]:
    is_day = by == "day"
    name = entry.c.started_at_us // _DAY_US if is_day else entry.c[by]
    for row in connection.execute(_sums_of_entries(name, recent)):
        yield _group(_day(row.name) if is_day else row.name, row)


def _by_model(connection: Connection, recent: ColumnElement[bool]) -> Iterator[Group]:
    """Count requests by who answered, money and tokens by who was called."""
    answered = {
        row.name: Group(row.name, row.requests, 0, 0, row.saved, row.hits)
        for row in connection.execute(_sums_of_entries(entry.c.model, recent))
    }
    called = {
        row.name: Group(row.name, 0, row.tokens, row.cost, 0, 0, row.escalations, row.estimated)
        for row in connection.execute(_sums_of_attempts(recent))
    }
    for name in sorted(answered.keys() | called.keys()):
        yield answered.get(name, Group(name)) + called.get(name, Group(name))


def _sums_of_entries(name: ColumnElement[Any], recent: ColumnElement[bool]) -> Select[Any]:
    was_rejected = (
        select(attempt.c.seq)
        .where(attempt.c.request_id == entry.c.request_id, attempt.c.outcome.in_(_REJECTED))
        .where(attempt.c.purpose == "serve")
        .correlate(entry)
        .exists()
    )
    sums = (
        func.count().label("requests"),
        _sum(_tokens(entry)).label("tokens"),
        _sum(entry.c.cost_nano_usd).label("cost"),
        _sum(entry.c.saved_nano_usd).label("saved"),
        _count(entry.c.cache.in_(("exact", "semantic"))).label("hits"),
        _count(was_rejected).label("escalations"),
        _sum(entry.c.estimated).label("estimated"),
    )
    labelled = name.label("name")
    return select(labelled, *sums).where(recent).group_by(labelled).order_by(labelled)


def _sums_of_attempts(recent: ColumnElement[bool]) -> Select[Any]:
    is_rejected = and_(attempt.c.outcome.in_(_REJECTED), attempt.c.purpose == "serve")
    sums = (
        _sum(_tokens(attempt)).label("tokens"),
        _sum(attempt.c.cost_nano_usd).label("cost"),
        _count(is_rejected).label("escalations"),
        _sum(attempt.c.estimated).label("estimated"),
    )
    return (
        select(attempt.c.model.label("name"), *sums)
        .join(entry, entry.c.request_id == attempt.c.request_id)
        .where(recent, attempt.c.payer != GATEWAY)
        .group_by(attempt.c.model)
    )


def _background(connection: Connection, recent: ColumnElement[bool]) -> Iterator[Background]:
    sums = (
        func.count().label("attempts"),
        _sum(_tokens(attempt)).label("tokens"),
        _sum(attempt.c.cost_nano_usd).label("cost"),
    )
    wanted = (
        select(attempt.c.purpose, *sums)
        .join(entry, entry.c.request_id == attempt.c.request_id)
        .where(recent, attempt.c.payer == GATEWAY)
        .group_by(attempt.c.purpose)
        .order_by(attempt.c.purpose)
    )
    for row in connection.execute(wanted):
        yield Background(row.purpose, row.attempts, row.tokens, row.cost)


def _idle(connection: Connection, since_us: int, now_us: int) -> Iterator[Idle]:
    """Compare how long each model's machine was up with how long its calls kept it busy."""
    up: dict[str, int] = {}
    worth: dict[str, int] = {}
    for row in connection.execute(select(uptime).where(uptime.c.seen_at_us > since_us)):
        span = max(0, min(row.seen_at_us, now_us) - max(row.started_at_us, since_us))
        up[row.model] = up.get(row.model, 0) + span
        worth[row.model] = worth.get(row.model, 0) + span * row.machine_hour_nano_usd
    busy = _busy(connection, since_us)
    for model, span in sorted(up.items()):
        used = min(busy.get(model, 0), span)
        rate = worth[model] // span if span else 0
        yield Idle(model, span, used, (span - used) * rate // _HOUR_US)


def _busy(connection: Connection, since_us: int) -> dict[str, int]:
    wanted = (
        select(attempt.c.model, _sum(attempt.c.compute_us).label("busy"))
        .join(entry, entry.c.request_id == attempt.c.request_id)
        .where(entry.c.started_at_us >= since_us)
        .group_by(attempt.c.model)
    )
    return {row.model: row.busy for row in connection.execute(wanted)}


def _tokens(table: Table) -> ColumnElement[int]:
    total: ColumnElement[int] = table.c[BUCKETS[0]]
    for bucket in BUCKETS[1:]:
        total = total + table.c[bucket]
    return total


def _sum(column: ColumnElement[Any]) -> ColumnElement[int]:
    return func.coalesce(func.sum(column), 0)


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return _sum(case((condition, 1), else_=0))


def _group(name: str, row: Row[Any]) -> Group:
    return Group(
        name,
        row.requests,
        row.tokens,
        row.cost,
        row.saved,
        row.hits,
        row.escalations,
        row.estimated,
    )


def _day(number: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=number)).date().isoformat()


def _started_since(since: str | None, now: datetime | None) -> ColumnElement[bool]:
    return entry.c.started_at_us >= _since_us(since, now or datetime.now(UTC))


def _since_us(since: str | None, now: datetime) -> int:
    return 0 if since is None else _micros(parse_since(since, now))


def parse_since(text: str, now: datetime) -> datetime:
    """Read 30m, 24h, 7d or 2w before `now`, or a date or moment (UTC unless it says otherwise).

    Raises ReportError.
    """
    if found := re.fullmatch(r"(\d{1,6})([smhdw])", text.strip()):
        unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}[found[2]]
        try:
            return now - timedelta(**{unit: int(found[1])})
        except OverflowError:
            return datetime(1970, 1, 1, tzinfo=UTC)
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ReportError(
            f"expected a time such as 24h, 7d or 2026-11-01, found {text[:40]!r}"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _micros(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
