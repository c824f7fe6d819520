"""What a worker answers for of a budget that each has a part of."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.access.meters import Purse
from gateway.access.spent import LedgerSpending
from gateway.money.errors import LedgerError
from gateway.money.ledger import ledger_at
from gateway.money.postgres import Projection
from gateway.money.rollup import Rollup
from gateway.money.sqlite import SqliteStore
from gateway.settings import Team
from tests.support.money import entry
from tests.support.postgres_server import PostgresServer

START = 1_795_000_000.0
PURSE = Purse(
    "tenant:t:day:1", "tenant:t:day", ("tenant", "t"), "the budget", 1000, "refuse", True,
    START, START + 86_400,
)  # fmt: skip


@pytest.fixture
async def url(tmp_path):
    """A ledger with 90 spent before the workers began, then 40 by one of them and 7 by another."""
    where = f"sqlite:///{tmp_path}/ledger.db"
    spent = [("req_1_before", 10, 90), ("req_2_aaaa01", 60, 40), ("req_3_aaaa02", 61, 7)]
    async with ledger_at(where) as ledger:
        for name, after, nano in spent:
            at = int((START + after) * 1e6)
            await ledger.write(entry(name, tenant="t", started_at_us=at, cost_nano_usd=nano), [])
    return where


async def test_a_process_alone_answers_for_all(url):
    assert await LedgerSpending(url, since=START + 70)(PURSE) == 137


async def test_a_worker_answers_for_its_part_and_for_what_its_predecessor_spent(url):
    teams = [Team(3, f"aaaa0{i}", START + 50) for i in range(3)]

    found = [await LedgerSpending(url, since=START + 70, team=team)(PURSE) for team in teams]

    assert found == [30, 30 + 40, 30 + 7]
    assert sum(found) == 137


async def test_a_window_that_began_after_the_workers_holds_what_they_spent_of_it(url):
    team = Team(3, "aaaa01", START - 50)

    assert await LedgerSpending(url, since=START + 70, team=team)(PURSE) == 40


async def test_a_window_that_began_after_the_process_is_empty(url):
    assert await LedgerSpending(url, since=START - 1)(PURSE) == 0


@pytest.mark.parametrize("scope", [("key", "ci"), ("tag", "batch"), ("route", "auto")])
async def test_what_was_let_go_is_still_spent(tmp_path, scope):
    path = tmp_path / "ledger.db"
    _hours(path)
    purse = replace(PURSE, scope=scope, start=HOURS_AGO, end=float("inf"))
    spending = LedgerSpending(f"sqlite:///{path}", since=float("inf"))
    before = await spending(purse)
    rollup = Rollup(path)
    rollup.step()
    rollup.prune(int((HOURS_AGO + 5 * 3600) * 1e6))
    within = replace(purse, start=HOURS_AGO + 2 * 3600)

    assert (before, await spending(purse)) == (10_000, 10_000)
    assert await spending(within) == 8_000


async def test_a_ledger_in_postgresql_is_asked_with_what_waits_before_it(tmp_path):
    path = tmp_path / "spool.db"
    _hours(path)
    purse = replace(PURSE, scope=("tag", "batch"), start=HOURS_AGO, end=float("inf"))
    with PostgresServer() as server:
        url = server.new_database()
        spending = LedgerSpending(url, since=float("inf"), spool_url=f"sqlite:///{path}")
        found = [await spending(purse)]
        projection = Projection(path, url, at_once=4)
        projection.step()
        found.append(await spending(purse))
        while projection.step():
            pass
        projection.prune_ledger(int((HOURS_AGO + 5 * 3600) * 1e6))
        projection.prune_spool(2**62)
        projection.close()
        found.append(await spending(purse))
        server.kill()
        with pytest.raises(LedgerError):
            await spending(purse)

    assert found == [10_000] * 3


async def test_what_nobody_reported_counts_as_much_as_it_may_have_cost(tmp_path):
    path = tmp_path / "ledger.db"
    store = SqliteStore(path)
    store.open()
    at = int((HOURS_AGO + 60) * 1e6)
    bounds = {"cost_nano_usd": 10, "upper_nano_usd": 400, "estimated": True, "model": ""}
    lines = [
        entry("killed", started_at_us=at, error="interrupted", **bounds),
        entry("broke off", started_at_us=at, error="upstream_error", **bounds),
        entry("left", started_at_us=at, error=None, state="abandoned", **bounds),
        entry("last", started_at_us=at, cost_nano_usd=0),
    ]
    store.commit(lines, [])
    store.close()
    purse = replace(PURSE, scope=("key", "ci"), start=HOURS_AGO, end=float("inf"))
    url = f"sqlite:///{path}"
    spending = LedgerSpending(url, since=float("inf"))
    strict = LedgerSpending(url, since=float("inf"), abandoned_at_most=True)
    found = [await spending(purse), await strict(purse)]
    rollup = Rollup(path)
    rollup.step()
    rollup.prune(int((HOURS_AGO + 5 * 3600) * 1e6))
    found.append(await spending(purse))

    assert found == [810, 1200, 810]


HOURS_AGO = 495_000 * 3600.0


def _hours(path):
    store = SqliteStore(path)
    store.open()
    for hour in range(10):
        at = int((HOURS_AGO + hour * 3600 + 1800) * 1e6)
        store.commit([entry(f"{hour}", started_at_us=at, tags=("batch", "night"))], [])
    store.close()
