"""What a worker answers for of a budget that each has a part of."""

from __future__ import annotations

import pytest

from gateway.access.meters import Purse
from gateway.access.spent import LedgerSpending
from gateway.money.ledger import ledger_at
from gateway.settings import Team
from tests.support.money import entry

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
