"""One model behind the gateway: what passes through, what is added, what is kept."""

from __future__ import annotations

import pytest

from gateway.clock import Clock
from tests.support.gateway_app import asking, events_of, serving, text_of
from tests.support.policies import CHEAP, one_model, policy, remote
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream, answer, event, stream

ANSWER = Says("The answer is 12", tokens=(10, 5))


@pytest.fixture
async def upstream():
    async with ScriptedUpstream(ANSWER) as server:
        yield server


@pytest.fixture
async def gateway(upstream, tmp_path):
    async with serving(one_model(upstream.url), tmp_path) as running:
        yield running


# Through and back


async def test_a_whole_answer_arrives_in_the_upstreams_own_bytes(gateway, upstream):
    response = await gateway.chat()

    assert response.status_code == 200
    assert response.json() == ANSWER.body()
    assert response.content == answer(ANSWER.body()).split(b"\r\n\r\n", 1)[1]
    assert response.headers["content-type"] == "application/json"


async def test_a_stream_arrives_event_by_event_and_says_done(gateway, upstream):
    response = await gateway.chat(stream=True, stream_options={"include_usage": True})

    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.content == b"".join(ANSWER.events()) + b"data: [DONE]\n\n"


async def test_usage_is_asked_of_the_upstream_and_withheld_from_who_did_not_ask(gateway, upstream):
    response = await gateway.chat(stream=True)

    assert upstream.requests[0].json["stream_options"] == {"include_usage": True}
    assert not any(e != "[DONE]" and e.get("usage") for e in events_of(response))
    assert text_of(events_of(response)) == "The answer is 12"
    assert gateway.books.entry()["usage"]["output"] == 5


async def test_the_headers_say_who_answered_and_at_what_price(gateway):
    headers = (await gateway.chat()).headers

    assert headers["x-cache"] == "miss"
    assert headers["x-frugal-model"] == "large"
    assert headers["x-frugal-path"] == "large:served"
    assert headers["x-frugal-cost-usd"] == "0.000020000"
    assert headers["x-frugal-saved-usd"] == "0.000000000"
    assert headers["x-request-id"] == gateway.books.entry()["request_id"]
    assert "age" not in headers


async def test_a_stream_tells_its_cost_in_its_last_event_where_that_was_asked_for(gateway):
    response = await gateway.chat(stream=True, stream_options={"include_cost": True})

    *_, cost, done = events_of(response)
    assert done == "[DONE]"
    assert cost["choices"] == []
    assert cost["frugal"] == {
        "cost_usd": "0.000020000",
        "saved_usd": "0.000000000",
        "path": "large:served",
        "cache": "miss",
    }
    assert "x-frugal-cost-usd" not in response.headers


async def test_unknown_members_reach_the_upstream_unchanged_and_ours_do_not(gateway, upstream):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    members = {
        "seed": 7,
        "n": 2,
        "tools": tools,
        "tool_choice": "auto",
        "logprobs": True,
        "top_logprobs": 3,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
        "made_up": {"deep": [1, 2.5, None, "ü"]},
        "metadata": {"who": "me"},
        "user": "someone",
    }
    body = {**asking(**members), "messages": [{"role": "user", "content": [image]}]}

    await gateway.client.post("/v1/chat/completions", json={**body, "frugal": {"tags": ["a"]}})

    assert upstream.requests[0].json == {**body, "model": "upstream-model", "stream": False}
    assert upstream.requests[0].path == "/v1/chat/completions"


async def test_include_cost_never_reaches_the_upstream(gateway, upstream):
    options = {"include_cost": True, "include_obfuscation": False}

    await gateway.chat(stream=True, stream_options=options)

    found = upstream.requests[0].json["stream_options"]
    assert found == {"include_obfuscation": False, "include_usage": True}


async def test_stream_options_of_a_whole_request_are_left_out(gateway, upstream):
    await gateway.chat(stream=False, stream_options={"include_usage": True})

    assert "stream_options" not in upstream.requests[0].json


async def test_the_clients_key_stays_here_and_the_policys_goes_up(upstream, tmp_path):
    model = remote(upstream.url, price=CHEAP, api_key="${UPSTREAM_KEY}")
    text = policy(
        {"large": model}, access={"keys": [{"name": "ci", "key": "sk-client-0123456789"}]}
    )
    headers = {"authorization": "Bearer sk-client-0123456789", "cookie": "a=b"}

    async with serving(text, tmp_path, env={"UPSTREAM_KEY": "sk-up-0123456789"}) as gateway:
        response = await gateway.chat(model="large", headers=headers)

    assert response.status_code == 200
    sent = upstream.requests[0]
    assert sent.headers["authorization"] == "Bearer sk-up-0123456789"
    assert "cookie" not in sent.headers
    assert b"sk-client" not in sent.body


async def test_paths_work_without_v1(gateway):
    response = await gateway.client.post("/chat/completions", json=asking())

    assert response.json()["model"] == "upstream-model"


async def test_a_model_may_be_asked_for_directly(gateway, upstream):
    response = await gateway.chat(model="large")

    assert response.headers["x-frugal-path"] == "large:served"
    assert response.headers["x-cache"] == "bypass"
    assert gateway.books.entry()["route"] == "large"


async def test_several_choices_are_streamed_and_priced_once(tmp_path):
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}

    def told(index, delta, finish=None):
        choice = {"index": index, "delta": delta, "finish_reason": finish}
        return event({**head, "choices": [choice]})

    told_all = [
        told(0, {"content": "a"}),
        told(1, {"content": "b"}),
        told(1, {}, "stop"),
        told(0, {}, "stop"),
        event({**head, "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
    ]
    async with (
        ScriptedUpstream([stream(*told_all)]) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
    ):
        options = {"include_usage": True}
        response = await gateway.chat(stream=True, n=2, stream_options=options)
        again = await gateway.chat(n=2)

    assert response.content == b"".join(told_all) + b"data: [DONE]\n\n"
    assert [c["message"]["content"] for c in again.json()["choices"]] == ["a", "b"]
    assert gateway.books.entries()[0]["cost_nano_usd"] == 3_000 + 4_000


# Kept


async def test_an_equal_request_is_answered_from_memory_and_costs_nothing(gateway, upstream):
    await gateway.chat()
    response = await gateway.chat()

    assert len(upstream.requests) == 1
    assert response.json() == ANSWER.body()
    assert response.headers["x-cache"] == "exact"
    assert int(response.headers["age"]) >= 0
    assert response.headers["x-frugal-model"] == "large"
    assert response.headers["x-frugal-path"] == "large:served"
    assert response.headers["x-frugal-cost-usd"] == "0.000000000"
    assert response.headers["x-frugal-saved-usd"] == "0.000020000"
    hit = gateway.books.entries()[1]
    assert (hit["cache"], hit["cost_nano_usd"], hit["saved_nano_usd"]) == ("exact", 0, 20_000)
    assert gateway.books.lines(hit["request_id"]) == []


async def test_a_whole_answer_is_replayed_as_a_stream(gateway, upstream):
    await gateway.chat()
    response = await gateway.chat(stream=True, stream_options={"include_usage": True})

    events = events_of(response)
    assert len(upstream.requests) == 1
    assert response.headers["x-cache"] == "exact"
    assert text_of(events) == "The answer is 12"
    assert [c["finish_reason"] for e in events[:-1] for c in e["choices"]][-1] == "stop"
    assert events[-2]["usage"] == ANSWER.usage
    assert events[-1] == "[DONE]"


async def test_a_stream_is_replayed_as_a_whole_answer(gateway, upstream):
    await gateway.chat(stream=True)
    response = await gateway.chat()

    assert len(upstream.requests) == 1
    assert response.headers["x-cache"] == "exact"
    assert response.json()["choices"] == ANSWER.body()["choices"]
    assert response.json()["usage"] == ANSWER.usage


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("second", [True, False])
async def test_a_replayed_stream_shows_usage_only_to_who_asks(gateway, upstream, first, second):
    await gateway.chat(stream=True, stream_options={"include_usage": first})
    response = await gateway.chat(stream=True, stream_options={"include_usage": second})

    assert len(upstream.requests) == 1
    assert any(e != "[DONE]" and e.get("usage") for e in events_of(response)) is second
    assert text_of(events_of(response)) == "The answer is 12"


async def test_the_cost_of_a_replayed_stream_is_nothing(gateway):
    await gateway.chat(stream=True)
    response = await gateway.chat(stream=True, stream_options={"include_cost": True})

    told = events_of(response)[-2]["frugal"]
    assert (told["cost_usd"], told["saved_usd"]) == ("0.000000000", "0.000020000")
    assert told["cache"] == "exact"


@pytest.mark.parametrize(
    "headers", [{"cache-control": "no-store"}, {"x-frugal-cache": "off"}], ids=["no-store", "off"]
)
async def test_the_cache_is_passed_by_where_the_client_says_so(gateway, upstream, headers):
    await gateway.chat()
    response = await gateway.chat(headers=headers)

    assert response.headers["x-cache"] == "bypass"
    assert len(upstream.requests) == 2


async def test_what_was_not_to_be_stored_is_not(gateway, upstream):
    await gateway.chat(headers={"cache-control": "no-store"})
    response = await gateway.chat()

    assert response.headers["x-cache"] == "miss"
    assert len(upstream.requests) == 2


async def test_the_body_switches_the_cache_off_as_the_header_does(gateway, upstream):
    await gateway.chat()
    response = await gateway.chat(frugal={"cache": "off"})

    assert response.headers["x-cache"] == "bypass"
    assert len(upstream.requests) == 2


async def test_no_cache_asks_anew_and_keeps_the_new_answer(gateway, upstream):
    await gateway.chat()
    fresh = await gateway.chat(headers={"cache-control": "no-cache"})
    after = await gateway.chat()

    assert fresh.headers["x-cache"] == "miss"
    assert after.headers["x-cache"] == "exact"
    assert len(upstream.requests) == 2


async def test_tenants_share_no_answers(upstream, tmp_path):
    keys = [
        {"name": name, "tenant": tenant, "key": f"sk-{name}-0123456789abcdef"}
        for name, tenant in (("a", "red"), ("b", "blue"), ("c", "red"))
    ]
    models = {"large": remote(upstream.url)}
    routes = {"auto": {"model": "large", "cache": {"exact": {"ttl": "1h"}}}}
    text = policy(models, routes, access={"keys": keys})
    found = []

    async with serving(text, tmp_path) as gateway:
        for key in keys:
            headers = {"authorization": f"Bearer {key['key']}"}
            found.append((await gateway.chat(headers=headers)).headers["x-cache"])

    assert found == ["miss", "miss", "exact"]
    assert [row["tenant"] for row in gateway.books.entries()] == ["red", "blue", "red"]


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.5},
        {"seed": 1},
        {"max_tokens": 9},
        {"n": 2},
        {"logprobs": True},
        {"made_up": 1},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"messages": [{"role": "user", "content": "hi "}]},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_what_may_change_an_answer_is_another_request(gateway, upstream, change):
    await gateway.client.post("/v1/chat/completions", json=asking())
    response = await gateway.client.post("/v1/chat/completions", json=asking() | change)

    assert response.headers["x-cache"] == "miss"
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("change", [{"user": "me"}, {"metadata": {"a": "b"}}, {"stream": False}])
async def test_what_changes_no_answer_is_the_same_request(gateway, upstream, change):
    await gateway.chat()
    response = await gateway.chat(**change)

    assert response.headers["x-cache"] == "exact"


async def test_the_order_of_members_is_no_difference(gateway, upstream):
    await gateway.chat(seed=1, top_p=0.5)
    response = await gateway.chat(top_p=0.5, seed=1)

    assert response.headers["x-cache"] == "exact"


async def test_a_route_without_a_cache_asks_every_time(upstream, tmp_path):
    async with serving(one_model(upstream.url, cache=None), tmp_path) as gateway:
        answers = [(await gateway.chat()).headers["x-cache"] for _ in range(2)]

    assert answers == ["bypass", "bypass"]
    assert len(upstream.requests) == 2


async def test_an_answer_too_large_to_keep_is_served_and_not_kept(upstream, tmp_path):
    cache = {"exact": {"ttl": "1h", "max_entry": "100 B"}}
    async with serving(one_model(upstream.url, cache=cache), tmp_path) as gw:
        answers = [(await gw.chat()).headers["x-cache"] for _ in range(2)]

    assert answers == ["miss", "miss"]


async def test_an_answer_that_a_filter_stopped_is_not_kept(tmp_path):
    async with (
        ScriptedUpstream(Says("no", finish_reason="content_filter")) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
    ):
        for _ in range(2):
            assert (await gateway.chat()).headers["x-cache"] == "miss"


async def test_a_kept_answer_ages_and_expires_by_the_clock(upstream, tmp_path):
    now = [1_800_000_000.0]
    clock = Clock(wall=lambda: now[0], tick=lambda: now[0])
    async with serving(one_model(upstream.url), tmp_path, clock=clock) as gateway:
        await gateway.chat()
        now[0] += 90
        aged = await gateway.chat()
        now[0] += 3_600
        expired = await gateway.chat()

    assert (aged.headers["x-cache"], aged.headers["age"]) == ("exact", "90")
    assert expired.headers["x-cache"] == "miss"
