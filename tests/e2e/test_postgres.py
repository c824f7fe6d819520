"""A gateway whose ledger is in PostgreSQL, and goes on without it for a while."""

from __future__ import annotations

import asyncio
import json

import pytest
from typer.testing import CliRunner

from gateway.cli.main import app
from gateway.money.errors import LedgerError
from gateway.money.reports import cost_report, request_rows
from tests.support.gateway_app import frugal_serve, serving
from tests.support.policies import policy, remote
from tests.support.postgres_server import PostgresServer
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream


@pytest.fixture
def server():
    with PostgresServer() as running:
        yield running


@pytest.fixture
async def upstream():
    async with ScriptedUpstream(Says("yes", tokens=(10, 1000))) as running:
        yield running


def _policy(upstream, **spool):
    return policy({"m": remote(upstream.url)}, storage={"spool": {"file": "ledger.db", **spool}})


async def _until_there(url, count):
    def arrived():
        try:
            return len(request_rows(url)) == count
        except LedgerError:
            return False  # its tables are made by whoever sends first

    async with asyncio.timeout(30):
        while not await asyncio.to_thread(arrived):  # noqa: ASYNC110 - a database tells nobody
            await asyncio.sleep(0.02)


async def test_requests_arrive_in_postgresql_and_reports_read_them_there(
    server, upstream, tmp_path
):
    url = server.new_database()
    async with serving(_policy(upstream), tmp_path, ledger=url) as gateway:
        for number in range(3):
            await gateway.chat(f"{number}", model="m")
        await _until_there(url, 3)
        shown = await gateway.admin.get("/admin/reports/requests")

    assert [row["model"] for row in shown.json()["data"]] == ["m"] * 3
    assert cost_report(url).total == cost_report(gateway.books.url).total


async def test_what_is_answered_without_postgresql_arrives_when_it_is_back(
    server, upstream, tmp_path
):
    url = server.new_database()
    async with serving(_policy(upstream), tmp_path, ledger=url) as gateway:
        await gateway.chat("first", model="m")
        await _until_there(url, 1)
        server.kill()
        away = [(await gateway.chat(f"{n}", model="m")).status_code for n in range(5)]
        server.start()
        await _until_there(url, 6)

    assert away == [200] * 5
    assert request_rows(url) == request_rows(gateway.books.url)


async def test_a_spool_that_is_full_takes_nothing_billable_until_it_has_arrived(
    server, upstream, tmp_path
):
    url = server.new_database()
    server.kill()
    async with serving(_policy(upstream, max_entries=3), tmp_path, ledger=url) as gateway:
        before = [(await gateway.chat(f"{n}", model="m")).status_code for n in range(3)]
        while (away := await gateway.chat("more", model="m")).status_code == 200:
            pass
        ready = await gateway.client.get("/health/ready")
        server.start()
        back = await gateway.chat("again", model="m")
        while back.status_code != 200:
            back = await gateway.chat("again", model="m")
        await _until_there(url, len(gateway.books.entries()))

    assert before == [200] * 3
    assert away.status_code == ready.status_code == 503
    assert away.json()["error"]["code"] == "ledger_unavailable"


async def test_a_gateway_that_was_killed_is_caught_up_by_the_next(server, upstream, tmp_path):
    url = server.new_database()
    with frugal_serve(_policy(upstream), tmp_path, ledger=url) as gateway:
        server.kill()
        with gateway.client() as client:
            asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
            answer = await asyncio.to_thread(client.post, "/v1/chat/completions", json=asked)
        gateway.process.kill()
        gateway.process.wait()
    server.start()
    with frugal_serve(_policy(upstream), tmp_path, ledger=url) as gateway:
        status = gateway.stop()

    assert (answer.status_code, status) == (200, 0)
    assert request_rows(url) == request_rows(gateway.books.url)


def test_costs_are_read_from_the_policys_postgresql_and_keys_stand_beside_its_spool(
    server, tmp_path
):
    path = tmp_path / "policy.yaml"
    url = server.new_database()
    storage = {"ledger": url, "spool": {"file": "spool.db"}}
    path.write_text(policy({"m": remote("http://127.0.0.1:1/v1")}, storage=storage))
    none = CliRunner().invoke(app, ["costs", "--policy", str(path)])
    made = CliRunner().invoke(app, ["keys", "init", "--policy", str(path)])

    assert none.exit_code == 1
    assert made.exit_code == 0
    assert (tmp_path / "spool.keys.db").exists()


async def test_the_password_of_the_ledger_is_never_shown(upstream, tmp_path):
    url = "postgresql://u:planted@127.0.0.1:1/x"
    storage = {"ledger": url, "spool": {"file": "ledger.db"}}
    text = policy({"m": remote(upstream.url)}, storage=storage, access={"anonymous": "loopback"})
    async with serving(text, tmp_path, ledger=url) as gateway:
        shown = await gateway.admin.get("/admin/policy")
        report = await gateway.admin.get("/admin/reports/requests")

    assert shown.json()["storage"]["ledger"] == "postgresql://u:***@127.0.0.1:1/x"
    assert report.status_code == 503
    assert "planted" not in json.dumps([shown.json(), report.json()])


def test_a_postgresql_that_hangs_does_not_hold_up_a_stop(server, tmp_path):
    url = server.new_database()
    storage = {"ledger": url, "spool": {"file": str(tmp_path / "ledger.db")}}
    text = policy({"m": remote("http://127.0.0.1:1/v1")}, storage=storage)
    with frugal_serve(text, tmp_path, ledger=url) as served:
        # Its tables are there once it has sent for the first time: a connection is open by then.
        asyncio.run(_until_there(url, 0))
        server.hang()
        try:
            status = served.stop()
        finally:
            server.resume()

    assert status == 0
