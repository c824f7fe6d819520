"""OpenAI's own client, unmodified, through the gateway."""

from __future__ import annotations

import openai
import pytest

from tests.support.gateway_app import serving
from tests.support.policies import one_model, policy, remote
from tests.support.replies import Says, refusal
from tests.support.scripted_upstream import Hold, ScriptedUpstream

ANSWER = Says("one two three four", tokens=(10, 4))
HI = [{"role": "user", "content": "hi"}]


def _client(gateway, **options):
    options = {"api_key": "any", "max_retries": 0, "timeout": 20} | options
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", **options)


async def test_a_chat_is_answered(tmp_path):
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
        _client(gateway) as client,
    ):
        reply = await client.chat.completions.create(model="auto", messages=HI)

    assert reply.choices[0].message.content == ANSWER.text
    assert reply.usage.total_tokens == 14


async def test_a_stream_is_read_to_its_end(tmp_path):
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
        _client(gateway) as client,
    ):
        stream = await client.chat.completions.create(
            model="auto", messages=HI, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]

    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert said == ANSWER.text
    assert chunks[-1].usage.completion_tokens == 4


async def test_extra_body_and_headers_reach_our_controls(tmp_path):
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
        _client(gateway) as client,
    ):
        create = client.chat.completions.with_raw_response.create
        first = await create(model="auto", messages=HI, extra_body={"frugal": {"cache": "off"}})
        second = await create(model="auto", messages=HI, extra_headers={"x-frugal-cache": "off"})

    assert [r.headers["x-cache"] for r in (first, second)] == ["bypass", "bypass"]
    assert "frugal" not in upstream.requests[0].json


async def test_models_are_listed_and_found(tmp_path):
    async with (
        serving(one_model("http://127.0.0.1:1/v1"), tmp_path) as gateway,
        _client(gateway) as client,
    ):
        names = [model.id async for model in client.models.list()]
        one = await client.models.retrieve("auto")
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("nope")

    assert names == ["auto", "large"]
    assert one.id == "auto"


async def test_errors_are_of_the_clients_own_classes(tmp_path):
    scripts = {
        "busy": [refusal("429 Too Many Requests", retry_after="3")],
        "long": [refusal("400 Bad Request", "too long", code="context_length_exceeded")],
        "down": [refusal("500 Internal Server Error")],
    }
    async with ScriptedUpstream(lambda r: scripts[r.json["model"]]) as upstream:
        key = {"name": "ci", "key": "sk-0123456789abcdef", "scopes": [*scripts]}
        models = {name: remote(upstream.url) for name in (*scripts, "other")}
        async with serving(policy(models, access={"keys": [key]}), tmp_path) as gateway:
            expected = {
                "busy": openai.RateLimitError,
                "long": openai.BadRequestError,
                "down": openai.InternalServerError,
                "nope": openai.NotFoundError,
                "other": openai.PermissionDeniedError,
            }
            found = {}
            async with _client(gateway, api_key=key["key"]) as client:
                for name in expected:
                    with pytest.raises(openai.APIStatusError) as raised:
                        await client.chat.completions.create(model=name, messages=HI)
                    found[name] = raised.value
            async with _client(gateway, api_key="sk-wrong") as client:
                with pytest.raises(openai.AuthenticationError):
                    await client.chat.completions.create(model="busy", messages=HI)

    assert {name: type(error) for name, error in found.items()} == expected
    assert found["busy"].response.headers["retry-after"] == "3"
    assert found["long"].code == "context_length_exceeded"
    assert all(error.request_id.startswith("req_") for error in found.values())


async def test_a_stream_that_breaks_raises_and_does_not_end_quietly(tmp_path):
    async with (
        ScriptedUpstream([[*ANSWER.until(2), b"0\r\n\r\n"]]) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
        _client(gateway) as client,
    ):
        stream = await client.chat.completions.create(model="auto", messages=HI, stream=True)
        said = []

        async def read() -> None:
            async for chunk in stream:
                said.append(chunk.choices[0].delta.content)

        with pytest.raises(openai.APIError, match="finish_reason"):
            await read()

    assert said == ["one", " two"]


async def test_closing_a_stream_stops_the_upstream(tmp_path):
    async with (
        ScriptedUpstream(lambda _: [*ANSWER.until(2), Hold()]) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
        _client(gateway) as client,
    ):
        stream = await client.chat.completions.create(model="auto", messages=HI, stream=True)
        await anext(aiter(stream))
        await stream.close()
        await upstream.until_gone()
        (row,) = await gateway.books.until(1)

    assert row["state"] == "abandoned"


async def test_tool_calls_and_parsed_schemas_come_through(tmp_path):
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}

    class Calls(Says):
        def body(self, *, has_logprobs=False):
            whole = super().body()
            whole["choices"][0]["message"] = {
                "role": "assistant", "content": None, "tool_calls": [call]
            }  # fmt: skip
            whole["choices"][0]["finish_reason"] = "tool_calls"
            return whole

    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    async with (
        ScriptedUpstream(Calls("")) as upstream,
        serving(one_model(upstream.url), tmp_path) as gateway,
        _client(gateway) as client,
    ):
        create = client.chat.completions.create
        reply = await create(model="auto", messages=HI, tools=tools)
        stream = await create(model="auto", messages=HI, tools=tools, stream=True)
        pieces = [
            piece.function.arguments or ""
            async for chunk in stream
            for choice in chunk.choices
            for piece in choice.delta.tool_calls or ()
        ]

    assert reply.choices[0].message.tool_calls[0].function.arguments == '{"x": 1}'
    assert "".join(pieces) == '{"x": 1}'
    assert len(upstream.requests) == 1
