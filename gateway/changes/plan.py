"""`plan` before `apply`: another policy over a ledger's traffic, and how the two differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from gateway.changes.planning import LoggedCall, LoggedRequest, Replay, RouteOutcome
from gateway.money.databases import reading
from gateway.money.prices import resolve_prices
from gateway.money.records import GATEWAY
from gateway.money.reports import micros, parse_since
from gateway.money.schema import attempt, entry
from gateway.money.usage import Usage
from policies.show import masked

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from policies.schema import Policy

MOST_REPLAYED = 20_000
MOST_CHANGES = 500
UNKNOWABLE = (
    "how good other models' answers would have been: labelled audits tell that, a ledger does not",
    "how many hits another cache would have had",
    "how long the answers of models that were not called would have been (taken to be as long)",
    "what limits and budgets would have refused, and what clients would have done then",
)
"""What no replay of a ledger can tell; said beside every plan."""


@dataclass(frozen=True, slots=True)
class Change:
    """One value that differs; None where there is none. Secrets are masked."""

    path: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Plan:
    """What a policy would have made of the newest `replayed` of `requests` since a moment."""

    since: str
    requests: int
    replayed: int
    now_nano_usd: int
    low_nano_usd: int
    high_nano_usd: int
    expected_nano_usd: int | None
    refused: int
    routes: tuple[dict[str, Any], ...]
    changes: tuple[Change, ...]
    unknowable: tuple[str, ...] = field(default=UNKNOWABLE)


def plan(
    url: str,
    old: Policy,
    new: Policy,
    *,
    since: str,
    now: datetime | None = None,
    made_keys: frozenset[str] = frozenset(),
) -> Plan:
    """Replay logged traffic through another policy.

    Raises ReportError, LedgerError, and UnknownPrice where nobody has priced a model.
    """
    moment = now or datetime.now(UTC)
    begin = parse_since(since, moment)
    prices = resolve_prices(new, moment)
    with reading(url) as connection:
        count, requests = _logged(connection, micros(begin))
    outcomes = Replay(old, new, prices, made_keys).run(requests)
    middles = [each.cost.middle for each in outcomes]
    is_known = all(middle is not None for middle in middles)
    return Plan(
        since=begin.isoformat(),
        requests=count,
        replayed=len(requests),
        now_nano_usd=sum(each.now_nano_usd for each in outcomes),
        low_nano_usd=round(sum(each.cost.low for each in outcomes)),
        high_nano_usd=round(sum(each.cost.high for each in outcomes)),
        expected_nano_usd=round(sum(m or 0.0 for m in middles)) if is_known else None,
        refused=sum(each.refused for each in outcomes),
        routes=tuple(_told(each) for each in outcomes),
        changes=tuple(differences(masked(old), masked(new)))[:MOST_CHANGES],
    )


def differences(old: Any, new: Any, path: str = "") -> Iterator[Change]:
    """Yield every value that differs between two trees of JSON values."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in dict.fromkeys((*old, *new)):
            below = f"{path}.{name}" if path else str(name)
            yield from differences(old.get(name), new.get(name), below)
    elif old != new:
        yield Change(path, old, new)


def _told(each: RouteOutcome) -> dict[str, Any]:
    served = max(1, each.requests - each.refused)
    middle, took = each.cost.middle, each.latency.middle
    return {
        "route": each.name,
        "requests": each.requests,
        "refused": each.refused,
        "unsure": each.unsure,
        "now_nano_usd": each.now_nano_usd,
        "low_nano_usd": round(each.cost.low),
        "high_nano_usd": round(each.cost.high),
        "expected_nano_usd": None if middle is None else round(middle),
        "now_latency_ms": each.now_latency_s / max(1, each.requests) * 1000,
        "expected_latency_ms": None if took is None else took / served * 1000,
        "calls_now": dict(each.calls_now),
        "calls": {
            model: {"low": round(times.low), "high": round(times.high)}
            for model, times in sorted(each.calls.items())
        },
        "notes": [f"{count:,} x {text}" for text, count in each.notes.most_common(20)],
    }


def _logged(connection: Connection, since_us: int) -> tuple[int, list[LoggedRequest]]:
    """Return how many requests there were, and the newest of them with their calls."""
    within = entry.c.started_at_us >= since_us, entry.c.tenant != GATEWAY
    count = connection.scalar(select(func.count()).select_from(entry).where(*within)) or 0
    at = entry.c.started_at_us
    newest = select(entry).where(*within, entry.c.state != "open").order_by(at.desc())
    chosen = newest.limit(MOST_REPLAYED).subquery()
    joined = select(attempt).join(chosen, chosen.c.request_id == attempt.c.request_id)
    calls: dict[str, list[LoggedCall]] = defaultdict(list)
    for row in connection.execute(
        joined.where(attempt.c.payer != GATEWAY).order_by(attempt.c.request_id, attempt.c.seq)
    ):
        calls[row.request_id].append(_call(row._asdict()))
    rows = [row._asdict() for row in connection.execute(select(chosen))]
    return int(count), [_request(row, tuple(calls[row["request_id"]])) for row in rows]


def _request(row: Mapping[str, Any], calls: tuple[LoggedCall, ...]) -> LoggedRequest:
    import json

    return LoggedRequest(
        requested_model=row["requested_model"],
        tenant=row["tenant"],
        key=row["key"],
        tags=frozenset(json.loads(row["tags"])),
        stream=bool(row["stream"]),
        cache=row["cache"],
        model=row["model"],
        cost_nano_usd=row["cost_nano_usd"],
        saved_nano_usd=row["saved_nano_usd"],
        latency_s=row["latency_us"] / 1e6,
        calls=calls,
    )


def _call(row: Mapping[str, Any]) -> LoggedCall:
    return LoggedCall(
        model=row["model"],
        usage=Usage(
            input=row["input"],
            cached_input=row["cached_input"],
            cache_write=row["cache_write"] - row["cache_write_1h"],
            output=row["output"],
            reasoning=row["reasoning"],
            audio=row["audio"],
            image=row["image"],
            compute_s=row["compute_us"] / 1e6,
            estimated=bool(row["estimated"]),
            audio_output=row["audio_output"],
            cache_write_1h=row["cache_write_1h"],
            tier=row["tier"],
        ),
        cost_nano_usd=row["cost_nano_usd"],
        outcome=row["outcome"],
        confidence=row["confidence"],
        latency_s=row["latency_us"] / 1e6,
        purpose=row["purpose"],
    )
