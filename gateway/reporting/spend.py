"""Where money went: by one thing, in sums and step by step; as a table for a spreadsheet, too."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from gateway.money.cells import HOUR_US
from gateway.money.databases import reading
from gateway.money.exports import harmless
from gateway.money.periods import Period, period, sums
from gateway.money.price import shown_usd
from gateway.money.reports import background, idle, measured_savings, tags_of
from gateway.money.views import ALL, CALL
from gateway.reporting.overview import measured_saving
from gateway.reporting.shapes import (
    Dimension,
    IdleSpend,
    OwnSpend,
    Spend,
    SpendGroup,
    SpendPoint,
)
from gateway.reporting.window import Window, iso

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

MOST_NAMES = 12
"""Groups that have a line of their own in the series."""
OTHER = "other"
_COUNTED = ("requests", "tokens", "errors", "hits_exact", "hits_semantic", "escalations",
            "estimated", "cost_nano_usd", "saved_nano_usd", "cache_saved_nano_usd")  # fmt: skip
_BY_CALL = ("tokens", "escalations", "estimated", "cost_nano_usd")
"""What is told of the model that was called; all else is of the one that answered."""
Sums = dict[str, int]


def spend(url: str, by: Dimension, asked: Window) -> Spend:
    """Return what was spent in a time. Raises LedgerError."""
    with reading(url) as connection:
        now = period(connection, url, asked.since_us, asked.end_us)
        found = _grouped(connection, by, now)
        groups = sorted(found.items(), key=lambda item: (-item[1]["cost_nano_usd"], item[0]))
        named = {name for name, _ in groups[:MOST_NAMES]}
        (row,) = sums(connection, now.cells(ALL))
        return Spend(
            by=by,
            range=asked.shown(),
            groups=tuple(_group(name, total) for name, total in groups),
            total=_group("total", _sums_of(row)),
            series=tuple(_series(connection, by, now, asked, named)),
            others=max(0, len(groups) - MOST_NAMES),
            own=tuple(
                OwnSpend(
                    purpose=line.purpose,
                    calls=line.attempts,
                    tokens=line.tokens,
                    spend_nano_usd=line.cost_nano_usd,
                    spend_usd=shown_usd(line.cost_nano_usd),
                )
                for line in background(connection, now)
            ),
            idle=tuple(
                IdleSpend(
                    model=line.model,
                    up_s=line.up_us / 1e6,
                    busy_s=line.busy_us / 1e6,
                    spend_nano_usd=line.idle_nano_usd,
                    spend_usd=shown_usd(line.idle_nano_usd),
                )
                for line in idle(connection, now, asked.until_us)
            ),
            measured=tuple(measured_saving(line) for line in measured_savings(connection, now)),
        )


def as_csv(found: Spend) -> str:
    """Return the groups as they are shown, and the series below them, as CSV."""
    told = io.StringIO()
    writer = csv.writer(told)
    columns = [name for name in SpendGroup.model_fields if name != "name"]
    writer.writerow([found.by, *columns])
    for group in (*found.groups, found.total):
        line = group.model_dump()
        writer.writerow([harmless(group.name), *(line[name] for name in columns)])
    writer.writerow([])
    writer.writerow(["t", found.by, "requests", "spend_nano_usd", "spend_usd"])
    for point in found.series:
        name = harmless(point.name)
        writer.writerow([point.t, name, point.requests, point.spend_nano_usd, point.spend_usd])
    return told.getvalue()


def _grouped(connection: Connection, by: Dimension, now: Period) -> dict[str, Sums]:
    found: dict[str, Sums] = {}
    for name, part in _parts(connection, by, now):
        _add(found.setdefault(name, dict.fromkeys(_COUNTED, 0)), part)
    return found


def _parts(connection: Connection, by: Dimension, now: Period) -> Iterator[tuple[str, Sums]]:
    cells = now.cells("tags" if by == "tag" else by)
    for row in sums(connection, cells, cells.c.name):
        part = _sums_of(row)
        if by == "model":
            part |= dict.fromkeys(_BY_CALL, 0)
        for name in tags_of(row.name) if by == "tag" else (row.name,):
            yield name, part
    if by == "model":
        calls = now.cells(CALL)
        for row in sums(connection, calls, calls.c.name):
            yield row.name, {name: int(getattr(row, name)) for name in _BY_CALL}


def _series(
    connection: Connection, by: Dimension, now: Period, asked: Window, named: set[str]
) -> Iterator[SpendPoint]:
    """Yield each step of each group that has one, in their order."""
    view = {"tag": "tags", "model": CALL}.get(by, by)
    cells = now.cells(view, step=asked.hours)
    begins = (cells.c.hour // asked.hours * asked.hours).label("begins")
    found: dict[tuple[int, str], list[int]] = defaultdict(lambda: [0, 0])
    for row in sums(connection, cells, begins, cells.c.name):
        for name in tags_of(row.name) if by == "tag" else (row.name,):
            point = found[int(row.begins), name if name in named else OTHER]
            point[0] += int(row.cost_nano_usd)
            point[1] += int(row.requests)
    for (hour, name), (cost, requests) in sorted(found.items()):
        yield SpendPoint(
            t=iso(hour * HOUR_US),
            name=name,
            spend_nano_usd=cost,
            spend_usd=shown_usd(cost),
            requests=requests,
        )


def _sums_of(row: Row[Any]) -> Sums:
    return {name: int(getattr(row, name)) for name in _COUNTED}


def _add(total: Sums, part: Sums) -> None:
    for name, value in part.items():
        total[name] += value


def _group(name: str, total: Sums) -> SpendGroup:
    spent, saved, cached = (
        total[each] for each in ("cost_nano_usd", "saved_nano_usd", "cache_saved_nano_usd")
    )
    counts: Iterable[str] = (each for each in _COUNTED if not each.endswith("_nano_usd"))
    return SpendGroup(
        name=name,
        **{each: total[each] for each in counts},
        spend_nano_usd=spent,
        spend_usd=shown_usd(spent),
        saved_nano_usd=saved,
        saved_usd=shown_usd(saved),
        cache_saved_nano_usd=cached,
        cache_saved_usd=shown_usd(cached),
    )
