from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from gateway.clock import Clock
from gateway.money.ledger import ledger_at
from gateway.money.prices import PriceBook, resolve_prices
from gateway.upkeep import upkeep
from policies.loader import parse_policy

LOCAL = """
version: 1
models:
  tiny: {provider: local, checkpoint: demo/tiny, price: {machine_hour_usd: 0.40}}
  mini:
    provider: openai
    base_url: http://127.0.0.1:9/v1
    price: {input_per_mtok_usd: 1, output_per_mtok_usd: 2}
"""


def uptimes(path: Path) -> list[tuple[str, int]]:
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT model, machine_hour_nano_usd FROM uptime").fetchall()


async def test_the_uptime_of_our_own_machines_is_noted_at_once(tmp_path: Path) -> None:
    policy = parse_policy(LOCAL, name="p.yaml", env={})
    clock = Clock()
    prices = resolve_prices(policy, datetime.now(UTC))
    path = tmp_path / "ledger.db"
    async with (
        ledger_at(f"sqlite:///{path}") as ledger,
        upkeep(policy, prices, ledger, clock, lambda _: None),
    ):
        await asyncio.sleep(0)  # let the task begin; closing the ledger writes what waits
    async with ledger_at(f"sqlite:///{path}"):
        found = uptimes(path)

    assert found == [("tiny", 400_000_000)]


async def test_a_price_past_its_date_is_looked_up_again(tmp_path: Path) -> None:
    policy = parse_policy(LOCAL, name="p.yaml", env={})
    now = datetime.now(UTC)
    stale = replace(resolve_prices(policy, now), valid_until=now)
    told: asyncio.Future[PriceBook] = asyncio.get_running_loop().create_future()
    async with (
        ledger_at(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger,
        upkeep(policy, stale, ledger, Clock(), told.set_result),
        asyncio.timeout(20),
    ):
        fresh = await told

    assert fresh.for_model("mini").output == Decimal("0.000002")
    assert fresh.valid_until is None
