"""Sums of the ledger by one thing at a time, and its latencies in classes: what reports read.

A cell is one hour, or one day, of one model, route, tenant, key or set of tags. So a
report over months reads as many cells as there are days and names, however many
requests they were. Latencies are counted in classes a sixteenth of an octave wide: those
add up, as quantiles do not, and tell any quantile to 3 %.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Select,
    case,
    literal,
    select,
    union_all,
)

from gateway.money.cells import hour, is_rejected, sum_of, tokens, unsure
from gateway.money.records import GATEWAY
from gateway.money.schema import VIEW_SUMS, attempt, entry

ALL = "all"
CALL = "call"
OWN_ACCOUNT = "own"
BUSY = "busy"
OF_ENTRIES = ("route", "tenant", "key", "tags", "model")
OF_CALLS = (CALL, OWN_ACCOUNT, BUSY)
VIEWS = (ALL, *OF_ENTRIES, *OF_CALLS)
"""What there are sums by. `model` is who answered, `call` who was called at a tenant's cost,
`own` the purpose of calls at ours, `busy` who was called at anybody's."""

HOURS, DAYS = 1, 24
_CLASSES = 16
_HIGHEST = 40
Cell = dict[str, Any]


def view_cells(where: ColumnElement[bool], views: Sequence[str] = VIEWS) -> Any:
    """Sum up the chosen entries by hour, for each of some views: by, hour, name and sums."""
    lines, calls = _lines(where), _calls(where)
    made = [_of_entries(lines, by) for by in views if by not in OF_CALLS]
    made += [_of_calls(calls, by) for by in views if by in OF_CALLS]
    return made[0] if len(made) == 1 else union_all(*made)


def durations(where: ColumnElement[bool]) -> Select[Any]:
    """Return hour, latency and time to a first byte of the chosen requests that were settled."""
    return select(hour(), entry.c.latency_us, entry.c.ttft_us).where(
        where, entry.c.state == "settled"
    )


def latency_cells(rows: Iterable[Any]) -> list[Cell]:
    """Count such rows by hour and class."""
    counts: Counter[tuple[str, int, int]] = Counter()
    for at, latency_us, ttft_us in rows:
        counts["latency", at, class_of(latency_us)] += 1
        if ttft_us is not None:
            counts["ttft", at, class_of(ttft_us)] += 1
    names = ("kind", "hour", "class")
    return [{**dict(zip(names, key, strict=True)), "count": n} for key, n in counts.items()]


def with_days(cells: Iterable[Cell]) -> list[Cell]:
    """Return cells of hours together with those of the days that they belong to."""
    found = [{"step": HOURS, **cell} for cell in cells]
    days: dict[tuple[Any, ...], Cell] = {}
    for cell in found:
        day = {**cell, "step": DAYS, "hour": cell["hour"] // DAYS * DAYS}
        key = tuple(value for name, value in day.items() if name not in _SUMMED)
        known = days.setdefault(key, day)
        if known is not day:
            for name in _SUMMED & day.keys():
                known[name] += day[name]
    return found + list(days.values())


def class_of(micros: int) -> int:
    """Return the class of a duration."""
    if micros < _CLASSES:
        return max(0, micros)
    octave = min(micros.bit_length() - 1, _HIGHEST)
    return (octave - 4) * _CLASSES + (micros >> (octave - 4))


def middle_of(number: int) -> float:
    """Return the duration in the middle of a class, in microseconds."""
    if number < _CLASSES:
        return float(number)
    shift, mantissa = number // _CLASSES - 1, number % _CLASSES + _CLASSES
    return (mantissa + 0.5) * 2.0**shift


def quantile(counts: Iterable[tuple[int, int]], share: float) -> float | None:
    """Return a quantile in microseconds of classes and their counts; None where there are none."""
    ordered = sorted(counts)
    rank = share * sum(count for _, count in ordered)
    for number, count in ordered:
        rank -= count
        if rank <= 0:
            return middle_of(number)
    return None


_SUMMED = frozenset({*VIEW_SUMS, "count"})


def _lines(where: ColumnElement[bool]) -> CTE:
    """Return the chosen entries as what each adds to its cells."""
    is_hit = entry.c.cache.in_(("exact", "semantic"))
    saved = entry.c.saved_nano_usd
    was_rejected = (
        select(attempt.c.seq)
        .where(attempt.c.request_id == entry.c.request_id, is_rejected())
        .correlate(entry)
        .exists()
    )
    told = {
        "requests": literal(1),
        "errors": _one(entry.c.state == "failed"),
        "abandoned": _one(entry.c.state == "abandoned"),
        "tokens": tokens(entry),
        "cost_nano_usd": entry.c.cost_nano_usd,
        "saved_nano_usd": case((is_hit, 0), else_=saved),
        "cache_saved_nano_usd": case((is_hit, saved), else_=0),
        "hits_exact": _one(entry.c.cache == "exact"),
        "hits_semantic": _one(entry.c.cache == "semantic"),
        "escalations": _one(was_rejected),
        "estimated": entry.c.estimated,
        "unsure_nano_usd": unsure(),
        "compute_us": literal(0),
    }
    names = (entry.c[name] for name in OF_ENTRIES)
    sums = (told[name].label(name) for name in VIEW_SUMS)
    return select(hour(), *names, *sums).where(where).cte("lines")


def _of_entries(lines: CTE, by: str) -> Select[Any]:
    name = literal("") if by == ALL else lines.c[by]
    sums = (sum_of(lines.c[column]).label(column) for column in VIEW_SUMS)
    groups = (lines.c.hour,) if by == ALL else (lines.c.hour, name)
    return select(literal(by).label("by"), lines.c.hour, name.label("name"), *sums).group_by(
        *groups
    )


def _calls(where: ColumnElement[bool]) -> CTE:
    """Return the attempts of the chosen entries as what each adds to its cells."""
    told: dict[str, ColumnElement[Any]] = {
        "requests": literal(1),
        "tokens": tokens(attempt),
        "cost_nano_usd": attempt.c.cost_nano_usd,
        "escalations": _one(is_rejected()),
        "estimated": attempt.c.estimated,
        "compute_us": attempt.c.compute_us,
    }
    sums = (told.get(name, literal(0)).label(name) for name in VIEW_SUMS)
    is_own = _one(attempt.c.payer == GATEWAY).label("is_own")
    joined = attempt.join(entry, entry.c.request_id == attempt.c.request_id)
    chosen = select(hour(), attempt.c.model, attempt.c.purpose, is_own, *sums)
    return chosen.select_from(joined).where(where).cte("calls")


def _of_calls(calls: CTE, by: str) -> Select[Any]:
    name = calls.c.purpose if by == OWN_ACCOUNT else calls.c.model
    sums = (sum_of(calls.c[column]).label(column) for column in VIEW_SUMS)
    wanted = select(literal(by).label("by"), calls.c.hour, name.label("name"), *sums)
    if by == BUSY:
        wanted = wanted.where(calls.c.compute_us > 0)
    else:
        wanted = wanted.where(calls.c.is_own == (1 if by == OWN_ACCOUNT else 0))
    return wanted.group_by(calls.c.hour, name)


def _one(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return case((condition, 1), else_=0)
