"""What a scrape tells where the ledger is in PostgreSQL: its sums, and the spool's own lines."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.money.errors import LedgerError
from gateway.money.reports import cost_report, request_rows
from tests.support.gateway_app import serving
from tests.support.policies import CHEAP, DEAR, policy, remote
from tests.support.postgres_server import PostgresServer
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream

SPOOL = {"spool": {"file": "ledger.db"}}


@pytest.fixture
def server():
    with PostgresServer() as running:
        yield running


async def _until_there(url, count):
    def arrived():
        try:
            return len(request_rows(url)) == count
        except LedgerError:
            return False  # its tables are made by whoever sends first

    async with asyncio.timeout(30):
        while not await asyncio.to_thread(arrived):  # noqa: ASYNC110 - a database tells nobody
            await asyncio.sleep(0.02)


async def _scraped(gateway):
    """Return every sample of a scrape by its name and the labels' values."""
    answer = await gateway.admin.get("/metrics")
    assert answer.status_code == 200
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def _until_scraped(gateway, holds):
    async with asyncio.timeout(30):
        while not holds(found := await _scraped(gateway)):  # noqa: ASYNC110 - a scrape is asked for
            await asyncio.sleep(0.05)
    return found


async def test_sums_come_from_postgresql_and_are_those_of_its_lines(server, tmp_path):
    url = server.new_database()
    async with ScriptedUpstream(Says("yes", tokens=(10, 100))) as upstream:
        models = {
            "cheap": remote(upstream.url, price=CHEAP),
            "dear": remote(upstream.url, price=DEAR),
        }
        routes = {name: {"model": name, "cache": {"exact": {"ttl": "1h"}}} for name in models}
        limits = {"budget": {"usd": 1, "per": "month", "at_limit": "warn"}}
        text = policy(
            models, {f"to-{n}": r for n, r in routes.items()}, storage=SPOOL, limits=limits
        )
        async with serving(text, tmp_path, ledger=url) as gateway:
            for number in range(4):
                await gateway.chat(f"{number}", model="to-cheap")
                await gateway.chat(f"{number % 2}", model="to-dear")
            await _until_there(url, 8)
            found = await _until_scraped(
                gateway, lambda told: told.get(("frugal_cache_hits_total", "exact", "to-dear")) == 2
            )
            report = cost_report(url, by="route")

    costs = {group.name: group.cost_nano_usd / 1e9 for group in report.groups}
    assert costs == {"to-cheap": pytest.approx(4 * 210e-6), "to-dear": pytest.approx(2 * 2100e-6)}
    for route, usd in costs.items():
        assert found["frugal_cost_usd_total", route] == pytest.approx(usd, abs=1e-12)
    assert found["frugal_ledger_readable",] == 1
    spent = [value for key, value in found.items() if key[0] == "frugal_budget_spent_usd"]
    assert spent == [pytest.approx(sum(costs.values()))]
    requests = {key: value for key, value in found.items() if key[0] == "frugal_requests_total"}
    assert sum(requests.values()) == 8


async def test_a_postgresql_that_is_away_takes_its_sums_along_and_nothing_else(server, tmp_path):
    url = server.new_database()
    async with ScriptedUpstream(Says("yes", tokens=(10, 100))) as upstream:
        text = policy({"m": remote(upstream.url, price=CHEAP)}, storage=SPOOL)
        async with serving(text, tmp_path, ledger=url) as gateway:
            await gateway.chat("one", model="m")
            await _until_there(url, 1)
            await _until_scraped(gateway, lambda told: told["frugal_ledger_readable",] == 1)
            server.kill()
            await gateway.chat("two", model="m")
            away = await _until_scraped(gateway, lambda told: told["frugal_ledger_readable",] == 0)
            server.start()
            back = await _until_scraped(
                gateway,
                lambda told: (
                    told["frugal_ledger_readable",] == 1
                    and told.get(("frugal_cost_usd_total", "m"), 0.0) > 300e-6
                ),
            )

    assert not [key for key in away if key[0] == "frugal_cost_usd_total"]
    assert [key for key in away if key[0] == "frugal_process_ledger_healthy"]
    assert back["frugal_cost_usd_total", "m"] == pytest.approx(2 * 210e-6)
