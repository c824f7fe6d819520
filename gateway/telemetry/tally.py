"""What requests came to since a gateway began, by more things than the ledger keeps sums of.

Nothing is counted on the way of a request: at each scrape the lines that the ledger got
since the last one are added up, in SQLite, those of all workers of this machine. A ledger
in PostgreSQL is read from the spool before it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, FromClause, Select, case, func, select

from gateway.money.cells import rowid, sum_of
from gateway.money.databases import reading
from gateway.money.records import GATEWAY
from gateway.money.schema import BUCKETS, attempt, entry
from gateway.telemetry.series import Histogram, Sums

if TYPE_CHECKING:
    from sqlalchemy import Connection

MOST_TENANTS = 100
AT_ONCE = 20_000
STEPS = 25
"""So many times `AT_ONCE` lines are read at a scrape; what is left, at the next."""

DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
FIRST = DURATIONS[:-2]
PER_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.5, 1.0)
_ANSWERED = ("accepted", "rejected")
_Row = Sequence[Any]
_Reading = tuple[Select[Any], Callable[[_Row], None]]
"""What to ask the ledger, and where each row of it goes."""


@dataclass(slots=True)
class Tallied:
    """Sums since the gateway began.

    `requests` by route, model, cache and outcome; `calls` by model, purpose and outcome, what they
    cost by model and purpose; `tokens` by model and bucket. `durations` of settled requests by
    route and cache, and `first` of those that were streamed; the others of calls by model.
    """

    requests: Sums = field(default_factory=Sums)
    tenant_requests: Sums = field(default_factory=lambda: Sums(MOST_TENANTS))
    tenant_nano_usd: Sums = field(default_factory=lambda: Sums(MOST_TENANTS))
    calls: Sums = field(default_factory=Sums)
    calls_nano_usd: Sums = field(default_factory=Sums)
    tokens: Sums = field(default_factory=Sums)
    durations: Histogram = field(default_factory=lambda: Histogram(DURATIONS))
    first: Histogram = field(default_factory=lambda: Histogram(FIRST))
    call_durations: Histogram = field(default_factory=lambda: Histogram(DURATIONS))
    call_first: Histogram = field(default_factory=lambda: Histogram(FIRST))
    per_token: Histogram = field(default_factory=lambda: Histogram(PER_TOKEN))

    def add_requests(self, row: _Row) -> None:
        """Add requests of one route, model, cache, outcome and class of duration."""
        route, model, cache, state, slot, count, micros = row
        self.requests.add((route, model, cache, state), count)
        if state == "settled":
            self.durations.add((route, cache), slot, count, micros * 1e-6)

    def add_tenant(self, row: _Row) -> None:
        """Add the requests of one tenant, and what they cost."""
        name, count, nano_usd = row
        self.tenant_requests.add((name,), count)
        self.tenant_nano_usd.add((name,), nano_usd)

    def add_calls(self, row: _Row) -> None:
        """Add calls of one model, purpose and outcome: their number, cost and tokens."""
        model, purpose, outcome, count, nano_usd, *tokens = row
        self.calls.add((model, purpose, outcome), count)
        self.calls_nano_usd.add((model, purpose), nano_usd)
        for bucket, number in zip(BUCKETS, tokens, strict=True):
            self.tokens.add((model, bucket), number)


class Tally:
    """Adds up the lines that a SQLite ledger gets from a moment on; safe for several threads.

    `tenants` are told apart before any others.
    """

    def __init__(self, url: str, since_s: float, tenants: Iterable[str] = ()) -> None:
        known = sorted(set(tenants))
        self._found = Tallied(
            tenant_requests=Sums(MOST_TENANTS, known), tenant_nano_usd=Sums(MOST_TENANTS, known)
        )
        self._url = url
        self._since_us = int(since_s * 1e6)
        self._position: tuple[int, str] | None = None
        self._lock = threading.Lock()

    def look(self) -> Tallied:
        """Add what is new, and return all. Raises LedgerError."""
        with self._lock, reading(self._url) as connection:
            for _ in range(STEPS):
                if not self._step(connection):
                    break
            return deepcopy(self._found)  # another thread may be adding to it soon

    def _step(self, connection: Connection) -> bool:
        """Add some lines; return whether there may be more."""
        after = self._after(connection)
        last = _last(connection, after)
        if last <= after:
            return False
        chosen = (rowid > after) & (rowid <= last) & (entry.c.tenant != GATEWAY)
        # All is read before any of it is added: a ledger that fails midway costs nothing.
        found = [(list(connection.execute(w)), add) for w, add in _readings(self._found, chosen)]
        for rows, add in found:
            for row in rows:
                add(row)
        name = connection.scalar(select(entry.c.request_id).where(rowid == last))
        self._position = last, name or ""
        return True

    def _after(self, connection: Connection) -> int:
        """Return the last row that was added; a `VACUUM` numbers rows anew, so its id counts."""
        if self._position is None:
            began = entry.c.started_at_us
            before = select(rowid).select_from(entry).where(began < self._since_us)
            return connection.scalar(before.order_by(began.desc()).limit(1)) or 0
        number, name = self._position
        now = select(rowid).select_from(entry).where(entry.c.request_id == name)
        if (found := connection.scalar(now)) is not None:
            return found
        highest = connection.scalar(select(func.max(rowid)).select_from(entry)) or 0
        return min(number, highest)


def _last(connection: Connection, after: int) -> int:
    """Return the last row to add now: none beyond one that is still open."""
    some = select(rowid.label("number"), entry.c.state).select_from(entry).where(rowid > after)
    some_c = some.order_by(rowid).limit(AT_ONCE).subquery().c
    still_open = case((some_c.state == "open", some_c.number))
    last, is_open = connection.execute(select(func.max(some_c.number), func.min(still_open))).one()
    return (last or 0) if is_open is None else is_open - 1


def _readings(found: Tallied, chosen: ColumnElement[bool]) -> list[_Reading]:
    own = entry.c
    costs = func.count(), sum_of(own.cost_nano_usd)
    is_first = (own.state == "settled") & (own.stream == 1) & own.ttft_us.is_not(None)
    keys = own.route, own.model, own.cache, own.state
    return [
        (_timed(found.durations, own.latency_us, keys).where(chosen), found.add_requests),
        (
            _timed(found.first, own.ttft_us, (own.route, own.cache)).where(chosen, is_first),
            partial(_add, found.first, 2),
        ),
        (select(own.tenant, *costs).where(chosen).group_by(own.tenant), found.add_tenant),
        *_readings_of_calls(found, chosen),
    ]


def _readings_of_calls(found: Tallied, chosen: ColumnElement[bool]) -> list[_Reading]:
    call = attempt.c
    lines = attempt.join(entry, entry.c.request_id == call.request_id)
    keys = call.model, call.purpose, call.outcome
    sums = (sum_of(call[name]) for name in ("cost_nano_usd", *BUCKETS))
    all_calls = select(*keys, func.count(), *sums).select_from(lines).where(chosen).group_by(*keys)
    answered = chosen & call.outcome.in_(_ANSWERED)
    streamed = answered & (entry.c.stream == 1) & call.ttft_us.is_not(None)
    # Reasoning comes after the first part as the answer does; one gap fewer than tokens.
    written = call.output + call.reasoning
    gap_us = (call.latency_us - call.ttft_us) / (written - 1.0)
    has_gaps = streamed & (written > 1) & (call.latency_us > call.ttft_us)
    timed = (
        (found.call_durations, call.latency_us, answered),
        (found.call_first, call.ttft_us, streamed),
        (found.per_token, gap_us, has_gaps),
    )
    return [(all_calls, found.add_calls)] + [
        (
            _timed(histogram, micros, (call.model,), lines).where(condition),
            partial(_add, histogram, 1),
        )
        for histogram, micros, condition in timed
    ]


def _timed(
    histogram: Histogram,
    micros: ColumnElement[Any],
    keys: Sequence[ColumnElement[Any]],
    lines: FromClause = entry,
) -> Select[Any]:
    """Count durations by some keys and by their class in a histogram, with their sum."""
    bounds = enumerate(histogram.bounds)
    slot = case(*((micros <= b * 1e6, n) for n, b in bounds), else_=len(histogram.bounds))
    wanted = select(*keys, slot.label("slot"), func.count(), sum_of(micros)).select_from(lines)
    return wanted.group_by(*keys, "slot")


def _add(histogram: Histogram, keys: int, row: _Row) -> None:
    slot, count, micros = row[keys:]
    histogram.add(tuple(row[:keys]), slot, count, micros * 1e-6)
