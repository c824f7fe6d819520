"""What happened in a time, at a glance, and step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gateway.money.cells import HOUR_US
from gateway.money.databases import reading
from gateway.money.periods import Period, latencies, period, sums
from gateway.money.price import shown_usd
from gateway.money.reports import background, idle, measured_savings
from gateway.money.savings import Measured
from gateway.money.views import ALL, quantile
from gateway.reporting.shapes import (
    MeasuredSaving,
    Overview,
    Point,
    Quantiles,
    Savings,
    Totals,
)
from gateway.reporting.window import Window, iso

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

Classes = Sequence[tuple[int, int]]


def overview(url: str, asked: Window, *, compare: bool) -> Overview:
    """Return the totals and the series of a time. Raises LedgerError."""
    with reading(url) as connection:
        now = period(connection, url, asked.since_us, asked.end_us)
        earlier = asked.before()
        before = period(connection, url, earlier.since_us, earlier.until_us)
        return Overview(
            range=asked.shown(),
            now=totals(connection, now, asked.until_us),
            before=totals(connection, before, earlier.until_us) if compare else None,
            series=tuple(_series(connection, now, asked)),
        )


def totals(connection: Connection, asked: Period, until_us: int) -> Totals:
    """Return what a period came to."""
    (row,) = sums(connection, asked.cells(ALL))
    own = sum(line.cost_nano_usd for line in background(connection, asked))
    rest = sum(line.idle_nano_usd for line in idle(connection, asked, until_us))
    classes = latencies(connection, asked)
    requests = int(row.requests)
    return Totals(
        requests=requests,
        errors=row.errors,
        abandoned=row.abandoned,
        tokens=row.tokens,
        spend_nano_usd=row.cost_nano_usd,
        spend_usd=shown_usd(row.cost_nano_usd),
        own_nano_usd=own,
        own_usd=shown_usd(own),
        idle_nano_usd=rest,
        idle_usd=shown_usd(rest),
        hits_exact=row.hits_exact,
        hits_semantic=row.hits_semantic,
        escalations=row.escalations,
        estimated=row.estimated,
        error_rate=_rate(row.errors, requests),
        hit_rate_exact=_rate(row.hits_exact, requests),
        hit_rate_semantic=_rate(row.hits_semantic, requests),
        escalation_rate=_rate(row.escalations, requests),
        latency=quantiles(classes.get(("latency", 0), ())),
        ttft=quantiles(classes.get(("ttft", 0), ())),
        saved=_savings(row, measured_savings(connection, asked)),
    )


def quantiles(classes: Classes) -> Quantiles:
    """Return the quantiles of classes and their counts."""
    p50, p95, p99 = (_millis(classes, share) for share in (0.5, 0.95, 0.99))
    return Quantiles(p50_ms=p50, p95_ms=p95, p99_ms=p99)


def measured_saving(line: Measured) -> MeasuredSaving:
    """Return a line as it is told, with dollars beside its nano-dollars."""
    amounts = (line.saved_nano_usd, line.low_nano_usd, line.high_nano_usd)
    saved, low, high = (None if nano is None else shown_usd(nano) for nano in amounts)
    return MeasuredSaving(
        route=line.route,
        control_requests=line.control_requests,
        policy_requests=line.policy_requests,
        saved_nano_usd=line.saved_nano_usd,
        low_nano_usd=line.low_nano_usd,
        high_nano_usd=line.high_nano_usd,
        saved_usd=saved,
        low_usd=low,
        high_usd=high,
    )


def _savings(row: Row[Any], lines: Any) -> Savings:
    return Savings(
        list_price_nano_usd=row.saved_nano_usd,
        list_price_usd=shown_usd(row.saved_nano_usd),
        caches_nano_usd=row.cache_saved_nano_usd,
        caches_usd=shown_usd(row.cache_saved_nano_usd),
        measured=tuple(measured_saving(line) for line in lines),
    )


def _series(connection: Connection, now: Period, asked: Window) -> list[Point]:
    cells = now.cells(ALL, step=asked.hours)
    begins = (cells.c.hour // asked.hours * asked.hours).label("begins")
    rows = {int(row.begins): row for row in sums(connection, cells, begins)}
    classes = latencies(connection, now, step=asked.hours)
    return [_point(hour, rows.get(hour), classes) for hour in asked.begins()]


def _point(hour: int, row: Row[Any] | None, classes: Mapping[tuple[str, int], Classes]) -> Point:
    names = ("requests", "errors", "hits_exact", "hits_semantic", "escalations")
    counts = {name: int(getattr(row, name)) if row is not None else 0 for name in names}
    spend = int(row.cost_nano_usd) if row is not None else 0
    latency = quantiles(classes.get(("latency", hour), ()))
    return Point(
        t=iso(hour * HOUR_US),
        spend_nano_usd=spend,
        spend_usd=shown_usd(spend),
        **counts,
        p50_ms=latency.p50_ms,
        p95_ms=latency.p95_ms,
        p99_ms=latency.p99_ms,
        ttft_p50_ms=_millis(classes.get(("ttft", hour), ()), 0.5),
    )


def _millis(classes: Classes, share: float) -> float | None:
    found = quantile(classes, share)
    return None if found is None else round(found / 1000, 3)


def _rate(part: int, whole: int) -> float | None:
    return int(part) / whole if whole else None
