"""Anthropic's models behind the chat endpoint, from the client's bytes to the ledger's."""

from __future__ import annotations

import json

import openai

from tests.support.gateway_app import events_of, serving, text_of
from tests.support.messages import TEXT, Answers, refused, sent, streamed
from tests.support.policies import policy
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream

RULES = {"role": "system", "content": "Be kind. " * 1200}
KEY = "sk-ant-secret"


def claude(upstream, **more):
    url = upstream.url.removesuffix("/v1")
    declared = {"provider": "anthropic", "base_url": url, "model": "claude-opus-5", **more}
    return {**declared, "api_key": KEY}


async def test_a_reply_is_a_chat_completion_and_costs_its_list_price(tmp_path):
    used = {"input_tokens": 100, "cache_read_input_tokens": 1000, "output_tokens": 10}
    async with ScriptedUpstream(Answers(usage=used)) as upstream:
        text = policy({"large": claude(upstream)})
        async with serving(text, tmp_path) as gateway:
            reply = await gateway.chat(model="large", max_tokens=50)
            entry = gateway.books.entry()

    assert reply.json()["choices"][0]["message"]["content"] == TEXT["text"]
    assert reply.json()["usage"]["prompt_tokens"] == 1100
    assert upstream.requests[0].json["max_tokens"] == 50
    # 100 · 5 + 1000 · 0.5 + 10 · 25 dollars a million
    assert entry["cost_nano_usd"] == 1_250_000
    assert entry["usage"]["cached_input"] == 1000
    assert not entry["estimated"]


async def test_a_stream_is_one_of_chat_completions_and_is_billed(tmp_path):
    async with (
        ScriptedUpstream(Answers()) as upstream,
        serving(policy({"large": claude(upstream)}), tmp_path) as gateway,
    ):
        reply = await gateway.chat(
            model="large", stream=True, stream_options={"include_usage": True}
        )
        entry = gateway.books.entry()

    events = events_of(reply)
    assert text_of(events) == TEXT["text"]
    assert events[-1] == "[DONE]"
    assert events[-2]["usage"]["total_tokens"] == 17
    assert entry["cost_nano_usd"] == 12 * 5000 + 5 * 25_000


async def test_openais_own_client_puts_streamed_tool_calls_together(tmp_path):
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    calls = [
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}},
        {"type": "tool_use", "id": "toolu_2", "name": "time", "input": {}},
    ]
    tools = [{"type": "function", "function": {"name": n}} for n in ("weather", "time")]
    async with (
        ScriptedUpstream(Answers([thought, TEXT, *calls], stop_reason="tool_use")) as upstream,
        serving(policy({"large": claude(upstream)}), tmp_path) as gateway,
        openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="any") as client,
    ):
        said = [{"role": "user", "content": "hi"}]
        async with client.chat.completions.stream(
            model="large", messages=said, tools=tools
        ) as stream:
            (choice,) = (await stream.get_final_completion()).choices
        said += [choice.message.model_dump(exclude_none=True, exclude={"parsed"})]
        said += [{"role": "tool", "tool_call_id": c["id"], "content": "x"} for c in calls]
        await client.chat.completions.create(model="large", messages=said, tools=tools)

    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == TEXT["text"]
    told = [(c.id, c.function.name, json.loads(c.function.arguments)) for c in _calls(choice)]
    assert told == [("toolu_1", "weather", {"city": "Rome"}), ("toolu_2", "time", {})]
    _, assistant, results = upstream.requests[1].json["messages"]
    assert [b["type"] for b in assistant["content"]][-3:] == ["text", "tool_use", "tool_use"]
    assert [b["tool_use_id"] for b in results["content"]] == ["toolu_1", "toolu_2"]


def _calls(choice):
    return choice.message.tool_calls


async def test_an_overloaded_model_is_retried_and_then_another_is_asked(tmp_path):
    async with (
        ScriptedUpstream([[refused("529 Overloaded", "overloaded_error")]]) as sick,
        ScriptedUpstream(Says("well")) as well,
    ):
        models = {
            "large": claude(sick),
            "other": {"provider": "openai", "base_url": well.url, "price": "unknown_is_free"},
        }
        route = {"model": "large", "fallback": ["other"], "retries": {"attempts": 2}}
        async with serving(policy(models, {"auto": route}), tmp_path) as gateway:
            reply = await gateway.chat()

    assert reply.json()["choices"][0]["message"]["content"] == "well"
    assert reply.headers["x-frugal-path"] == (
        "large:unavailable:retried,large:unavailable:failed,other:fallback"
    )
    assert len(sick.requests) == 2


async def test_a_stream_that_fails_before_its_first_words_is_answered_by_another(tmp_path):
    head = Answers().events()[0]
    broken = streamed(head, sent("error", error={"type": "overloaded_error", "message": "busy"}))
    async with ScriptedUpstream([broken]) as sick, ScriptedUpstream(Says("well")) as well:
        models = {
            "large": claude(sick),
            "other": {"provider": "openai", "base_url": well.url, "price": "unknown_is_free"},
        }
        route = {"model": "large", "fallback": ["other"]}
        async with serving(policy(models, {"auto": route}), tmp_path) as gateway:
            reply = await gateway.chat(stream=True)

    assert reply.status_code == 200
    assert text_of(events_of(reply)) == "well"


async def test_a_stream_that_breaks_off_is_billed_within_bounds_and_tells_no_key(tmp_path, caplog):
    error = {"type": "api_error", "message": f"key {KEY} failed"}
    broken = streamed(*Answers().events()[:5], sent("error", error=error))
    async with (
        ScriptedUpstream([broken]) as upstream,
        serving(policy({"large": claude(upstream)}), tmp_path) as gateway,
    ):
        reply = await gateway.chat(model="large", stream=True)
        entry = gateway.books.entry()

    assert "error" in events_of(reply)[-1]
    assert entry["estimated"]
    assert entry["lower_nano_usd"] <= 12 * 5000 + 5 * 25_000 <= entry["upper_nano_usd"]
    assert KEY not in reply.text + caplog.text + json.dumps(entry, default=str)


async def test_what_the_api_cannot_carry_is_refused_with_its_name(tmp_path):
    async with (
        ScriptedUpstream(Answers()) as upstream,
        serving(policy({"large": claude(upstream)}), tmp_path) as gateway,
    ):
        reply = await gateway.chat(model="large", response_format={"type": "json_object"})

    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "response_format"
    assert upstream.requests == []


async def test_a_tier_that_cannot_hold_to_a_schema_is_passed_over(tmp_path):
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    async with ScriptedUpstream(Answers()) as old, ScriptedUpstream(Says("{}")) as well:
        models = {
            "old": claude(old, model="claude-3-7-sonnet-latest"),
            "new": {"provider": "openai", "base_url": well.url, "price": "unknown_is_free"},
        }
        cascade = {"tiers": ["old", "new"], "confidence": {"kind": "agreement", "with": "new"}}
        async with serving(policy(models, {"auto": {"cascade": cascade}}), tmp_path) as gateway:
            reply = await gateway.chat(response_format=form)

    assert reply.headers["x-frugal-path"] == "old:json_schema:skipped,new:served"
    assert old.requests == []


async def test_a_prefix_that_comes_again_is_cached_unless_the_policy_says_off(tmp_path):
    for switch, marked in (("auto", True), ("off", False)):
        folder = tmp_path / switch
        folder.mkdir()
        async with ScriptedUpstream(Answers()) as upstream:
            text = policy({"large": claude(upstream, prompt_cache=switch)})
            async with serving(text, folder) as gateway:
                for count in range(3):
                    asked = [RULES, {"role": "user", "content": f"{count}"}]
                    body = {"model": "large", "messages": asked}
                    await gateway.client.post("/v1/chat/completions", json=body)
        first, *_, last = (request.json["system"][-1] for request in upstream.requests)

        assert "cache_control" not in first
        assert ("cache_control" in last) is marked
