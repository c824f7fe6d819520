"""`idempotency-key`: a request that is sent again is answered again, and paid for once."""

from __future__ import annotations

import asyncio
import json
import stat
import sys

import pytest

from gateway.clock import Clock
from gateway.turns import Turns
from tests.support.gateway_app import events_of, serving, text_of
from tests.support.policies import KEPT, one_model, policy, remote
from tests.support.redis_server import RedisServer, with_redis
from tests.support.replies import Says
from tests.support.scripted_upstream import RST, Hold, ScriptedUpstream, answer, stream

HOLDS = """
import asyncio, os, signal, sys
from pathlib import Path
from gateway.turns import Turns

async def main():
    async with Turns(Path(sys.argv[1])).taken("a"):
        print("mine", flush=True)
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
ONCE = {"idempotency-key": "order-1"}
SAYS = Says("one two three")


def uncached(url, **more):
    """Return a policy without a cache, so that nothing but the key spares a call."""
    return one_model(url, cache=None, **more)


async def test_a_repetition_gets_the_same_answer_and_pays_nothing(tmp_path):
    async with (
        ScriptedUpstream(SAYS) as upstream,
        serving(uncached(upstream.url), tmp_path) as gateway,
    ):
        first = await gateway.chat(headers=ONCE)
        again = await gateway.chat(headers=ONCE)
        other = await gateway.chat(headers={"idempotency-key": "order-2"})
        paid, replayed, _ = gateway.books.entries()

    assert len(upstream.requests) == 2
    assert first.content == again.content
    assert other.status_code == 200
    assert "x-frugal-replayed" not in first.headers
    assert again.headers["x-frugal-replayed"] == "true"
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert again.headers["x-frugal-model"] == "large"
    assert paid["cost_nano_usd"] > 0
    assert (replayed["cost_nano_usd"], replayed["saved_nano_usd"]) == (0, 0)
    assert (replayed["cache"], replayed["state"]) == ("bypass", "settled")


@pytest.mark.parametrize(("before", "after"), [(True, True), (True, False), (False, True)])
async def test_a_repetition_is_streamed_or_whole_as_it_asks(tmp_path, before, after):
    async with (
        ScriptedUpstream(SAYS) as upstream,
        serving(uncached(upstream.url), tmp_path) as gateway,
    ):
        await gateway.chat(headers=ONCE, stream=before)
        again = await gateway.chat(headers=ONCE, stream=after)

    assert len(upstream.requests) == 1
    if after:
        events = events_of(again)
        assert events[-1] == "[DONE]"
        assert text_of(events) == "one two three"
    else:
        assert again.json()["choices"][0]["message"]["content"] == "one two three"


async def test_fifty_at_once_are_one_call(tmp_path):
    hold = Hold()
    script = stream(*SAYS.events())
    async with (
        ScriptedUpstream([[*script[:2], hold, *script[2:]]]) as upstream,
        serving(uncached(upstream.url), tmp_path) as gateway,
    ):
        asking = [asyncio.create_task(gateway.chat(headers=ONCE, stream=True)) for _ in range(50)]
        await gateway.until_under_way(50)
        await hold.reached.wait()
        hold.release()
        answers = await asyncio.gather(*asking)

    assert len(upstream.requests) == 1
    assert {text_of(events_of(each)) for each in answers} == {"one two three"}
    assert sum(row["cost_nano_usd"] > 0 for row in gateway.books.entries()) == 1


async def test_workers_that_share_a_ledger_pay_once_between_them(tmp_path):
    hold = Hold()
    async with ScriptedUpstream([[hold, answer(SAYS.body())]]) as upstream:
        text = uncached(upstream.url)
        async with serving(text, tmp_path) as one, serving(text, tmp_path) as two:
            first = asyncio.create_task(one.chat(headers=ONCE))
            await hold.reached.wait()
            second = asyncio.create_task(two.chat(headers=ONCE))
            third = asyncio.create_task(two.chat(headers=ONCE, stream=True))
            await two.until_under_way(2)
            hold.release()
            answers = await asyncio.gather(first, second, third)
            other = await two.chat("other", headers=ONCE)

    assert len(upstream.requests) == 1
    assert [each.status_code for each in answers] == [200] * 3
    assert answers[0].content == answers[1].content
    assert text_of(events_of(answers[2])) == "one two three"
    replayed = [each.headers.get("x-frugal-replayed") for each in answers]
    assert replayed == [None, "true", "true"]
    assert other.status_code == 422
    assert list((tmp_path / "ledger.db-turns").iterdir()) == []


async def test_a_worker_that_dies_gives_its_turn_to_another(tmp_path):
    turns = Turns(tmp_path / "turns")
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "turns")]
    pipe = asyncio.subprocess.PIPE
    other = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    await other.stdout.readline()
    assert turns._take(tmp_path / "turns" / "a") is None
    other.stdin.close()
    await other.wait()
    async with turns.taken("a") as has_waited:
        assert not has_waited


async def test_a_key_used_for_another_body_is_refused(tmp_path):
    hold = Hold()
    async with (
        ScriptedUpstream([[hold, answer(SAYS.body())]]) as upstream,
        serving(uncached(upstream.url), tmp_path) as gateway,
    ):
        first = asyncio.create_task(gateway.chat("a", headers=ONCE))
        await hold.reached.wait()
        meanwhile = await gateway.chat("b", headers=ONCE)
        hold.release()
        await first
        afterwards = await gateway.chat("b", headers=ONCE, stream=True)

    for refused in (meanwhile, afterwards):
        assert refused.status_code == 422
        assert refused.json()["error"]["code"] == "idempotency_key_reused"
        assert refused.json()["error"]["param"] == "idempotency-key"
    assert len(upstream.requests) == 1
    assert len(gateway.books.entries()) == 1


async def test_keys_of_different_callers_are_different_keys(tmp_path):
    keys = [
        {"name": "a", "tenant": "red", "key": "sk-0123456789abcdef"},
        {"name": "b", "tenant": "red", "key": "sk-0123456789abcdeg"},
        {"name": "a2", "tenant": "blue", "key": "sk-0123456789abcdeh"},
    ]
    async with ScriptedUpstream(SAYS) as upstream:
        text = policy({"large": remote(upstream.url)}, access={"keys": keys})
        async with serving(text, tmp_path) as gateway:
            for key in keys:
                headers = ONCE | {"authorization": f"Bearer {key['key']}"}
                response = await gateway.chat(model="large", headers=headers)
                assert "x-frugal-replayed" not in response.headers

    assert len(upstream.requests) == 3


async def test_a_failure_is_not_replayed(tmp_path):
    async with (
        ScriptedUpstream([[RST], [answer(SAYS.body())]]) as upstream,
        serving(uncached(upstream.url), tmp_path) as gateway,
    ):
        failed = await gateway.chat(headers=ONCE)
        served = await gateway.chat(headers=ONCE)
        again = await gateway.chat(headers=ONCE)

    assert [r.status_code for r in (failed, served, again)] == [503, 200, 200]
    assert "x-frugal-replayed" not in served.headers
    assert len(upstream.requests) == 2


async def test_a_stream_that_broke_off_is_not_replayed(tmp_path):
    events = SAYS.events()
    broken = [*stream(*events)[:2], RST]
    async with (
        ScriptedUpstream([broken, stream(*events)]) as upstream,
        serving(uncached(upstream.url), tmp_path) as gateway,
    ):
        first = await gateway.chat(headers=ONCE, stream=True)
        second = await gateway.chat(headers=ONCE, stream=True)

    assert events_of(first)[-1] != "[DONE]"
    assert text_of(events_of(second)) == "one two three"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_lost_its_connection_finds_its_answer(tmp_path, streamed):
    hold = Hold()
    script = [*SAYS.until(1), hold, *SAYS.since(1)] if streamed else [hold, answer(SAYS.body())]
    async with (
        ScriptedUpstream([script]) as upstream,
        serving(uncached(upstream.url), tmp_path) as gateway,
    ):
        lost = asyncio.create_task(gateway.chat(headers=ONCE, stream=streamed))
        await hold.reached.wait()
        lost.cancel()
        await gateway.until_gone(1)
        hold.release()
        (row,) = await gateway.books.until(1)
        again = await gateway.chat(headers=ONCE)

    assert row["state"] == "settled"
    assert again.headers["x-frugal-replayed"] == "true"
    assert len(upstream.requests) == 1


async def test_answers_are_there_after_a_restart_and_nobody_elses_to_read(tmp_path):
    async with ScriptedUpstream(SAYS) as upstream:
        for _ in range(2):
            async with serving(uncached(upstream.url), tmp_path) as gateway:
                response = await gateway.chat(headers=ONCE, stream=True)
        async with serving(uncached(upstream.url), tmp_path) as gateway:
            refused = await gateway.chat("other", headers=ONCE)

    assert response.headers["x-frugal-replayed"] == "true"
    assert text_of(events_of(response)) == "one two three"
    assert refused.status_code == 422
    assert len(upstream.requests) == 1
    kept = tmp_path / "ledger.db-replies"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


async def test_a_day_later_the_key_is_new(tmp_path):
    now = [1_800_000_000.0]
    clock = Clock(wall=lambda: now[0], tick=lambda: now[0])
    async with (
        ScriptedUpstream(SAYS) as upstream,
        serving(uncached(upstream.url), tmp_path, clock=clock) as gateway,
    ):
        await gateway.chat("a", headers=ONCE)
        now[0] += 86_401
        later = await gateway.chat("b", headers=ONCE)

    assert later.status_code == 200
    assert len(upstream.requests) == 2


async def test_no_store_shares_the_call_and_keeps_nothing(tmp_path):
    headers = ONCE | {"cache-control": "no-store"}
    async with (
        ScriptedUpstream(SAYS) as upstream,
        serving(uncached(upstream.url), tmp_path) as gateway,
    ):
        await gateway.chat(headers=headers)
        await gateway.chat(headers=headers)

    assert len(upstream.requests) == 2
    assert not (tmp_path / "ledger.db-replies").exists()


async def test_the_cache_serves_the_first_and_the_key_the_second(tmp_path):
    async with (
        ScriptedUpstream(SAYS) as upstream,
        serving(one_model(upstream.url, cache=KEPT), tmp_path) as gateway,
    ):
        await gateway.chat()
        hit = await gateway.chat(headers=ONCE)
        again = await gateway.chat(headers=ONCE)

    assert (hit.headers["x-cache"], again.headers["x-cache"]) == ("exact", "bypass")
    assert again.headers["x-frugal-replayed"] == "true"
    assert len(upstream.requests) == 1


async def test_a_budget_that_is_gone_refuses_a_new_key_and_replays_an_old_one(tmp_path):
    budget = {"budget": {"usd": 0.00003, "per": "total"}}
    async with ScriptedUpstream(Says("x", tokens=(10, 5))) as upstream:
        price = {"input_per_mtok_usd": 0.01, "output_per_mtok_usd": 2}
        text = policy({"m": remote(upstream.url, price=price)}, limits=budget)
        async with serving(text, tmp_path) as gateway:
            first = await gateway.chat(model="m", max_tokens=5, headers=ONCE)
            fresh = {"idempotency-key": "order-2"}
            refused = await gateway.chat("b", model="m", max_tokens=5000, headers=fresh)
            again = await gateway.chat(model="m", max_tokens=5, headers=ONCE)

    assert [r.status_code for r in (first, refused, again)] == [200, 429, 200]
    assert again.headers["x-frugal-replayed"] == "true"


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there"])
async def test_a_key_that_is_none_is_refused(tmp_path, key):
    async with serving(uncached("http://127.0.0.1:1/v1"), tmp_path) as gateway:
        response = await gateway.chat(headers={"idempotency-key": key})

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "idempotency-key"


async def test_gateways_that_share_a_redis_share_repetitions(tmp_path):
    hold = Hold()
    script = stream(*SAYS.events())
    with RedisServer(tmp_path) as redis:
        async with ScriptedUpstream([[*script[:2], hold, *script[2:]]]) as upstream:
            text = json.dumps(with_redis(json.loads(policy({"m": remote(upstream.url)})), redis))
            one, two = tmp_path / "one", tmp_path / "two"
            one.mkdir()
            two.mkdir()
            async with serving(text, one) as here, serving(text, two) as there:
                first = asyncio.create_task(here.chat(model="m", headers=ONCE, stream=True))
                await hold.reached.wait()
                second = asyncio.create_task(there.chat(model="m", headers=ONCE, stream=True))
                await there.until_under_way(1)
                other = await there.chat("other", model="m", headers=ONCE)
                hold.release()
                answers = await asyncio.gather(first, second)
                third = await there.chat(model="m", headers=ONCE)

    assert len(upstream.requests) == 1
    assert {text_of(events_of(each)) for each in answers} == {"one two three"}
    assert other.status_code == 422
    assert third.headers["x-frugal-replayed"] == "true"
