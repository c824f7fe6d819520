"""How the models of a policy stand: their last calls, breakers, deployments and engines."""

from __future__ import annotations

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from gateway.money.databases import reading
from gateway.money.schema import attempt, entry
from gateway.money.views import class_of
from gateway.reporting.overview import quantiles
from gateway.reporting.shapes import Deployment, EngineState, Providers, ProviderState
from gateway.reporting.window import Window, iso
from gateway.resilience.balance import BalancedProvider
from gateway.telemetry.engines import engine_metrics

if TYPE_CHECKING:
    from gateway.resilience.site import Site
    from policies.schema import Model, Policy

MOST_CALLS = 20_000
_FINE = ("accepted", "rejected", "rejected_early", "abandoned")
_SAMPLE = re.compile(r"^frugal_engine_(\w+)(?:\{[^}]*\})? ([0-9.eE+-]+)$", re.MULTILINE)


@dataclass(slots=True)
class Calls:
    """The last calls of one model."""

    count: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    took: Counter[int] = field(default_factory=Counter)
    first: Counter[int] = field(default_factory=Counter)


async def providers(
    url: str,
    asked: Window,
    policy: Policy,
    site: Site,
    breakers: Mapping[str, str],
    *,
    now_tick: float,
    workers: int,
) -> Providers:
    """Return every model of a policy; of its calls, the last of all. Raises LedgerError."""
    calls, since_us = await asyncio.to_thread(last_calls, url, asked)
    engines = await asyncio.gather(
        *(_engine(site.socket(name, model), model) for name, model in policy.models.items())
    )
    return Providers(
        providers=tuple(
            _state(name, model, calls.get(name, Calls()), breakers, site, now_tick, engine)
            for (name, model), engine in zip(policy.models.items(), engines, strict=True)
        ),
        calls_since=None if since_us is None else iso(since_us),
        workers=workers,
    )


def _state(
    name: str,
    model: Model,
    calls: Calls,
    breakers: Mapping[str, str],
    site: Site,
    now: float,
    engine: EngineState | None,
) -> ProviderState:
    limits = model.limits.model_dump(exclude_none=True)
    return ProviderState(
        model=name,
        provider=model.provider,
        upstream_model=model.model,
        breaker=breakers.get(name, "none"),
        calls=calls.count,
        failed=sum(n for word, n in calls.outcomes.items() if word not in _FINE),
        outcomes=dict(calls.outcomes),
        latency=quantiles(tuple(calls.took.items())),
        ttft=quantiles(tuple(calls.first.items())),
        limits={word: int(value) for word, value in limits.items() if isinstance(value, int)},
        deployments=tuple(_deployments(site.provider(name, model), now)),
        engine=engine,
    )


def _deployments(provider: object, now: float) -> Iterable[Deployment]:
    if not isinstance(provider, BalancedProvider):
        return
    for member in provider.members:
        expected_s = member.expected_s(now)
        yield Deployment(
            name=member.name,
            state=member.breaker.state,
            is_down=member.is_down,
            in_flight=member.under_way,
            limit=member.limit.limit if member.limit is not None else None,
            expected_ms=round(expected_s * 1000, 3) if expected_s else None,
            rests_s=max(0.0, round(member.rests_until - now, 3)),
            weight=member.weight,
        )


def last_calls(url: str, asked: Window) -> tuple[dict[str, Calls], int | None]:
    """Count the last calls within a time by model, and say when the first of those began.

    Raises LedgerError.
    """
    at = entry.c.started_at_us
    last = select(entry.c.request_id, at).where(at >= asked.since_us, at < asked.until_us)
    chosen = last.order_by(at.desc()).limit(MOST_CALLS).subquery()
    columns = (attempt.c.model, attempt.c.outcome, attempt.c.latency_us, attempt.c.ttft_us)
    wanted = select(chosen.c.started_at_us, *columns).join(
        attempt, attempt.c.request_id == chosen.c.request_id
    )
    found: dict[str, Calls] = defaultdict(Calls)
    since_us: int | None = None
    with reading(url) as connection:
        for began, model, word, took, first in connection.execute(wanted):
            calls = found[model]
            calls.count += 1
            calls.outcomes[word] += 1
            if word in _FINE:
                calls.took[class_of(took)] += 1
            if first is not None:
                calls.first[class_of(first)] += 1
            since_us = began if since_us is None else min(since_us, began)
    return found, since_us


async def _engine(socket: Path | None, model: Model) -> EngineState | None:
    """Ask a local engine how it is; one that does not answer is not ready."""
    if socket is None:
        return None
    text = await engine_metrics(socket)
    samples = {name: float(value) for name, value in _SAMPLE.findall(text)}
    return EngineState(
        ready=bool(samples.get("ready", 0)),
        running=_whole(samples, "requests_running"),
        waiting=_whole(samples, "requests_waiting"),
        max_batch=model.max_batch,
        kv_used=_share(samples, "kv_pages_used", "kv_pages"),
        completion_tokens=_whole(samples, "completion_tokens_total"),
        busy_s=samples.get("busy_seconds_total"),
    )


def _whole(samples: Mapping[str, Any], name: str) -> int | None:
    return int(samples[name]) if name in samples else None


def _share(samples: Mapping[str, float], part: str, whole: str) -> float | None:
    return samples[part] / samples[whole] if part in samples and samples.get(whole) else None
