"""What a scrape reads from the ledger, which all workers share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import func, select

from gateway.money.databases import reading
from gateway.money.periods import period
from gateway.money.reports import background, groups
from gateway.money.schema import attempt, entry, learning_step

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from gateway.money.periods import Period

RECENT_S = 300
"""How far back `answered` and `called` look, in seconds."""


@dataclass(frozen=True, slots=True)
class RouteSums:
    """What all requests of one route came to since the ledger began."""

    route: str
    requests: int
    cost_nano_usd: int
    saved_nano_usd: int
    cache_saved_nano_usd: int
    cache_hits: int
    escalations: int


@dataclass(frozen=True, slots=True)
class Learnt:
    """Where the learning of one route stands, and how often it has taken each kind of step.

    `bound` is the certified share of losses, None where nothing is certified.
    """

    route: str
    stage: str
    bound: float | None
    steps: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Readings:
    """Sums since the ledger began, and counts of the last `RECENT_S` seconds.

    `background` is purpose and cost of what the gateway paid itself; `answered` is route,
    cache, state and count; `called` is model, outcome and count.
    """

    routes: Sequence[RouteSums]
    background: Sequence[tuple[str, int]]
    answered: Sequence[tuple[str, str, str, int]]
    called: Sequence[tuple[str, str, int]]
    learnt: Sequence[Learnt] = ()


def read_ledger(url: str, now_s: float) -> Readings:
    """Return what the ledger says now. Raises LedgerError."""
    since_us = int((now_s - RECENT_S) * 1e6)
    with reading(url) as connection:
        asked = period(connection, url, 0)
        return Readings(
            _routes(connection, asked),
            _background(connection, asked),
            _answered(connection, since_us),
            _called(connection, since_us),
            _learnt(connection),
        )


def _routes(connection: Connection, asked: Period) -> list[RouteSums]:
    return [
        RouteSums(
            each.name,
            each.requests,
            each.cost_nano_usd,
            each.saved_nano_usd,
            each.cache_saved_nano_usd,
            each.cache_hits,
            each.escalations,
        )
        for each in groups(connection, "route", asked)
    ]


def _background(connection: Connection, asked: Period) -> list[tuple[str, int]]:
    return [(each.purpose, each.cost_nano_usd) for each in background(connection, asked)]


def _answered(connection: Connection, since_us: int) -> list[tuple[str, str, str, int]]:
    keys = entry.c.route, entry.c.cache, entry.c.state
    wanted = select(*keys, func.count()).where(entry.c.started_at_us > since_us).group_by(*keys)
    return [(row[0], row[1], row[2], int(row[3])) for row in connection.execute(wanted)]


def _called(connection: Connection, since_us: int) -> list[tuple[str, str, int]]:
    keys = attempt.c.model, attempt.c.outcome
    joined = attempt.join(entry, entry.c.request_id == attempt.c.request_id)
    wanted = select(*keys, func.count()).select_from(joined)
    wanted = wanted.where(entry.c.started_at_us > since_us).group_by(*keys)
    return [(row[0], row[1], int(row[2])) for row in connection.execute(wanted)]


def _learnt(connection: Connection) -> list[Learnt]:
    own = learning_step.c
    counted: dict[str, list[tuple[str, int]]] = {}
    wanted = select(own.route, own.kind, func.count()).group_by(own.route, own.kind)
    for route, kind, count in connection.execute(wanted):
        counted.setdefault(route, []).append((kind, int(count)))
    newest = select(own.route, func.max(own.step).label("step")).group_by(own.route).subquery()
    last = select(own.route, own.detail).join(
        newest, (own.route == newest.c.route) & (own.step == newest.c.step)
    )
    return [
        _stood(route, msgspec.json.decode(detail), counted[route])
        for route, detail in connection.execute(last)
    ]


def _stood(route: str, told: dict[str, Any], steps: Sequence[tuple[str, int]]) -> Learnt:
    return Learnt(route, str(told["stage"]), told.get("bound"), sorted(steps))
