"""A sick upstream behind the gateway: breakers, retries and several deployments."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest

from tests.support.clients import RawClient
from tests.support.gateway_app import asking, events_of, serving, text_of
from tests.support.policies import CHEAP, DEAR, one_model, policy, remote
from tests.support.replies import Says, in_turn, refusal
from tests.support.scripted_upstream import (
    FIN,
    STREAM_HEAD,
    Hold,
    ScriptedUpstream,
    chunk,
    event,
    stream,
)

ANSWER = Says("one two three four", tokens=(10, 4))
ILL = [refusal("500 Internal Server Error", "ouch")]
BUSY = [refusal("429 Too Many Requests", "slow down", retry_after="1800")]
SOON = {"base": "1ms", "per_second": 100}


def _ill(_):
    return ILL


BOTH = pytest.mark.parametrize("stream", [False, True])


def _text(response):
    if response.headers["content-type"].startswith("text/event-stream"):
        return text_of(events_of(response))
    return response.json()["choices"][0]["message"]["content"]


def _several(*urls, **route):
    """Return a policy whose route `auto` is one model on several servers."""
    model = {
        "provider": "openai",
        "price": CHEAP,
        "deployments": [{"base_url": url} for url in urls],
    }
    return policy({"large": model}, {"auto": {"model": "large", **route}})


# Retries


@BOTH
async def test_a_failure_before_the_first_part_is_retried_and_each_attempt_is_a_line(
    tmp_path, stream
):
    async with (
        ScriptedUpstream(in_turn(_ill, ANSWER)) as upstream,
        serving(one_model(upstream.url, retries=SOON), tmp_path) as gateway,
    ):
        response = await gateway.chat(stream=stream)
        row = gateway.books.entry()
        lines = gateway.books.lines(row["request_id"])
        again = await gateway.chat(stream=stream)

    assert _text(response) == ANSWER.text
    assert row["path"] == "large:unavailable:retried,large:served"
    assert [line["outcome"] for line in lines] == ["unavailable", "accepted"]
    assert [line["purpose"] for line in lines] == ["serve", "serve"]
    assert [line["cost_nano_usd"] for line in lines] == [0, 10 * 1000 + 4 * 2000]
    assert row["cost_nano_usd"] == 18_000
    assert again.headers["x-cache"] == "exact"


async def test_no_more_attempts_than_the_policy_allows_then_the_error_as_it_was(tmp_path):
    async with (
        ScriptedUpstream([ILL]) as upstream,
        serving(one_model(upstream.url, retries={**SOON, "attempts": 3}), tmp_path) as gateway,
    ):
        response = await gateway.chat()
        row = gateway.books.entry()

    assert response.status_code == 503
    assert response.json()["error"]["code"] == "upstream_unavailable"
    assert len(upstream.requests) == 3
    retried = "large:unavailable:retried"
    assert row["path"] == f"{retried},{retried},large:unavailable:failed"


async def test_retries_of_all_requests_share_one_budget(tmp_path):
    retries = {"base": "1ms", "budget": 0.25, "per_second": 0}
    async with (
        ScriptedUpstream([ILL]) as upstream,
        serving(one_model(upstream.url, retries=retries, cache=None), tmp_path) as gateway,
    ):
        for _ in range(20):
            await gateway.chat()

    assert len(upstream.requests) <= 25


@pytest.mark.parametrize(
    "script",
    [
        [refusal("400 Bad Request", "no such thing")],
        [refusal("401 Unauthorized", "who are you")],
        [refusal("429 Too Many Requests", "pay first", code="insufficient_quota")],
        BUSY,
    ],
    ids=["rejected", "credentials", "quota", "long wait"],
)
async def test_what_would_fail_again_is_not_retried(tmp_path, script):
    async with (
        ScriptedUpstream([script]) as upstream,
        serving(one_model(upstream.url, retries=SOON), tmp_path) as gateway,
    ):
        response = await gateway.chat()

    assert response.status_code >= 400
    assert len(upstream.requests) == 1


async def test_half_an_answer_is_never_retried(tmp_path):
    cut = [*ANSWER.until(2), FIN]
    async with (
        ScriptedUpstream([cut]) as upstream,
        serving(one_model(upstream.url, retries=SOON), tmp_path) as gateway,
    ):
        events = events_of(await gateway.chat(stream=True))

    assert "error" in events[-1]
    assert len(upstream.requests) == 1


# Breaker


async def test_an_open_breaker_fails_at_once_and_the_fallback_answers(tmp_path):
    async with ScriptedUpstream([ILL]) as ill, ScriptedUpstream(ANSWER) as well:
        models = {"large": remote(ill.url, price=DEAR), "spare": remote(well.url, price=CHEAP)}
        breaker = {"consecutive": 3, "open_for": "1h"}
        route = {"model": "large", "fallback": ["spare"], "breaker": breaker}
        async with serving(policy(models, {"auto": route}), tmp_path) as gateway:
            paths = [(await gateway.chat()).headers["x-frugal-path"] for _ in range(5)]
            lines = gateway.books.lines(gateway.books.entries()[-1]["request_id"])

    assert len(ill.requests) == 3
    assert paths[2] == "large:unavailable:failed,spare:fallback"
    assert paths[3:] == ["large:circuit_open:failed,spare:fallback"] * 2
    assert [line["outcome"] for line in lines] == ["circuit_open", "accepted"]
    assert lines[0]["cost_nano_usd"] == lines[0]["upper_nano_usd"] == 0


async def test_without_a_fallback_an_open_breaker_says_when_to_come_again(tmp_path):
    async with (
        ScriptedUpstream([ILL]) as upstream,
        serving(
            one_model(upstream.url, breaker={"consecutive": 1, "open_for": "90s"}), tmp_path
        ) as gateway,
    ):
        await gateway.chat()
        response = await gateway.chat()

    assert response.status_code == 503
    assert response.json()["error"]["code"] == "circuit_open"
    assert 80 <= int(response.headers["retry-after"]) <= 90
    assert len(upstream.requests) == 1


async def test_the_breaker_closes_with_the_first_probe_that_is_answered(tmp_path):
    breaker = {"consecutive": 2, "open_for": "1ms"}
    async with (
        ScriptedUpstream(in_turn(_ill, _ill, ANSWER)) as upstream,
        serving(one_model(upstream.url, breaker=breaker, cache=None), tmp_path) as gateway,
    ):
        statuses = [(await gateway.chat()).status_code for _ in range(5)]

    assert statuses == [503, 503, 200, 200, 200]


async def test_a_client_that_leaves_and_a_request_at_fault_open_no_breaker(tmp_path):
    scripts = in_turn(lambda _: [Hold()], lambda _: [refusal("400 Bad Request", "no")], ANSWER)
    breaker = {"consecutive": 1, "open_for": "1h"}
    async with (
        ScriptedUpstream(scripts) as upstream,
        serving(one_model(upstream.url, breaker=breaker), tmp_path) as gateway,
    ):
        async with RawClient(gateway.port) as client:
            await client.post(asking())
            await upstream.until(lambda: upstream.requests)
            client.leave()
            await upstream.until_gone()
        rejected = await gateway.chat("two")
        response = await gateway.chat("three")

    assert rejected.status_code == 400
    assert response.status_code == 200


# Deployments


async def test_a_failed_call_is_repeated_on_another_deployment(tmp_path):
    async with (
        ScriptedUpstream([BUSY]) as ill,
        ScriptedUpstream(ANSWER) as well,
        serving(_several(ill.url, well.url, retries=SOON), tmp_path) as gateway,
    ):
        responses = [await gateway.chat() for _ in range(20)]
        paths = Counter(response.headers["x-frugal-path"] for response in responses)

    assert {response.status_code for response in responses} == {200}
    assert len(ill.requests) <= 1
    assert paths["large:served"] >= 19


async def test_each_deployment_has_its_own_key_or_the_models(tmp_path):
    async with ScriptedUpstream(ANSWER) as first, ScriptedUpstream(ANSWER) as second:
        text = json.loads(_several(first.url, second.url))
        model = text["models"]["large"]
        model |= {"api_key": "sk-shared", "balance": "weight"}
        model["deployments"][0]["api_key"] = "sk-own"
        async with serving(json.dumps(text), tmp_path) as gateway:
            for _ in range(40):
                await gateway.chat()

    assert {r.headers["authorization"] for r in first.requests} == {"Bearer sk-own"}
    assert {r.headers["authorization"] for r in second.requests} == {"Bearer sk-shared"}


# Hedging

HEDGE = {"after": "1ms", "per_second": 100}


async def test_a_stream_that_does_not_begin_is_asked_for_once_more(tmp_path):
    async with (
        ScriptedUpstream(in_turn(lambda _: [Hold()], ANSWER)) as upstream,
        serving(one_model(upstream.url, hedge=HEDGE), tmp_path) as gateway,
    ):
        response = await gateway.chat(stream=True)
        await upstream.until_gone()
        row = gateway.books.entry()
        lines = gateway.books.lines(row["request_id"])

    assert text_of(events_of(response)) == ANSWER.text
    assert row["path"] == response.headers["x-frugal-path"] == "large:outrun,large:hedged"
    assert [(line["purpose"], line["outcome"]) for line in lines] == [
        ("serve", "abandoned"),
        ("hedge", "accepted"),
    ]
    assert lines[1]["cost_nano_usd"] == 18_000
    assert lines[0]["lower_nano_usd"] == 0
    assert lines[0]["upper_nano_usd"] >= 18_000 - 8_000
    assert row["lower_nano_usd"] <= row["cost_nano_usd"] <= row["upper_nano_usd"]


async def test_the_first_call_may_still_win_against_its_hedge(tmp_path):
    hold = Hold()
    async with (
        ScriptedUpstream(
            in_turn(lambda _: [hold, *ANSWER.until(2), *ANSWER.since(2)], lambda _: [Hold()])
        ) as upstream,
        serving(one_model(upstream.url, hedge=HEDGE), tmp_path) as gateway,
    ):
        asked = asyncio.create_task(gateway.chat(stream=True))
        await upstream.until(lambda: len(upstream.requests) == 2)
        hold.release()
        response = await asked
        lines = gateway.books.lines(gateway.books.entry()["request_id"])

    assert text_of(events_of(response)) == ANSWER.text
    assert response.headers["x-frugal-path"] == "large:served"
    assert [line["outcome"] for line in lines] == ["accepted", "abandoned"]


async def test_half_an_answer_of_a_hedge_is_final_too(tmp_path):
    scripts = in_turn(lambda _: [Hold()], lambda _: [*ANSWER.until(2), FIN], ANSWER)
    async with (
        ScriptedUpstream(scripts) as upstream,
        serving(one_model(upstream.url, hedge=HEDGE, retries=SOON), tmp_path) as gateway,
    ):
        events = events_of(await gateway.chat(stream=True))
        row = gateway.books.entry()

    assert "error" in events[-1]
    assert len(upstream.requests) == 2
    assert row["path"].endswith("large:broken:failed")


async def test_a_whole_answer_is_not_hedged(tmp_path):
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(one_model(upstream.url, hedge=HEDGE), tmp_path) as gateway,
    ):
        assert (await gateway.chat()).status_code == 200

    assert len(upstream.requests) == 1


# The point of no return is the first word


ROLE = event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})


@pytest.mark.parametrize("route", [{"retries": SOON}, {"fallback": ["spare"]}], ids=str)
async def test_a_stream_that_breaks_after_the_role_alone_is_mended(tmp_path, route):
    cut = [STREAM_HEAD, chunk(ROLE), FIN]
    async with ScriptedUpstream(in_turn(lambda _: cut, ANSWER)) as upstream:
        models = {"large": remote(upstream.url), "spare": remote(upstream.url)}
        text = policy(models, {"auto": {"model": "large", **route}})
        async with serving(text, tmp_path) as gateway:
            events = events_of(await gateway.chat(stream=True))

    assert text_of(events) == ANSWER.text
    assert events[-1] == "[DONE]"
    assert len(upstream.requests) == 2


async def test_a_role_is_sent_with_the_first_word(tmp_path):
    async with (
        ScriptedUpstream([stream(ROLE, *ANSWER.events())]) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
    ):
        response = await gateway.chat(stream=True, stream_options={"include_usage": True})

    assert response.content == b"".join([ROLE, *ANSWER.events()]) + b"data: [DONE]\n\n"
