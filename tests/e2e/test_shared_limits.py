"""Limits of several gateways on one Redis, and what remains of them without it."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack

import pytest

from tests.support.gateway_app import asking, serving
from tests.support.policies import KEPT, policy, remote
from tests.support.redis_server import RedisServer, patient
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream

CENT = {"input_per_mtok_usd": 0, "output_per_mtok_usd": 10}
ANSWER = Says("yes", tokens=(10, 1000))
NANO = 10**9


@pytest.fixture
def redis(tmp_path):
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
async def upstream():
    async with ScriptedUpstream(ANSWER) as server:
        yield server


@pytest.fixture
def text(redis, upstream):
    def write(**limits):
        models = {"m": remote(upstream.url, price=CENT)}
        return policy(models, limits=limits, storage=patient(redis))

    return write


async def _ask(client, prompt, **more):
    asked = asking(prompt, model="m", max_tokens=1000, **more)
    return await client.post("/v1/chat/completions", json=asked)


async def _until(gateway, status, prompt="again"):
    """Ask until the answer is of that status: the link to Redis comes and goes in its own time."""
    for _ in range(1000):
        reply = await gateway.chat(prompt, model="m", max_tokens=1)
        if reply.status_code == status:
            break
    return reply


async def test_two_gateways_never_spend_more_than_the_dollar_between_them(text, tmp_path):
    limits = text(budget={"usd": 1, "per": "day"})
    folders = [tmp_path / name for name in ("one", "two")]
    async with AsyncExitStack() as stack:
        both = []
        for folder in folders:
            folder.mkdir()
            both.append(await stack.enter_async_context(serving(limits, folder)))
        replies = await asyncio.gather(
            *(_ask(both[i % 2].client, str(i)) for i in range(200)), return_exceptions=True
        )
        spent = sum(row["cost_nano_usd"] for g in both for row in g.books.entries())

    statuses = [reply.status_code for reply in replies]
    assert set(statuses) == {200, 429}
    assert spent == statuses.count(200) * NANO // 100 == NANO


async def test_what_was_spent_is_known_again_when_redis_has_forgotten_it(text, redis, tmp_path):
    async with serving(text(budget={"usd": "0.015", "per": "hour"}), tmp_path) as gateway:
        await _until(gateway, 200, "first")
        await _until(gateway, 429, "second")
        redis.flush()
        after = await gateway.chat("third", model="m", max_tokens=1000)

    assert after.status_code == 429


@pytest.mark.parametrize(
    ("rule", "statuses"),
    [("open", [200, 200, 200]), ("closed", [503, 503, 503]), ("local", [429, 429, 429])],
)
async def test_without_redis_rates_go_by_the_rule(text, redis, tmp_path, rule, statuses):
    limits = text(requests_per_minute=4, without_redis=rule)
    async with serving(limits, tmp_path) as gateway:
        redis.kill()
        await gateway.chat("notices it", model="m")
        found = [(await gateway.chat(str(i), model="m")).status_code for i in range(3)]

    assert found == statuses


async def test_a_redis_that_hangs_and_comes_back_now_and_then_stops_nobody(text, redis, tmp_path):
    limits = json.loads(text(requests_per_minute=1000, without_redis="open"))
    del limits["storage"]["redis_within"]  # who hangs is soon left alone
    async with serving(json.dumps(limits), tmp_path) as gateway:
        found = []
        for _ in range(3):
            redis.hang()
            found += [(await gateway.chat(str(i), model="m")).status_code for i in range(5)]
            redis.resume()
            found += [(await gateway.chat(str(i), model="m")).status_code for i in range(5)]

    assert found == [200] * 30


async def test_without_redis_a_budget_gives_nothing_and_afterwards_what_it_had(
    text, redis, tmp_path
):
    async with serving(text(budget={"usd": "0.015"}), tmp_path) as gateway:
        first = await _until(gateway, 200, "first")
        redis.kill()
        away = await _until(gateway, 503)
        redis.start()
        back = await _until(gateway, 200)
        spent = sum(row["cost_nano_usd"] for row in gateway.books.entries())
        beyond = await gateway.chat("more", model="m", max_tokens=1000)

    assert first.status_code == back.status_code == 200
    assert away.json()["error"]["code"] == "limits_unavailable"
    assert away.headers["retry-after"] == "1"
    assert spent >= 2 * NANO // 100
    assert beyond.status_code == 429


async def test_limits_that_come_with_a_reload_are_shared_too(text, tmp_path):
    async with AsyncExitStack() as stack:
        both, without, limited = [], text(), text(requests_per_minute=4)
        for name in ("one", "two"):
            folder = tmp_path / name
            folder.mkdir()
            path = folder / "policy.yaml"
            path.write_text(limited)
            both.append(await stack.enter_async_context(serving(without, folder, path=path)))
        for gateway in both:
            assert await gateway.reload()
        found = [(await both[i % 2].chat(str(i), model="m")).status_code for i in range(8)]

    assert found == [200] * 4 + [429] * 4


@pytest.fixture
def kept(redis, upstream):
    def write(**limits):
        models = {"m": remote(upstream.url, price=CENT)}
        routes = {"auto": {"model": "m", "cache": KEPT}}
        return policy(models, routes, limits=limits, storage=patient(redis))

    return write


async def _ask_both(text, tmp_path, asked):
    """Return the answers of two gateways to prompts, each asked of the gateway that it names."""
    async with AsyncExitStack() as stack:
        both = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            both.append(await stack.enter_async_context(serving(text, tmp_path / name)))
        replies = [await both[at].chat(prompt, max_tokens=1000) for at, prompt in asked]
        spent = sum(row["cost_nano_usd"] for g in both for row in g.books.entries())
    return replies, spent


async def test_a_hit_from_another_gateway_takes_a_request_and_no_tokens(kept, tmp_path, upstream):
    text = kept(requests_per_minute=100, tokens_per_minute=1_000_000, budget={"usd": 1})
    asked = [(0, "a"), (1, "b"), (1, "a"), (1, "c"), (1, "d")]
    replies, spent = await _ask_both(text, tmp_path, asked)
    hit, last = replies[2], replies[4]

    assert [reply.headers["x-cache"] for reply in replies] == ["miss", "miss", "exact"] + [
        "miss"
    ] * 2
    assert "x-ratelimit-remaining-requests" in hit.headers
    assert "x-ratelimit-remaining-tokens" not in hit.headers
    # Four answers of 1,010 tokens, of which the last has 1,000 more set aside than its prompt.
    assert int(last.headers["x-ratelimit-remaining-tokens"]) >= 1_000_000 - 3 * 1010 - 1100
    assert spent == 4 * NANO // 100
    assert len(upstream.requests) == 4


async def test_a_hit_from_another_gateway_is_served_when_the_money_is_gone(kept, tmp_path):
    asked = [(0, "a"), (1, "b"), (1, "c"), (1, "a"), (1, "d")]
    replies, spent = await _ask_both(kept(budget={"usd": "0.03"}), tmp_path, asked)

    assert [reply.status_code for reply in replies] == [200, 200, 200, 200, 429]
    assert replies[3].headers["x-cache"] == "exact"
    assert spent == 3 * NANO // 100


async def test_equal_requests_at_once_keep_nobody_else_out(kept, redis, tmp_path):
    async with serving(kept(budget={"usd": "0.1"}), tmp_path) as gateway:
        await gateway.chat("b", max_tokens=1000)
        redis.hang()
        asked = [
            asyncio.create_task(gateway.chat(each, max_tokens=1000))
            for each in ["a"] * 20 + [f"c{number}" for number in range(5)]
        ]
        await gateway.until_under_way(26)
        redis.resume()
        replies = await asyncio.gather(*asked)
        spent = sum(row["cost_nano_usd"] for row in gateway.books.entries())

    assert {reply.status_code for reply in replies} == {200}
    assert spent == 7 * NANO // 100


async def test_a_refused_leader_makes_room_for_those_behind_it(kept, tmp_path):
    async with serving(kept(requests_per_minute=4), tmp_path) as gateway:
        first = await gateway.chat("b", max_tokens=1000)
        replies = await asyncio.gather(*(gateway.chat("a", max_tokens=1000) for _ in range(6)))

    assert first.status_code == 200
    assert sorted(reply.status_code for reply in replies) == [200] * 3 + [429] * 3
