"""What limits cost: processor time of admission and settlement, in memory and shared.

python -m bench.limits --requests 20000
python -m bench.limits --redis redis://127.0.0.1:6379/0
python -m bench.limits --redis redis://127.0.0.1:6379/0 --share
python -m bench.limits --postgres postgresql://user@host/database
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

import uvloop

from gateway.access.build import admission_of, limit_store
from gateway.access.keys import ANONYMOUS
from gateway.clock import Clock
from gateway.entry import Entry
from gateway.errors import LimitsUnavailable, RateLimited
from gateway.money.ledger import ledger_at
from gateway.money.prices import PriceBook, resolve_prices
from gateway.request import parse_chat
from policies.loader import parse_policy
from policies.schema import Policy

RATES = {"requests_per_minute": 10_000_000, "tokens_per_minute": 10_000_000_000, "concurrent": 4096}
BUDGET = {"budget": {"usd": 1_000_000, "per": "hour"}}
AT_ONCE = 16
PER_MINUTE = 3000
"""Of the limit that two processes share."""
SHARED = {"requests_per_minute": PER_MINUTE, "without_redis": "closed"}
BODY = {"model": "m", "max_tokens": 200, "messages": [{"role": "user", "content": "word " * 200}]}


def policy_of(limits: dict[str, Any], storage: dict[str, str]) -> Policy:
    """Return a policy of one model with these limits."""
    price = {"input_per_mtok_usd": 1, "output_per_mtok_usd": 2}
    model = {"provider": "openai", "base_url": "http://127.0.0.1:1/v1", "price": price}
    whole: dict[str, Any] = {"version": 1, "models": {"m": model}, "limits": limits}
    whole["storage"] = storage
    return parse_policy(json.dumps(whole), name="bench", env={})


async def run(policy: Policy, count: int) -> tuple[float, int]:
    """Admit and settle `count` requests; return microseconds of this process' time for each.

    Beside that, how often one was told to come again: a budget that refuses gives nothing
    while its store misses its deadline, as one does on a machine with more work than cores.
    """
    clock = Clock()
    route = policy.route_for("m")
    assert route is not None, "the policy has one model"
    request = parse_chat(json.dumps(BODY).encode(), {}, "id")
    away = 0
    async with AsyncExitStack() as stack:
        ledger = f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory())}/ledger.db"
        await stack.enter_async_context(ledger_at(ledger))
        limits = await stack.enter_async_context(limit_store(policy, clock, ledger))
        admission = admission_of(policy, _prices(policy), clock, ledger, limits)

        async def one() -> None:
            nonlocal away
            entry = Entry(request, ANONYMOUS, "m", route, clock)
            while admission is not None:
                try:
                    await admission.admit(entry)
                    break
                except LimitsUnavailable:
                    away += 1
                    await asyncio.sleep(0.01)
            if entry.permit is not None:
                entry.permit.headers()
                entry.permit.close(tokens=300, nano_usd=500_000)

        await _many(one, AT_ONCE)
        began = time.process_time()
        await _many(one, count)
        return (time.process_time() - began) / count * 1e6, away


async def _many(one: Callable[[], Awaitable[None]], count: int) -> None:
    async def some() -> None:
        for _ in range(count // AT_ONCE):
            await one()

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


def share_of_limit(redis: str, seconds: float, processes: int = 2) -> float:
    """Return what several processes were admitted of one limit, as a share of what it holds."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        asked = [(redis, seconds)] * processes
        found = pool.starmap(_admitted, asked)
    began, ended = min(first for _, first, _ in found), max(last for _, _, last in found)
    return sum(count for count, _, _ in found) / (PER_MINUTE * (1 + (ended - began) / 60))


def _admitted(redis: str, seconds: float) -> tuple[int, float, float]:
    """Ask as fast as it goes; return how many were admitted, and when that began and ended."""
    return uvloop.run(_ask_for(policy_of(SHARED, {"redis": redis}), seconds))


async def _ask_for(policy: Policy, seconds: float) -> tuple[int, float, float]:
    clock = Clock()
    route = policy.route_for("m")
    assert route is not None, "the policy has one model"
    request = parse_chat(json.dumps(BODY).encode(), {}, "id")
    admitted = 0
    async with AsyncExitStack() as stack:
        ledger = f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory())}/ledger.db"
        limits = await stack.enter_async_context(limit_store(policy, clock, ledger))
        admission = admission_of(policy, _prices(policy), clock, ledger, limits)
        assert admission is not None, "the policy has limits"
        began = clock.wall()
        while (now := clock.wall()) < began + seconds:
            entry = Entry(request, ANONYMOUS, "m", route, clock)
            try:
                await admission.admit(entry)
            except (RateLimited, LimitsUnavailable):
                await asyncio.sleep(0.001)
            else:
                admitted += 1
    return admitted, began, now


def _prices(policy: Policy) -> PriceBook:
    return resolve_prices(policy, datetime.now(UTC))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table: microseconds of processor time a request."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--redis", help="measure through this Redis, too")
    parser.add_argument("--postgres", help="measure budgets through this PostgreSQL, too")
    parser.add_argument(
        "--share", action="store_true", help="only how exactly two processes keep one limit"
    )
    told = parser.parse_args(arguments)
    if told.share:
        _show_share(told.redis)
        return
    cases: list[tuple[str, dict[str, Any], dict[str, str]]] = [
        ("no limits", {}, {}),
        ("rates, memory", RATES, {}),
        ("rates and budget, memory", RATES | BUDGET, {}),
    ]
    if told.redis:
        there = {"redis": told.redis}
        cases.append(("rates, Redis", RATES, there))
        cases.append(("rates and budget, Redis", RATES | BUDGET, there))
    if told.postgres:
        there = {"limits": told.postgres}
        cases.append(("rates and budget, PostgreSQL", RATES | BUDGET, there))
    for name, limits, storage in cases:
        spent, away = uvloop.run(run(policy_of(limits, storage), told.requests))
        late = f"; its store was late {away} times" if away else ""
        print(f"{name:28} {spent:7.1f} µs a request, {spent / 1000:.4f} CPU-s per 1,000{late}")
    if told.redis:
        _show_share(told.redis)


def _show_share(redis: str) -> None:
    share = share_of_limit(redis, 10.0)
    print(f"two processes on one Redis were admitted {share:.2%} of their limit")


if __name__ == "__main__":
    main()
