"""Requests, newest first, a page at a time; and one of them opened."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Text, and_, cast, func, or_, select, tuple_

from gateway.money.cells import HOUR_US, rowid, sum_of
from gateway.money.databases import reading
from gateway.money.errors import ReportError
from gateway.money.price import shown_usd
from gateway.money.reports import request_row
from gateway.money.rollup import OWN, position
from gateway.money.schema import entry, rollup_by
from gateway.reporting.shapes import RequestList, RequestRow
from gateway.reporting.window import Window, iso

if TYPE_CHECKING:
    from sqlalchemy import Connection

LOOKED_AT = 20_000
"""Lines that one page looks at, at most."""
_EXACT = ("route", "model", "key", "tenant", "state", "cache")
_SEARCHED = ("request_id", "path", "error", "key", "tenant", "route", "model", "requested_model")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which requests: every member that is not None must hold."""

    route: str | None = None
    model: str | None = None
    key: str | None = None
    tenant: str | None = None
    tag: str | None = None
    state: str | None = None
    cache: str | None = None
    q: str | None = None

    @property
    def is_everything(self) -> bool:
        """Return whether nothing is left out."""
        return not any(getattr(self, name) is not None for name in self.__slots__)


def request_list(
    url: str, asked: Window, wanted: Wanted, *, cursor: str | None, limit: int
) -> RequestList:
    """Return a page of requests. Raises ReportError for a cursor that is none, LedgerError."""
    start = _read_cursor(cursor)
    with reading(url) as connection:
        if wanted.q and (row := _by_id(connection, wanted.q)) is not None:
            return RequestList(data=(row,), next=None, searched_to=None)
        within = _within(asked, start, entry.c.started_at_us)
        if wanted.is_everything:
            rows = _lines(connection, within, limit + 1)
            more = len(rows) > limit
            return _page(rows[:limit], _mark(rows[limit - 1]) if more else None)
        at: ColumnElement[int] = entry.c.started_at_us
        hours = _hours_with(connection, wanted)
        if hours is not None:
            # As a sum the moment has no index, so only the hours are looked at, and then sorted.
            at = at + 0
            within = and_(hours, _within(asked, start, at))
        return _search(connection, within, at, wanted, limit)


def shown_request(row: Mapping[str, Any]) -> RequestRow:
    """Return a line of the ledger as it is told."""
    return RequestRow(
        **request_row(row),
        at=iso(row["started_at_us"]),
        status=row["status"],
        cost_usd=shown_usd(row["cost_nano_usd"]),
        saved_usd=shown_usd(row["saved_nano_usd"]),
        tags=tuple(json.loads(row["tags"])),
        requested_model=row["requested_model"],
        stream=bool(row["stream"]),
        latency_ms=row["latency_us"] / 1000,
        ttft_ms=None if row["ttft_us"] is None else row["ttft_us"] / 1000,
        error=row["error"],
    )


def _search(
    connection: Connection,
    within: ColumnElement[bool],
    at: ColumnElement[int],
    wanted: Wanted,
    limit: int,
) -> RequestList:
    """Look at no more lines than may be, and say how far that came."""
    order = at.desc(), entry.c.request_id.desc()
    looked = select(entry).where(within).order_by(*order).limit(LOOKED_AT).subquery()
    is_postgres = connection.dialect.name == "postgresql"
    found = select(looked).where(*_filters(looked, wanted, is_postgres=is_postgres))
    newest = (looked.c.started_at_us.desc(), looked.c.request_id.desc())
    rows = [r._asdict() for r in connection.execute(found.order_by(*newest).limit(limit + 1))]
    if len(rows) > limit:
        return _page(rows[:limit], _mark(rows[limit - 1]))
    last = select(entry.c.started_at_us, entry.c.request_id).where(within).order_by(*order)
    end = connection.execute(last.offset(LOOKED_AT - 1).limit(1)).one_or_none()
    return _page(rows, None if end is None else _mark(end._asdict()))


def _hours_with(connection: Connection, wanted: Wanted) -> ColumnElement[bool] | None:
    """Return in which hours such requests may be, where the kept sums tell that they are few.

    Lines that were not added up yet are of the newest hours, which are never left out.
    """
    table = rollup_by.c
    newest = connection.scalar(select(table.hour).where(table.by == "all", table.step == 1)
                               .order_by(table.hour.desc()).limit(1))  # fmt: skip
    for name in ("key", "tenant", "route", "model"):
        value = getattr(wanted, name)
        if value is None or newest is None:
            continue
        chosen = select(table.hour).where(
            table.by == name, table.step == 1, table.name == value, table.hour < newest
        )
        hours = list(connection.scalars(chosen.order_by(table.hour.desc()).limit(_MOST_HOURS + 1)))
        if len(hours) <= _MOST_HOURS and _requests_in(connection, hours) <= LOOKED_AT:
            at = entry.c.started_at_us
            ranges = [and_(at >= h * HOUR_US, at < (h + 1) * HOUR_US) for h in hours]
            if connection.dialect.name != "postgresql":
                ranges.append(rowid > position(connection, OWN)[0])
            return or_(at >= newest * HOUR_US, *ranges)
    return None


def _requests_in(connection: Connection, hours: list[int]) -> int:
    table = rollup_by.c
    wanted = select(sum_of(table.requests)).where(table.by == "all", table.step == 1)
    return int(connection.scalar(wanted.where(table.hour.in_(hours))) or 0)


_MOST_HOURS = 200
_NEWEST = (entry.c.started_at_us.desc(), entry.c.request_id.desc())


def _filters(lines: Any, wanted: Wanted, *, is_postgres: bool) -> list[ColumnElement[bool]]:
    found = [
        lines.c[name] == value for name in _EXACT if (value := getattr(wanted, name)) is not None
    ]
    if wanted.tag is not None:
        place = func.strpos if is_postgres else func.instr
        found.append(place(lines.c.tags, json.dumps(wanted.tag, ensure_ascii=False)) > 0)
    if wanted.q is not None:
        found.append(or_(*(_contains(lines.c[name], wanted.q) for name in _SEARCHED)))
    return found


def _contains(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    return cast(column, Text).icontains(text, autoescape=True)


def _within(
    asked: Window, start: tuple[int, str] | None, at: ColumnElement[int]
) -> ColumnElement[bool]:
    found = [at >= asked.since_us]
    if not asked.is_open:
        found.append(at < asked.until_us)
    if start is not None:
        found.append(at <= start[0])
        found.append(tuple_(at, entry.c.request_id) < tuple_(*start))
    return and_(*found)


def _lines(connection: Connection, within: ColumnElement[bool], most: int) -> list[dict[str, Any]]:
    wanted = select(entry).where(within).order_by(*_NEWEST).limit(most)
    return [row._asdict() for row in connection.execute(wanted)]


def _by_id(connection: Connection, text: str) -> RequestRow | None:
    row = connection.execute(select(entry).where(entry.c.request_id == text)).one_or_none()
    return None if row is None else shown_request(row._asdict())


def _page(rows: list[dict[str, Any]], mark: tuple[int, str] | None) -> RequestList:
    return RequestList(
        data=tuple(shown_request(row) for row in rows),
        next=None if mark is None else _write_cursor(mark),
        searched_to=None if mark is None else iso(mark[0]),
    )


def _mark(row: Mapping[str, Any]) -> tuple[int, str]:
    return row["started_at_us"], row["request_id"]


def _write_cursor(mark: tuple[int, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(mark).encode()).decode().rstrip("=")


def _read_cursor(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    try:
        found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        at, name = found
        if isinstance(at, int) and isinstance(name, str):
            return at, name
    except ValueError:
        pass
    raise ReportError("expected a cursor as `next` of the page before, found something else")
