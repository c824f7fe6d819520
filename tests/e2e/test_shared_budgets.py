"""Budgets of several gateways on one PostgreSQL or Redis, and what remains of them without it."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack, ExitStack

import httpx
import pytest

from tests.support.gateway_app import asking, frugal_serve, serving
from tests.support.policies import policy, remote
from tests.support.postgres_server import PostgresServer
from tests.support.redis_server import RedisServer, patient
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream

CENT = {"input_per_mtok_usd": 0, "output_per_mtok_usd": 10}
ANSWER = Says("yes", tokens=(10, 1000))
NANO = 10**9


@pytest.fixture
def server():
    with PostgresServer() as running:
        yield running


@pytest.fixture
async def upstream():
    async with ScriptedUpstream(ANSWER) as running:
        yield running


def _written(upstream, **storage):
    def write(**limits):
        models = {"m": remote(upstream.url, price=CENT)}
        return policy(models, limits=limits, storage=storage)

    return write


@pytest.fixture
def text(server, upstream):
    return _written(upstream, limits=server.new_database())


@pytest.fixture(params=["limits", "redis"])
def shared(request, upstream, tmp_path):
    """Write policies of gateways that share a budget; each has a ledger of its own in SQLite."""
    if request.param == "redis":
        with RedisServer(tmp_path) as running:
            yield _written(upstream, **patient(running))
    else:
        url = request.getfixturevalue("server").new_database()
        yield _written(upstream, limits=url)


async def _load(urls, count):
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=url, trust_env=False, timeout=30)
            )
            for url in urls
        ]
        asked = [asking(str(i), model="m", max_tokens=1000) for i in range(count)]
        return await asyncio.gather(
            *(
                clients[i % len(clients)].post("/v1/chat/completions", json=body)
                for i, body in enumerate(asked)
            ),
            return_exceptions=True,
        )


async def test_two_hundred_at_once_on_two_gateways_spend_exactly_the_dollar(text, tmp_path):
    limits = text(budget={"usd": 1, "per": "day"})
    async with AsyncExitStack() as stack:
        both = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            both.append(await stack.enter_async_context(serving(limits, tmp_path / name)))
        replies = await _load([each.url for each in both], 200)
        spent = sum(row["cost_nano_usd"] for each in both for row in each.books.entries())

    statuses = [reply.status_code for reply in replies]
    assert set(statuses) <= {200, 429, 503}
    assert spent == statuses.count(200) * NANO // 100 <= NANO
    assert statuses.count(200) == 100 or 503 in statuses


async def test_two_processes_never_spend_more_than_the_dollar_even_when_one_is_killed(
    shared, upstream, tmp_path
):
    limits = shared(budget={"usd": 1, "per": "day"})
    with ExitStack() as stack:
        both = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            both.append(stack.enter_context(frugal_serve(limits, tmp_path / name)))
        await _load([each.url for each in both], 60)
        both[0].process.send_signal(signal.SIGKILL)
        both[0].process.wait()
        statuses = []
        while 429 not in statuses:  # 503 is a store that was late: come again
            replies = await _load([both[1].url], 100)
            statuses += [reply.status_code for reply in replies]
        spent = sum(row["cost_nano_usd"] for each in both for row in each.books.entries())

    assert set(statuses) <= {200, 429, 503}
    assert NANO // 2 < spent == len(upstream.requests) * NANO // 100 <= NANO


async def test_without_postgresql_a_budget_gives_nothing_and_afterwards_what_it_had(
    text, server, tmp_path
):
    async with serving(text(budget={"usd": "0.025", "per": "hour"}), tmp_path) as gateway:
        first = await gateway.chat("first", model="m", max_tokens=1000)
        server.kill()
        away = [await gateway.chat(str(i), model="m", max_tokens=1000) for i in range(3)]
        server.start()
        while (back := await gateway.chat("back", model="m", max_tokens=1000)).status_code == 503:
            pass
        beyond = await gateway.chat("beyond", model="m", max_tokens=1000)

    assert first.status_code == back.status_code == 200
    assert [each.json()["error"]["code"] for each in away] == ["limits_unavailable"] * 3
    assert beyond.status_code == 429


async def test_a_restarted_gateway_knows_what_was_spent(text, tmp_path):
    limits = text(budget={"usd": "0.015", "per": "day"})
    async with serving(limits, tmp_path) as gateway:
        first = await gateway.chat("first", model="m", max_tokens=1000)
    async with serving(limits, tmp_path) as gateway:
        second = await gateway.chat("second", model="m", max_tokens=1000)

    assert (first.status_code, second.status_code) == (200, 429)
