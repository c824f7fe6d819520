"""What a scrape reads from the ledger's sums, which all workers and machines share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import func, select

from gateway.learning.steward import ALARMS
from gateway.money.databases import reading
from gateway.money.periods import Period, period, sums
from gateway.money.reports import measured_savings
from gateway.money.savings import Measured
from gateway.money.schema import learning_step
from gateway.money.views import OWN_ACCOUNT

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class RouteSums:
    """What all requests of one route came to since the ledger began."""

    route: str
    cost_nano_usd: int
    saved_nano_usd: int
    cache_saved_nano_usd: int
    hits_exact: int
    hits_semantic: int
    escalations: int


@dataclass(frozen=True, slots=True)
class Learnt:
    """Where the learning of one route stands, and how often it has taken each kind of step."""

    route: str
    stage: str
    steps: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Readings:
    """Sums since the ledger began; `background` is purpose and cost of what the gateway paid."""

    routes: Sequence[RouteSums]
    background: Sequence[tuple[str, int]]
    measured: Sequence[Measured] = ()
    learnt: Sequence[Learnt] = ()


def read_ledger(url: str) -> Readings:
    """Return what the ledger says now. Raises LedgerError."""
    with reading(url) as connection:
        ever = period(connection, url, 0)
        return Readings(
            _routes(connection, ever),
            _background(connection, ever),
            list(measured_savings(connection, ever)),
            _learnt(connection),
        )


def _routes(connection: Connection, ever: Period) -> list[RouteSums]:
    cells = ever.cells("route")
    return [
        RouteSums(
            row.name,
            row.cost_nano_usd,
            row.saved_nano_usd,
            row.cache_saved_nano_usd,
            row.hits_exact,
            row.hits_semantic,
            row.escalations,
        )
        for row in sums(connection, cells, cells.c.name)
    ]


def _background(connection: Connection, ever: Period) -> list[tuple[str, int]]:
    cells = ever.cells(OWN_ACCOUNT)
    return [(row.name, row.cost_nano_usd) for row in sums(connection, cells, cells.c.name)]


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
    # A line that begins at 1 has not risen, for Prometheus: the first alarm would go unheard.
    counts = {**dict.fromkeys(ALARMS, 0), **dict(steps)}
    return Learnt(route, str(told["stage"]), sorted(counts.items()))
