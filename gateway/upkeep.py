"""What a running gateway does on the side: follow dated prices, note its machines' uptime."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from gateway.clock import Clock
from gateway.money.ledger import Ledger, LedgerError, UptimeRecord
from gateway.money.price import to_nano
from gateway.money.prices import PriceBook, PriceError, resolve_prices
from policies.schema import Policy

UPTIME_EVERY_S = 60.0
_LONGEST_SLEEP_S = 3600.0
_log = logging.getLogger(__name__)


@asynccontextmanager
async def upkeep(
    policy: Policy,
    prices: PriceBook,
    ledger: Ledger,
    clock: Clock,
    use: Callable[[PriceBook], None],
) -> AsyncIterator[None]:
    """Run both tasks as long as the block is entered; `use` is told of new prices."""
    jobs: list[Coroutine[Any, Any, None]] = []
    if hourly := _hourly(policy, prices):
        jobs.append(_note_uptime(hourly, ledger, clock))
    if prices.valid_until is not None:
        jobs.append(_follow_prices(policy, prices, clock, use))
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _follow_prices(
    policy: Policy, prices: PriceBook, clock: Clock, use: Callable[[PriceBook], None]
) -> None:
    while prices.valid_until is not None:
        left_s = prices.valid_until.timestamp() - clock.wall()
        if left_s > 0:
            await asyncio.sleep(min(left_s, _LONGEST_SLEEP_S))
            continue
        try:
            prices = resolve_prices(policy, datetime.fromtimestamp(clock.wall(), UTC))
        except PriceError as exc:
            _log.error("prices stay as they were: %s", exc)
            return
        use(prices)


def _hourly(policy: Policy, prices: PriceBook) -> dict[str, int]:
    """Return what an hour of each machine of ours costs, in nano-dollars, by model."""
    return {
        name: to_nano(prices.for_model(name).machine_hour_usd)
        for name, model in policy.models.items()
        if model.provider == "local"
    }


async def _note_uptime(hourly: dict[str, int], ledger: Ledger, clock: Clock) -> None:
    """Record from time to time which machines are up, so that idle time has a price."""
    run_id = secrets.token_hex(8)
    began = int(clock.wall() * 1_000_000)
    while True:
        for name, nano in hourly.items():
            record = UptimeRecord(run_id, name, began, int(clock.wall() * 1_000_000), nano)
            with contextlib.suppress(LedgerError):
                await ledger.write_uptime(record)
        await asyncio.sleep(UPTIME_EVERY_S)
