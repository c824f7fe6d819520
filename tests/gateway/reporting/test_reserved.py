"""What is set aside of a budget: known where one process holds it all, or where all say so."""

from __future__ import annotations

import pytest

from gateway.access.meters import Claim, Purse
from gateway.access.stores.memory import MemoryLimits
from gateway.money.databases import postgres_engine
from gateway.money.migrate import migrate_postgres
from gateway.money.schema import budget_part, budget_process
from gateway.reporting.reserved import reserved
from tests.support.postgres_server import PostgresServer

PURSE = Purse("key:ci:day:1", "key:ci:day", ("key", "ci"), "ci", 100, "refuse", True, 0.0, 9e9)


@pytest.fixture
async def store():
    store = MemoryLimits(lambda: 0.0)
    await store.seed(PURSE, 10)
    await store.take(Claim(purses=((PURSE, 30),)))
    return store


async def test_one_process_knows_what_it_holds_and_one_of_several_does_not(store):
    alone = reserved(store, None, workers=1, now_s=0.0)
    one_of_two = reserved(store, None, workers=2, now_s=0.0)

    assert alone(PURSE) == 30
    assert one_of_two(PURSE) is None


async def test_nothing_is_held_of_a_budget_that_nobody_has_asked_for():
    assert reserved(MemoryLimits(lambda: 0.0), None, workers=1, now_s=0.0)(PURSE) == 0


def test_in_postgresql_all_living_processes_count():
    with PostgresServer() as server:
        url = server.new_database()
        engine = postgres_engine(url)
        migrate_postgres(engine, "here")
        living = {"one": 2_000, "two": 2_000, "dead": 5}
        with engine.begin() as connection:
            connection.execute(
                budget_process.insert(),
                [{"name": name, "alive_until_us": until} for name, until in living.items()],
            )
            connection.execute(
                budget_part.insert(),
                [
                    {"budget_id": PURSE.id, "process": name, "held_nano_usd": 7,
                     "spent_nano_usd": 1}
                    for name in living
                ],
            )  # fmt: skip
        engine.dispose()
        held = reserved(None, url, workers=4, now_s=0.001)

    assert held(PURSE) == 14
