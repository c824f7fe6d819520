"""Rate limits and concurrency as clients meet them, over real sockets."""

from __future__ import annotations

import asyncio

import openai
import pytest

from gateway.clock import Clock
from tests.support.gateway_app import serving
from tests.support.policies import CHEAP, KEPT, policy, remote
from tests.support.replies import Says
from tests.support.scripted_upstream import Hold, ScriptedUpstream, answer

ANSWER = Says("The answer is 12", tokens=(10, 5))
KEYS = {
    "access": {
        "keys": [
            {"name": "a", "tenant": "one", "key": "key-a"},
            {"name": "b", "tenant": "one", "key": "key-b"},
            {"name": "c", "tenant": "two", "key": "key-c", "limits": {"requests_per_minute": 1}},
        ]
    }
}


class Time:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_795_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time():
    return Time()


@pytest.fixture
async def upstream():
    async with ScriptedUpstream(ANSWER) as server:
        yield server


@pytest.fixture
def served(upstream, tmp_path, time):
    def start(limits, *, model=None, route=None, cache=None, **more):
        models = {"m": remote(upstream.url, price=CHEAP, **(model or {}))}
        routes = {"auto": {"model": "m", **({"cache": cache} if cache else {}), **(route or {})}}
        text = policy(models, routes, **({"limits": limits} if limits else {}), **more)
        return serving(text, tmp_path, clock=Clock(wall=time, tick=time))

    return start


def _as(key):
    return {"authorization": f"Bearer {key}"}


# Requests


async def test_requests_past_the_limit_are_refused_until_their_time_has_come(served, time):
    async with served({"requests_per_minute": 3}) as gateway:
        statuses = [(await gateway.chat(str(i))).status_code for i in range(4)]
        refused = await gateway.chat("again")
        time.now += float(refused.headers["retry-after"])
        later = await gateway.chat("later")

    assert statuses == [200, 200, 200, 429]
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.headers["retry-after"] == "20"
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert later.status_code == 200


async def test_every_answer_says_what_is_left_as_openai_does(served):
    async with served({"requests_per_minute": 60, "tokens_per_minute": 6000}) as gateway:
        headers = (await gateway.chat(max_tokens=100)).headers
        streamed = (await gateway.chat("two", max_tokens=100, stream=True)).headers

    assert headers["x-ratelimit-limit-requests"] == "60"
    assert headers["x-ratelimit-remaining-requests"] == "59"
    assert headers["x-ratelimit-reset-requests"] == "1s"
    assert headers["x-ratelimit-limit-tokens"] == "6000"
    assert 5800 < int(headers["x-ratelimit-remaining-tokens"]) <= 5900
    assert streamed["x-ratelimit-remaining-requests"] == "58"


async def test_without_limits_no_answer_carries_their_headers(served):
    async with served(None) as gateway:
        headers = (await gateway.chat()).headers

    assert not [name for name in headers if name.startswith("x-ratelimit")]


async def test_a_thousand_at_once_are_admitted_exactly_to_the_burst(served, upstream):
    async with served({"requests_per_minute": 40}) as gateway:
        replies = await asyncio.gather(*(gateway.chat(str(i)) for i in range(200)))

    assert [reply.status_code for reply in replies].count(200) == 40
    assert len(upstream.requests) == 40


async def test_keys_have_limits_of_their_own_and_a_tenant_one_for_all_of_its_keys(served):
    limits = {"requests_per_minute": 2, "tenants": {"one": {"requests_per_minute": 3}}}
    async with served(limits, **KEYS) as gateway:

        async def ask(key):
            return (await gateway.chat(key, headers=_as(key))).status_code

        first = [await ask("key-a") for _ in range(3)]
        second = [await ask("key-b") for _ in range(2)]
        third = [await ask("key-c") for _ in range(2)]

    assert first == [200, 200, 429]
    assert second == [200, 429]  # its own limit is two, but its tenant has one left
    assert third == [200, 429]


async def test_a_route_has_a_limit_for_all_who_use_it(served):
    async with served(None, route={"limits": {"requests_per_minute": 1}}) as gateway:
        on_route = [(await gateway.chat(str(i))).status_code for i in range(2)]
        directly = (await gateway.chat(model="m")).status_code

    assert on_route == [200, 429]
    assert directly == 200


async def test_what_one_limit_refuses_is_not_taken_from_the_others(served):
    limits = {"requests_per_minute": 100, "tenants": {"one": {"requests_per_minute": 1}}}
    async with served(limits, **KEYS) as gateway:
        for _ in range(5):
            last = await gateway.chat(headers=_as("key-a"))

    assert last.status_code == 429
    assert "tenant 'one'" in last.json()["error"]["message"]


async def test_openais_client_raises_its_own_error(served):
    async with served({"requests_per_minute": 1}) as gateway:
        client = openai.AsyncOpenAI(api_key="x", base_url=f"{gateway.url}/v1", max_retries=0)
        ask = client.chat.completions.create
        await ask(model="auto", messages=[{"role": "user", "content": "a"}])
        with pytest.raises(openai.RateLimitError) as caught:
            await ask(model="auto", messages=[{"role": "user", "content": "b"}], stream=True)
        await client.close()

    assert caught.value.code == "rate_limit_exceeded"


async def test_a_refusal_is_counted_and_no_line_of_the_ledger(served):
    async with served({"requests_per_minute": 1}) as gateway:
        await gateway.chat("a")
        for stream in (False, True):
            await gateway.chat("b", stream=stream)
        await gateway.chat("a")  # known to the cache, and refused all the same
        counted = (await gateway.admin.get("/admin/refusals")).json()["data"]
        (entry,) = gateway.books.entries()

    assert entry["state"] == "settled"
    assert counted == [
        {"code": "rate_limit_exceeded", "tenant": "default", "key": "anonymous", "requests": 3}
    ]


# Tokens


async def test_tokens_are_reserved_at_first_and_trued_up_at_the_end(served):
    async with served({"tokens_per_minute": 1000}) as gateway:
        first = await gateway.chat("a", max_tokens=900)
        second = await gateway.chat("b", max_tokens=900)

    assert int(first.headers["x-ratelimit-remaining-tokens"]) < 100
    assert second.status_code == 200  # the first came to 15
    assert 0 < int(second.headers["x-ratelimit-remaining-tokens"]) < 100


async def test_an_answer_that_is_longer_than_reserved_is_paid_off_before_the_next(tmp_path, time):
    async with ScriptedUpstream(Says("long", tokens=(10, 5000))) as upstream:
        models = {"m": remote(upstream.url)}
        limits = {"tokens_per_minute": 1000}
        text = policy(models, limits=limits)
        async with serving(text, tmp_path, clock=Clock(wall=time, tick=time)) as gateway:
            first = await gateway.chat(model="m", max_tokens=10)
            second = await gateway.chat("b", model="m", max_tokens=10)

    assert first.status_code == 200
    assert second.status_code == 429
    assert int(second.headers["retry-after"]) > 200


async def test_a_prompt_of_more_than_a_minutes_worth_is_told_that_no_wait_will_help(served):
    async with served({"tokens_per_minute": 100}) as gateway:
        refused = await gateway.chat("word " * 500)

    assert refused.status_code == 429
    assert "shorten" in refused.json()["error"]["message"]
    assert "retry-after" not in refused.headers
    assert refused.headers["x-should-retry"] == "false"


async def test_a_hit_takes_a_request_and_no_tokens(served):
    limits = {"requests_per_minute": 10, "tokens_per_minute": 1000}
    async with served(limits, cache=KEPT) as gateway:
        await gateway.chat(max_tokens=900)
        hit = await gateway.chat(max_tokens=900)

    assert hit.headers["x-cache"] == "exact"
    assert hit.headers["x-ratelimit-remaining-requests"] == "8"
    assert "x-ratelimit-remaining-tokens" not in hit.headers


# At once


async def test_so_many_at_once_and_the_next_when_one_has_ended(tmp_path):
    hold = Hold()
    async with ScriptedUpstream([[hold, answer(ANSWER.body())]]) as upstream:
        text = policy({"m": remote(upstream.url)}, limits={"concurrent": 2})
        async with serving(text, tmp_path) as gateway:
            running = [asyncio.create_task(gateway.chat(str(i), model="m")) for i in range(2)]
            await upstream.until(lambda: len(upstream.requests) == 2)
            refused = await gateway.chat("third", model="m")
            hold.release()
            done = [(await task).status_code for task in running]
            after = await gateway.chat("fourth", model="m")

    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert done == [200, 200]
    assert after.status_code == 200


async def test_a_client_that_leaves_makes_room(tmp_path):
    hold = Hold()
    async with ScriptedUpstream([[hold], [answer(ANSWER.body())]]) as upstream:
        text = policy({"m": remote(upstream.url)}, limits={"concurrent": 1})
        async with serving(text, tmp_path) as gateway:
            task = asyncio.create_task(gateway.chat(model="m"))
            await upstream.until(lambda: len(upstream.requests) == 1)
            task.cancel()
            await gateway.books.until(1)
            after = await gateway.chat("next", model="m")

    assert after.status_code == 200


# Models


async def test_a_model_at_its_limit_is_passed_over_for_the_fallback(upstream, tmp_path):
    limited = remote(upstream.url, limits={"requests_per_minute": 1})
    routes = {"auto": {"model": "m", "fallback": ["spare"]}}
    text = policy({"m": limited, "spare": remote(upstream.url)}, routes)
    async with serving(text, tmp_path) as gateway:
        paths = [(await gateway.chat(str(i))).headers["x-frugal-path"] for i in range(2)]

    assert paths == ["m:served", "m:limited:failed,spare:fallback"]


async def test_a_model_at_its_limit_with_nothing_behind_it_is_a_429(served):
    async with served(None, model={"limits": {"requests_per_minute": 1}}) as gateway:
        await gateway.chat("a")
        refused = await gateway.chat("b")

    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "60"


async def test_those_who_are_nobody_are_counted_and_are_no_lines_of_the_ledger(tmp_path):
    key = {"name": "ci", "tenant": "red", "key": "sk-0123456789abcdef", "scopes": ["large"]}
    boss = {"name": "boss", "key": "sk-fedcba9876543210", "scopes": ["admin"]}
    async with ScriptedUpstream(Says("x")) as upstream:
        models = {"large": remote(upstream.url), "other": remote(upstream.url)}
        text = policy(models, access={"keys": [key, boss]})
        async with serving(text, tmp_path) as gateway:
            known = {"authorization": f"Bearer {key['key']}"}
            for model, headers in (
                ("large", {}),
                ("large", {"authorization": "Bearer sk-guess"}),
                ("nothing", known),
                ("other", known),
            ):
                await gateway.chat(model=model, headers=headers)
            entries = gateway.books.entries()
            admin = {"authorization": f"Bearer {boss['key']}"}
            report = (await gateway.admin.get("/admin/refusals", headers=admin)).json()["data"]

    assert entries == []
    assert {row["code"]: row["requests"] for row in report} == {
        "invalid_api_key": 2,
        "model_not_found": 1,
        "not_allowed": 1,
    }
