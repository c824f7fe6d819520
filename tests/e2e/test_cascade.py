"""A cascade of two tiers over HTTP: who answers, what it costs, and what nobody gets to see."""

from __future__ import annotations

import math

import pytest

from tests.support.gateway_app import events_of, serving, text_of
from tests.support.policies import CHEAP, DEAR, policy, remote, two_tiers
from tests.support.replies import Says, refusal
from tests.support.scripted_upstream import FIN, RST, Hold, ScriptedUpstream, answer

SURE = Says("a sure draft", tokens=(10, 3), logprobs=[-0.01, -0.02, -0.05], name="small-up")
UNSURE = Says("SECRET draft words", tokens=(10, 3), logprobs=[-0.1, -3.0, -0.1], name="small-up")
BEST = Says("the large answer", tokens=(11, 4), name="large-up")
EARLY = {"kind": "logprob", "threshold": 0.8, "early": {"after_tokens": 2, "threshold": 0.5}}


@pytest.fixture
async def large():
    async with ScriptedUpstream(BEST) as server:
        yield server


# Verdicts


@pytest.mark.parametrize("stream", [False, True])
async def test_a_sure_draft_is_served_and_the_large_model_never_asked(tmp_path, large, stream):
    async with (
        ScriptedUpstream(SURE) as small,
        serving(two_tiers(small.url, large.url), tmp_path) as gateway,
    ):
        response = await gateway.chat(stream=stream)

    sure = math.exp(-0.05)
    said = text_of(events_of(response)) if stream else response.json()["choices"][0]["message"]
    assert (said if stream else said["content"]) == "a sure draft"
    assert response.headers["x-frugal-model"] == "small"
    assert response.headers["x-frugal-path"] == f"small:{sure:.2f}:accepted"
    assert not large.requests
    assert b'"logprob"' not in response.content
    row = gateway.books.entry()
    assert row["cost_nano_usd"] == 10 * 1_000 + 3 * 2_000
    assert row["saved_nano_usd"] == (10 * 10_000 + 3 * 20_000) - row["cost_nano_usd"]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unsure_draft_escalates_and_not_a_byte_of_it_is_seen(tmp_path, large, stream):
    async with (
        ScriptedUpstream(UNSURE) as small,
        serving(two_tiers(small.url, large.url), tmp_path) as gateway,
    ):
        response = await gateway.chat(stream=stream, stream_options={"include_cost": True})
        again = await gateway.chat(stream=not stream)

    assert b"SECRET" not in response.content
    assert "SECRET" not in str(response.headers)
    assert b"small-up" not in response.content
    assert response.headers["x-frugal-model"] == "large"
    assert response.headers["x-frugal-path"] == f"small:{math.exp(-3):.2f}:escalated,large:served"
    assert again.headers["x-cache"] == "exact"
    assert b"SECRET" not in again.content
    first, _ = gateway.books.entries()
    lines = gateway.books.lines(first["request_id"])
    assert [(x["outcome"], x["cost_nano_usd"]) for x in lines] == [
        ("rejected", 10_000 + 6_000),
        ("accepted", 110_000 + 80_000),
    ]
    assert first["cost_nano_usd"] == 206_000
    assert first["saved_nano_usd"] == 190_000 - 206_000


async def test_log_probabilities_reach_only_who_asked_for_them(tmp_path, large):
    async with (
        ScriptedUpstream(SURE) as small,
        serving(two_tiers(small.url, large.url), tmp_path) as gateway,
    ):
        response = await gateway.chat(logprobs=True, top_logprobs=1)

    told = response.json()["choices"][0]["logprobs"]["content"]
    assert [len(token["top_logprobs"]) for token in told] == [1, 1, 1]
    assert [token["logprob"] for token in told] == [-0.01, -0.02, -0.05]


async def test_an_early_rejection_cancels_the_upstream_in_mid_decode(tmp_path, large):
    hold = Hold()

    def stuck(received):
        return [*UNSURE.until(2, has_logprobs=True), hold]

    async with (
        ScriptedUpstream(stuck) as small,
        serving(
            two_tiers(small.url, large.url, cascade={"confidence": EARLY}), tmp_path
        ) as gateway,
    ):
        response = await gateway.chat()
        await small.until_gone()

    assert small.requests[0].json["stream"] is True
    assert response.json() == BEST.body()
    assert (
        response.headers["x-frugal-path"]
        == f"small:{math.exp(-3):.2f}:escalated_early,large:served"
    )
    row = gateway.books.entry()
    line, _ = gateway.books.lines(row["request_id"])
    assert (line["outcome"], line["estimated"]) == ("rejected_early", 1)
    assert row["estimated"]
    assert row["lower_nano_usd"] <= row["cost_nano_usd"] <= row["upper_nano_usd"]
    # Whatever the upstream will bill for those two words and some in flight lies within.
    assert line["lower_nano_usd"] <= 10_000 + 2 * 2_000 <= line["upper_nano_usd"]


async def test_a_streamed_draft_is_folded_for_a_client_that_asked_for_a_whole(tmp_path, large):
    async with (
        ScriptedUpstream(SURE) as small,
        serving(
            two_tiers(small.url, large.url, cascade={"confidence": EARLY}), tmp_path
        ) as gateway,
    ):
        response = await gateway.chat()

    assert small.requests[0].json["stream"] is True
    body = response.json()
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "a sure draft"}
    assert not body["choices"][0].get("logprobs")
    assert body["usage"] == SURE.usage


async def test_a_draft_that_takes_longer_than_max_hold_escalates(tmp_path, large):
    hold = Hold()

    def slow(received):
        return [*SURE.until(1), hold]

    async with (
        ScriptedUpstream(slow) as small,
        serving(
            two_tiers(small.url, large.url, cascade={"max_hold": "100ms"}), tmp_path
        ) as gateway,
    ):
        response = await gateway.chat(stream=True)
        await small.until_gone()

    assert text_of(events_of(response)) == "the large answer"
    assert response.headers["x-frugal-path"] == "small:-:escalated_early,large:served"
    assert response.headers["x-cache"] == "miss"


async def test_comments_keep_a_waiting_stream_alive_and_commit_it(tmp_path, large):
    hold = Hold()

    def slow(received):
        return [*SURE.until(1, has_logprobs=True), hold, *SURE.since(1, has_logprobs=True)]

    async with (
        ScriptedUpstream(slow) as small,
        serving(
            two_tiers(small.url, large.url, cascade={"keepalive": "20ms"}), tmp_path
        ) as gateway,
        gateway.client.stream(
            "POST",
            "/v1/chat/completions",
            json={"model": "auto", "messages": [{"role": "user", "content": "x"}], "stream": True},
        ) as response,
    ):
        lines = response.aiter_lines()
        first = await anext(lines)
        hold.release()
        rest = [line async for line in lines]

    assert response.status_code == 200
    assert first == ": keep-alive"
    assert text_of(events_of("\n".join(rest))) == "a sure draft"
    assert rest[-2:] == ["data: [DONE]", ""]


async def test_an_error_after_a_comment_is_an_event_and_not_a_status(tmp_path):
    hold = Hold()

    async with (
        ScriptedUpstream([[hold, RST]]) as small,
        ScriptedUpstream([[refusal("503 Service Unavailable")]]) as large,
        serving(
            two_tiers(small.url, large.url, cascade={"keepalive": "20ms"}), tmp_path
        ) as gateway,
        gateway.client.stream(
            "POST",
            "/v1/chat/completions",
            json={"model": "auto", "messages": [{"role": "user", "content": "x"}], "stream": True},
        ) as response,
    ):
        lines = response.aiter_lines()
        await anext(lines)
        hold.release()
        rest = [line async for line in lines]

    *_, last = events_of("\n".join(rest))
    assert last["error"]["code"] == "no_model_available"
    assert gateway.books.entry()["state"] == "failed"


# Errors


FAULTS = {
    "refused with 500": [refusal("500 Internal Server Error")],
    "rate limited": [refusal("429 Too Many Requests", retry_after="7")],
    "too long for it": [refusal("400 Bad Request", "too long", code="context_length_exceeded")],
    "cut amid its stream": [*SURE.until(2, has_logprobs=True), FIN],
    "reset amid its stream": [*SURE.until(2, has_logprobs=True), RST],
    "an error in a 200": [answer({"error": {"message": "overloaded"}})],
    "no JSON": [answer(b"<html>busy</html>", content_type="text/html")],
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_a_tier_that_fails_leaves_the_request_to_the_next(tmp_path, large, fault, stream):
    async with (
        ScriptedUpstream([FAULTS[fault]]) as small,
        serving(two_tiers(small.url, large.url), tmp_path) as gateway,
    ):
        response = await gateway.chat(stream=stream)
        again = await gateway.chat(stream=stream)

    assert response.status_code == 200
    said = text_of(events_of(response)) if stream else response.json() == BEST.body()
    assert said == ("the large answer" if stream else True)
    assert response.headers["x-frugal-path"].endswith(":failed,large:served")
    assert again.headers["x-cache"] == "miss"
    assert gateway.books.entries()[0]["state"] == "settled"


async def test_a_fallback_answers_after_an_error_and_is_never_kept(tmp_path, large):
    async with ScriptedUpstream([[refusal("503 Service Unavailable")]]) as broken:
        models = {"main": remote(broken.url, price=DEAR), "spare": remote(large.url, price=CHEAP)}
        routes = {"auto": {"model": "main", "fallback": ["spare"], "cache": {"exact": {}}}}
        async with serving(policy(models, routes), tmp_path) as gateway:
            first = await gateway.chat()
            second = await gateway.chat()

    assert first.headers["x-frugal-path"] == "main:unavailable:failed,spare:fallback"
    assert first.headers["x-frugal-model"] == "spare"
    assert second.headers["x-cache"] == "miss"
    assert len(large.requests) == 2
    row = gateway.books.entries()[0]
    assert row["cost_nano_usd"] == 11 * 1_000 + 4 * 2_000
    lines = gateway.books.lines(row["request_id"])
    assert (lines[0]["outcome"], lines[0]["cost_nano_usd"]) == ("unavailable", 0)


async def test_a_mistake_of_the_clients_is_not_taken_to_the_fallback(tmp_path, large):
    fault = [refusal("400 Bad Request", "no such tool", code="bad_tool")]
    async with ScriptedUpstream([fault]) as main:
        models = {"main": remote(main.url), "spare": remote(large.url)}
        routes = {"auto": {"model": "main", "fallback": ["spare"]}}
        async with serving(policy(models, routes), tmp_path) as gateway:
            response = await gateway.chat()

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "bad_tool"
    assert not large.requests


async def test_a_rejected_draft_is_served_as_degraded_when_all_else_fails(tmp_path):
    async with (
        ScriptedUpstream(UNSURE) as small,
        ScriptedUpstream([[refusal("500 Internal Server Error")]]) as large,
        serving(two_tiers(small.url, large.url), tmp_path) as gateway,
    ):
        response = await gateway.chat()
        again = await gateway.chat()

    assert response.json()["choices"][0]["message"]["content"] == "SECRET draft words"
    assert (
        response.headers["x-frugal-path"]
        == f"small:{math.exp(-3):.2f}:degraded,large:unavailable:failed"
    )
    assert response.headers["x-frugal-model"] == "small"
    assert again.headers["x-cache"] == "miss"


@pytest.mark.parametrize("why", ["early", "max_hold"])
async def test_a_draft_that_was_cut_short_is_served_to_nobody(tmp_path, why):
    cascade = {"confidence": EARLY} if why == "early" else {"max_hold": "100ms"}

    def stuck(received):
        return [*UNSURE.until(2, has_logprobs=why == "early"), Hold()]

    async with (
        ScriptedUpstream(stuck) as small,
        ScriptedUpstream([[refusal("500 Internal Server Error")]]) as large,
        serving(two_tiers(small.url, large.url, cascade=cascade), tmp_path) as gateway,
    ):
        response = await gateway.chat(stream=True)

    assert response.status_code == 503
    assert b"SECRET" not in response.content
    assert gateway.books.entry()["state"] == "failed"


async def test_when_all_tiers_fail_the_answer_names_each_and_keeps_retry_after(tmp_path):
    async with (
        ScriptedUpstream([[refusal("500 Internal Server Error")]]) as small,
        ScriptedUpstream([[refusal("429 Too Many Requests", retry_after="17")]]) as large,
        serving(two_tiers(small.url, large.url), tmp_path) as gateway,
    ):
        response = await gateway.chat()

    assert response.status_code == 503
    assert response.headers["retry-after"] == "17"
    error = response.json()["error"]
    assert error["code"] == "no_model_available"
    assert "small: unavailable" in error["message"]
    assert "large: rate_limited" in error["message"]
    assert gateway.books.entry()["cost_nano_usd"] == 0


# Who is able, and what rules say


async def test_a_tier_that_lacks_tools_is_skipped_and_the_path_says_so(tmp_path, large):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    async with (
        ScriptedUpstream(SURE) as small,
        serving(two_tiers(small.url, large.url, small_is={"tools": False}), tmp_path) as gateway,
    ):
        response = await gateway.chat(tools=tools)

    assert response.headers["x-frugal-path"] == "small:tools:skipped,large:served"
    assert not small.requests


async def test_the_last_tiers_own_error_is_told_though_a_tier_was_skipped(tmp_path):
    async with (
        ScriptedUpstream(SURE) as small,
        ScriptedUpstream([[refusal("429 Too Many Requests", retry_after="3")]]) as large,
        serving(two_tiers(small.url, large.url, small_is={"context": 1}), tmp_path) as gateway,
    ):
        response = await gateway.chat()

    assert response.status_code == 429
    assert response.headers["retry-after"] == "3"


async def test_no_tier_that_is_able_is_a_clear_400(tmp_path, large):
    models = {"blind": remote(large.url, vision=False)}
    image = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    async with serving(policy(models, {"auto": {"model": "blind"}}), tmp_path) as gateway:
        response = await gateway.client.post(
            "/v1/chat/completions",
            json={"model": "auto", "messages": [{"role": "user", "content": image}]},
        )

    assert response.status_code == 400
    assert "blind: lacks vision" in response.json()["error"]["message"]
    assert not large.requests
    assert gateway.books.entry()["state"] == "failed"


async def test_rules_choose_the_model_the_tiers_and_the_cache(tmp_path, large):
    rules = [
        {"when": {"tag": "hard"}, "model": "large"},
        {"when": {"header": {"X-Team": "legal"}}, "cache": {"exact": "off"}},
        {"when": {"max_tokens_over": 100}, "tiers": ["large"]},
    ]
    async with (
        ScriptedUpstream(SURE) as small,
        serving(two_tiers(small.url, large.url, rules=rules), tmp_path) as gateway,
    ):
        tagged = await gateway.chat(frugal={"tags": ["hard"]})
        legal = await gateway.chat("l", headers={"x-team": "legal"})
        long = await gateway.chat("m", max_tokens=101)
        usual = await gateway.chat("n")

    assert tagged.headers["x-frugal-model"] == "large"
    assert (legal.headers["x-cache"], legal.headers["x-frugal-model"]) == ("bypass", "small")
    assert long.headers["x-frugal-model"] == "large"
    assert (usual.headers["x-cache"], usual.headers["x-frugal-model"]) == ("miss", "small")


# A second opinion


AGREEMENT = {"kind": "agreement", "with": "second"}


def _with_second(small: str, second: str, large: str) -> str:
    models = {
        "small": remote(small, price=CHEAP),
        "second": remote(second, price={"input_per_mtok_usd": 3, "output_per_mtok_usd": 4}),
        "large": remote(large, price=DEAR),
    }
    cascade = {"tiers": ["small", "large"], "confidence": AGREEMENT}
    return policy(models, {"auto": {"cascade": cascade}})


@pytest.mark.parametrize(
    ("opinion", "path"),
    [
        ("So the answer is 12.", "small:1.00:accepted"),
        ("It is 13.", "small:0.00:escalated,large:served"),
    ],
)
async def test_a_second_model_is_asked_and_its_cost_is_a_judges(tmp_path, large, opinion, path):
    async with (
        ScriptedUpstream(Says("The answer is 12", tokens=(10, 5))) as small,
        ScriptedUpstream(Says(opinion, tokens=(7, 2))) as second,
        serving(_with_second(small.url, second.url, large.url), tmp_path) as gateway,
    ):
        response = await gateway.chat(stream=True)

    assert response.headers["x-frugal-path"] == path
    assert second.requests[0].json["stream"] is False
    assert opinion.encode() not in response.content
    row = gateway.books.entry()
    lines = gateway.books.lines(row["request_id"])
    assert [(x["model"], x["purpose"], x["cost_nano_usd"]) for x in lines[:2]] == [
        ("small", "serve", 10_000 + 10_000),
        ("second", "judge", 21_000 + 8_000),
    ]
    assert row["cost_nano_usd"] == sum(x["cost_nano_usd"] for x in lines)


async def test_a_second_model_that_fails_means_escalation_not_an_error(tmp_path, large):
    async with (
        ScriptedUpstream(Says("The answer is 12")) as small,
        ScriptedUpstream([[refusal("500 Internal Server Error")]]) as second,
        serving(_with_second(small.url, second.url, large.url), tmp_path) as gateway,
    ):
        response = await gateway.chat()

    assert response.json() == BEST.body()
    assert response.headers["x-frugal-path"] == "small:-:escalated,large:served"
