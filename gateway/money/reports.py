"""What the ledger tells: one row a request, or sums by model, route, tenant, key, tag or day.

Reads only. Every dollar is in exactly one line: what tenants pay is in the
groups, what the gateway pays on its own account (audits, controls) in lines by
purpose, and the time that our own machines stood idle in lines by model. What
was saved is told in three ways that are never added up: against the list price
of the reference model, by the caches, and as measured by a control arm.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

from sqlalchemy import select

from gateway.money.cells import HOUR_US, Span, sum_of
from gateway.money.databases import reading
from gateway.money.errors import ReportError
from gateway.money.periods import Period, period, sums
from gateway.money.rollup import OWN, kept_since_us, position
from gateway.money.savings import Arm, Measured, measured
from gateway.money.schema import entry, uptime
from gateway.money.views import ALL, BUSY, CALL, OWN_ACCOUNT

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, Row

By = Literal["model", "route", "tenant", "key", "tag", "day"]
WAYS: tuple[str, ...] = get_args(By)

_SHOWN_BUCKETS = ("input", "cached_input", "cache_write", "output", "reasoning")


@dataclass(frozen=True, slots=True)
class Group:
    """Sums over some requests. `escalations` counts drafts that were not good enough.

    `saved_nano_usd` is what models' answers cost less than at the reference
    model's list price, `cache_saved_nano_usd` what hits would have cost there.
    """

    name: str
    requests: int = 0
    tokens: int = 0
    cost_nano_usd: int = 0
    saved_nano_usd: int = 0
    cache_hits: int = 0
    escalations: int = 0
    estimated: int = 0
    cache_saved_nano_usd: int = 0

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
    """All that was spent in a time, each dollar once; by tag, in each group that it belongs to."""

    by: str
    groups: tuple[Group, ...]
    background: tuple[Background, ...]
    idle: tuple[Idle, ...]
    measured: tuple[Measured, ...] = ()
    total: Group = Group("total")


def request_rows(
    url: str, *, since: str | None = None, limit: int | None = None, now: datetime | None = None
) -> list[dict[str, Any]]:
    """Return one row a request, newest first.

    `since` is a duration before `now` (24h, 7d) or a date. Raises ReportError,
    LedgerError.
    """
    wanted = select(entry).where(started_since(since, now))
    wanted = wanted.order_by(entry.c.started_at_us.desc(), entry.c.request_id.desc())
    with reading(url) as connection:
        return [request_row(row._asdict()) for row in connection.execute(wanted.limit(limit))]


def cost_report(
    url: str, *, by: By = "model", since: str | None = None, now: datetime | None = None
) -> Report:
    """Return sums by `by` with the background and idle lines.

    Raises ReportError, LedgerError.
    """
    moment = now or datetime.now(UTC)
    since_us = _since_us(since, moment)
    with reading(url) as connection:
        asked = period(connection, url, since_us)
        found = tuple(groups(connection, by, asked))
        return Report(
            by,
            found,
            tuple(background(connection, asked)),
            tuple(idle(connection, asked, micros(moment))),
            tuple(measured_savings(connection, asked)),
            # A request may have several tags, and one other thing of each kind.
            total(connection, asked) if by == "tag" else sum(found, Group("total")),
        )


def span_from(connection: Connection, since_us: int, *, is_file: bool) -> Span:
    """Return what to read for a report from a moment on.

    Where the lines of its first hour are gone, all of that hour is taken.
    """
    upto = position(connection, OWN)[0] if is_file else None
    hour = since_us // HOUR_US
    if since_us == hour * HOUR_US or hour * HOUR_US < kept_since_us(connection):
        return Span(hour, None, upto)
    return Span(hour + 1, since_us, upto)


def request_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line of the ledger as the row that is documented."""
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


def groups(connection: Connection, by: By, asked: Period) -> list[Group]:
    """Return the sums of a period by one thing."""
    if by == "model":
        return list(_by_model(connection, asked))
    if by == "day":
        cells = asked.cells(ALL)
        days = sums(connection, cells, (cells.c.hour // 24).label("name"))
        return [_group(_day(row.name), row) for row in days]
    cells = asked.cells("tags" if by == "tag" else by)
    rows = sums(connection, cells, cells.c.name)
    return _by_tag(rows) if by == "tag" else [_group(row.name, row) for row in rows]


def total(connection: Connection, asked: Period) -> Group:
    """Return the sums of all requests of a period."""
    (row,) = sums(connection, asked.cells(ALL))
    return _group("total", row)


def background(connection: Connection, asked: Period) -> Iterator[Background]:
    """Yield what the gateway spent on its own account, by purpose."""
    cells = asked.cells(OWN_ACCOUNT)
    for row in sums(connection, cells, cells.c.name):
        told = int(row.requests), int(row.tokens), int(row.cost_nano_usd)
        yield Background(row.name, *told)


def _by_tag(rows: Iterable[Row[Any]]) -> list[Group]:
    """Count a request in the group of each of its tags, and without any in one of no name."""
    found: dict[str, Group] = {}
    for row in rows:
        for tag in tags_of(row.name):
            found[tag] = found.get(tag, Group(tag)) + _group(tag, row)
    return [found[tag] for tag in sorted(found)]


def tags_of(name: str) -> list[str]:
    """Return the tags of a set as it is written down; of an empty one, the empty tag."""
    return json.loads(name) or [""]


def _by_model(connection: Connection, asked: Period) -> Iterator[Group]:
    """Count requests by who answered, money and tokens by who was called."""
    cells, calls = asked.cells("model"), asked.cells(CALL)
    answered = {
        row.name: replace(
            _group(row.name, row), tokens=0, cost_nano_usd=0, escalations=0, estimated=0
        )
        for row in sums(connection, cells, cells.c.name)
    }
    called = {
        row.name: replace(_group(row.name, row), requests=0)
        for row in sums(connection, calls, calls.c.name)
    }
    for name in sorted(answered.keys() | called.keys()):
        yield answered.get(name, Group(name)) + called.get(name, Group(name))


def measured_savings(connection: Connection, asked: Period) -> Iterator[Measured]:
    """Compare the arms of every route that has requests in its control arm."""
    cells = asked.arms()
    told = (sum_of(cells.c[name]) for name in ("requests", "cost_nano_usd", "cost_squared"))
    wanted = select(cells.c.route, cells.c.arm, *told).group_by(cells.c.route, cells.c.arm)
    arms: dict[str, dict[str, Arm]] = {}
    for route, arm, requests, cost, squared in connection.execute(wanted):
        arms.setdefault(route, {})[arm] = Arm(int(requests), int(cost), float(squared))
    for route in sorted(arms):
        if "control" in arms[route]:
            yield measured(route, arms[route]["control"], arms[route].get("policy", Arm()))


def idle(connection: Connection, asked: Period, now_us: int) -> Iterator[Idle]:
    """Compare how long each model's machine was up with how long its calls kept it busy."""
    since_us, until_us = asked.since_us, min(now_us, asked.until_us)
    up: dict[str, int] = {}
    worth: dict[str, int] = {}
    for row in connection.execute(select(uptime).where(uptime.c.seen_at_us > since_us)):
        time_us = max(0, min(row.seen_at_us, until_us) - max(row.started_at_us, since_us))
        up[row.model] = up.get(row.model, 0) + time_us
        worth[row.model] = worth.get(row.model, 0) + time_us * row.machine_hour_nano_usd
    busy = _busy(connection, asked) if up else {}
    for model, time_us in sorted(up.items()):
        used = min(busy.get(model, 0), time_us)
        rate = worth[model] // time_us if time_us else 0
        yield Idle(model, time_us, used, (time_us - used) * rate // HOUR_US)


def _busy(connection: Connection, asked: Period) -> dict[str, int]:
    cells = asked.cells(BUSY)
    return {row.name: int(row.compute_us) for row in sums(connection, cells, cells.c.name)}


def _group(name: str, row: Row[Any]) -> Group:
    return Group(
        name,
        int(row.requests),
        int(row.tokens),
        int(row.cost_nano_usd),
        int(row.saved_nano_usd),
        int(row.hits_exact + row.hits_semantic),
        int(row.escalations),
        int(row.estimated),
        int(row.cache_saved_nano_usd),
    )


def _day(number: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=number)).date().isoformat()


def started_since(since: str | None, now: datetime | None) -> ColumnElement[bool]:
    """Return which requests began since then. Raises ReportError."""
    return entry.c.started_at_us >= _since_us(since, now or datetime.now(UTC))


def _since_us(since: str | None, now: datetime) -> int:
    return 0 if since is None else micros(parse_since(since, now))


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


def micros(moment: datetime) -> int:
    """Return a moment as microseconds since the epoch."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
