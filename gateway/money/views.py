"""Sums of the ledger by one thing at a time, and its latencies in classes: what reports read.

A cell is one hour, or one day, of one model, route, tenant, key or set of tags. So a
report over months reads as many cells as there are days and names, however many
requests they were. Latencies are counted in classes a sixteenth of an octave wide: those
add up, as quantiles do not, and tell any quantile to 3 %.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    CTE,
    ColumnElement,
    Integer,
    Select,
    case,
    func,
    literal,
    literal_column,
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


def view_cells(where: ColumnElement[bool], views: Sequence[str] = VIEWS) -> Any:
    """Sum up the chosen entries by hour, for each of some views: by, hour, name and sums."""
    lines, calls = _lines(where), _calls(where)
    made = [_of_entries(lines, by) for by in views if by not in OF_CALLS]
    made += [_of_calls(calls, by) for by in views if by in OF_CALLS]
    return made[0] if len(made) == 1 else union_all(*made)


def latency_cells(where: ColumnElement[bool]) -> Any:
    """Count the latencies of the chosen requests that were settled, by kind, hour and class."""
    return union_all(
        _latencies("latency", entry.c.latency_us, where),
        _latencies("ttft", entry.c.ttft_us, where & entry.c.ttft_us.is_not(None)),
    )


def kept_cells(where: ColumnElement[bool]) -> Any:
    """Sum up the chosen entries by hour and by day, as rows of `rollup_by`."""
    return _with_days(view_cells(where), VIEW_SUMS)


def kept_latencies(where: ColumnElement[bool]) -> Any:
    """Count latencies by hour and by day, as rows of `rollup_latency`."""
    return _with_days(latency_cells(where), ("count",))


def _with_days(cells: Any, names: Sequence[str]) -> Any:
    """Return cells of hours together with those of the days that they belong to."""
    hours = cells.cte("hours")
    keys = [column for column in hours.c if column.name not in (*names, "hour")]
    day = (hours.c.hour // DAYS * DAYS).label("hour")
    sums = (sum_of(hours.c[name]).label(name) for name in names)
    return union_all(
        select(
            literal(HOURS).label("step"), *keys, hours.c.hour, *(hours.c[name] for name in names)
        ),
        select(literal(DAYS).label("step"), *keys, day, *sums).group_by(*keys, day),
    )


def class_of(micros: int) -> int:
    """Return the class of a duration."""
    if micros < _CLASSES:
        return max(0, micros)
    octave = min(micros.bit_length() - 1, _HIGHEST)
    return (octave - 4) * _CLASSES + (micros >> (octave - 4))


def class_in_sql(micros: ColumnElement[int]) -> ColumnElement[int]:
    """Return the class of a duration as a database makes it out: `class_of`, in SQL."""
    shift = _shift(micros, 0, _HIGHEST - 4)
    return case(
        (micros < 0, 0),
        (micros < _CLASSES, micros),
        else_=shift * _CLASSES + micros.bitwise_rshift(shift),
    )


def _shift(micros: ColumnElement[int], low: int, high: int) -> ColumnElement[int]:
    """Return by how many bits a duration is too long for the first classes, by halving."""
    if low == high:
        return literal_column(str(low), Integer)
    middle = (low + high + 1) // 2
    return case(
        (micros < literal_column(str(_CLASSES << middle)), _shift(micros, low, middle - 1)),
        else_=_shift(micros, middle, high),
    )


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


def _latencies(kind: str, micros: ColumnElement[Any], where: ColumnElement[bool]) -> Any:
    keys = (hour(), class_in_sql(micros).label("class"))
    wanted = select(literal(kind).label("kind"), *keys, func.count().label("count"))
    return wanted.where(where, entry.c.state == "settled").group_by(*keys)


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
