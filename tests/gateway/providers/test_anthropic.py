from __future__ import annotations

import json
from contextlib import aclosing, asynccontextmanager

import pytest

from gateway.errors import (
    ProviderError,
    ProviderProtocolError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from gateway.money.usage import Usage
from gateway.providers.anthropic import AnthropicProvider
from policies.schema import Model
from tests.support.chat import call, collect, payload
from tests.support.messages import TEXT, Answers, refused, sent, streamed
from tests.support.scripted_upstream import RST, ScriptedUpstream, answer

THOUGHT = {"type": "thinking", "thinking": "let me see", "signature": "sig"}
WEATHER = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}}
TIME = {"type": "tool_use", "id": "toolu_2", "name": "time", "input": {}}
CACHED = {
    "input_tokens": 3,
    "cache_read_input_tokens": 100,
    "cache_creation_input_tokens": 50,
    "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 30},
    "output_tokens": 40,
    "output_tokens_details": {"thinking_tokens": 15},
}
BUCKETS = Usage(
    input=3, cached_input=100, cache_write=20, cache_write_1h=30, output=25, reasoning=15
)


@asynccontextmanager
async def provider_of(upstream, **members):
    url = upstream.url.removesuffix("/v1")
    declared = {"provider": "anthropic", "base_url": url, "api_key": "sk-secret", **members}
    model = Model.model_validate({"model": "claude-opus-5", **declared})
    provider = AnthropicProvider.from_model("big", model, wall=lambda: 1_700_000_000.5)
    try:
        yield provider
    finally:
        await provider.aclose()


async def ask(script, request=None, **members):
    scripts = script if callable(script) else [script]
    async with ScriptedUpstream(scripts) as upstream, provider_of(upstream, **members) as provider:
        return await collect(provider, request or call(stream=True))


async def whole(answers, **members):
    (part,) = await ask(answers, call(**members))
    return part


async def failing(script, request=None):
    with pytest.raises(ProviderError) as caught:
        await ask(script, request)
    return caught.value


def changes(parts):
    """Return the deltas of a stream's only choice."""
    return [c["delta"] for part in parts for c in payload(part)["choices"]]


# Asking


async def test_a_request_goes_out_as_the_messages_api_wants_it():
    async with (
        ScriptedUpstream(Answers()) as upstream,
        provider_of(upstream, max_output=2000) as provider,
    ):
        await collect(provider, call(user="u1"))

        (request,) = upstream.requests
        assert request.path == "/v1/messages"
        assert request.headers["x-api-key"] == "sk-secret"
        assert request.headers["anthropic-version"] == "2023-06-01"
        assert "authorization" not in request.headers
        assert request.json == {
            "model": "up-1",
            "max_tokens": 2000,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
            "metadata": {"user_id": "u1"},
        }


async def test_a_base_url_may_end_in_its_version():
    async with (
        ScriptedUpstream(Answers()) as upstream,
        provider_of(upstream, base_url=upstream.url) as provider,
    ):
        await collect(provider, call())

        assert upstream.requests[0].path == "/v1/messages"


async def test_what_cannot_be_carried_is_refused_before_anything_is_sent():
    async with ScriptedUpstream(Answers()) as upstream, provider_of(upstream) as provider:
        with pytest.raises(ProviderRejected, match="big: n: ") as caught:
            await collect(provider, call(n=2))

        assert (caught.value.status, caught.value.param) == (400, "n")
        assert upstream.requests == []


# Whole replies


async def test_whole_reply_is_a_chat_completion():
    part = await whole(Answers())

    assert payload(part) == {
        "id": "msg_01",
        "created": 1_700_000_000,
        "model": "claude-opus-5",
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": TEXT["text"], "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 12,
            "completion_tokens": 5,
            "total_tokens": 17,
            "prompt_tokens_details": {
                "cached_tokens": 0,
                "cache_write_tokens": 0,
                "audio_tokens": 0,
            },
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
    }
    assert (part.text, part.finish_reason, part.model) == (TEXT["text"], "stop", "claude-opus-5")
    assert part.usage == Usage(input=12, output=5)


async def test_whole_thoughts_and_tool_calls_stand_beside_the_words():
    part = await whole(Answers([THOUGHT, TEXT, WEATHER, TIME], stop_reason="tool_use"))
    message = payload(part)["choices"][0]["message"]

    assert message["content"] == TEXT["text"]
    assert message["reasoning_content"] == "let me see"
    assert message["thinking_blocks"] == [THOUGHT]
    assert [c["function"]["name"] for c in message["tool_calls"]] == ["weather", "time"]
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"city": "Rome"}
    assert (part.tool_calls, part.finish_reason) == (2, "tool_calls")


async def test_a_reply_of_calls_alone_has_no_content():
    part = await whole(Answers([WEATHER], stop_reason="tool_use"))

    assert payload(part)["choices"][0]["message"]["content"] is None


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("something_new", "stop"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_why_it_stopped_is_told_in_openais_words(reason, finish, streamed):
    parts = await ask(Answers(stop_reason=reason), call(stream=streamed))

    assert [p.finish_reason for p in parts if p.finish_reason] == [finish]


async def test_a_refusal_is_told_with_its_reason():
    details = {"type": "refusal", "category": "bio", "explanation": "not this"}
    answers = Answers([], stop_reason="refusal", stop_details=details)
    message = payload(await whole(answers))["choices"][0]["message"]

    assert (message["content"], message["refusal"]) == (None, "not this")
    assert {"role": "assistant", "refusal": "not this"} in changes(await ask(answers))


@pytest.mark.parametrize("streamed", [False, True])
async def test_usage_falls_into_its_buckets(streamed):
    *_, part = await ask(Answers(usage=CACHED), call(stream=streamed))

    assert part.usage == BUCKETS
    assert payload(part)["usage"]["prompt_tokens"] == 153
    assert payload(part)["usage"]["prompt_tokens_details"]["cached_tokens"] == 100
    assert payload(part)["usage"]["completion_tokens"] == 40


async def test_absurd_usage_is_none_and_no_failure():
    assert (await whole(Answers(usage={"input_tokens": -1}))).usage is None
    assert all(p.usage is None for p in await ask(Answers(usage={"input_tokens": 10**12})))


# Streams


async def test_a_stream_says_its_role_with_the_first_words_and_its_usage_last():
    parts = await ask(Answers())

    assert changes(parts) == [
        {"role": "assistant", "content": "Hello"},
        {"content": " there,"},
        {"content": " world"},
        {},
    ]
    assert "".join(part.text for part in parts) == TEXT["text"]
    assert {payload(part)["id"] for part in parts} == {"msg_01"}
    assert parts[-1].is_usage_only
    assert parts[-1].usage == Usage(input=12, output=5)


async def test_streamed_calls_have_their_places_and_whole_arguments():
    parts = await ask(Answers([TEXT, WEATHER, TIME], stop_reason="tool_use"))
    pieces = [call for change in changes(parts) for call in change.get("tool_calls", ())]
    arguments = {0: "", 1: ""}
    for piece in pieces:
        arguments[piece["index"]] += piece["function"]["arguments"]

    assert [(p["index"], p["id"]) for p in pieces if "id" in p] == [(0, "toolu_1"), (1, "toolu_2")]
    assert json.loads(arguments[0]) == {"city": "Rome"}
    assert json.loads(arguments[1]) == {}
    assert sum(part.tool_calls for part in parts) == 2


async def test_streamed_thoughts_come_with_their_signature_at_their_end():
    secret = {"type": "redacted_thinking", "data": "xyz"}
    parts = await ask(Answers([THOUGHT, secret, TEXT]))
    told = changes(parts)

    assert told[0] == {"role": "assistant", "reasoning_content": "let me see"}
    assert [b for change in told for b in change.get("thinking_blocks", ())] == [THOUGHT, secret]
    assert "".join(part.text for part in parts) == TEXT["text"]


async def test_a_stream_that_lacks_only_its_last_event_is_complete():
    events = Answers().events()[:-1]
    parts = await ask([*streamed(*events)[:-1], RST])

    assert parts[-1].usage == Usage(input=12, output=5)


@pytest.mark.parametrize("kept", [0, 2, 4])
async def test_a_cut_stream_is_a_failure(kept):
    exc = await failing(streamed(*Answers().events()[:kept]))

    assert isinstance(exc, ProviderProtocolError)


@pytest.mark.parametrize(
    "bad",
    [
        b"data: {}\n\n",
        b"data: [1]\n\n",
        b"event: x\ndata: nonsense\n\n",
        sent("message_start"),
        sent("content_block_start", index=0),
        sent("content_block_delta", index=7, delta={"type": "text_delta", "text": "x"}),
        sent("content_block_delta", index=0, delta={"type": "text_delta", "text": 5}),
    ],
)
async def test_what_is_no_event_breaks_the_stream(bad):
    assert isinstance(await failing(streamed(bad)), ProviderProtocolError)


async def test_unknown_events_and_blocks_are_passed_over():
    odd = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    events = [sent("something_new", data=1), *Answers([odd, TEXT]).events()]
    parts = await ask(streamed(*events))

    assert "".join(part.text for part in parts) == TEXT["text"]
    assert sum(part.tool_calls for part in parts) == 0


async def test_a_stream_may_be_left_and_the_upstream_notices():
    async with ScriptedUpstream(Answers()) as upstream, provider_of(upstream) as provider:
        async with aclosing(provider.call(call(stream=True))) as parts:
            await anext(parts)

        assert (await collect(provider, call()))[0].text == TEXT["text"]


# Failures


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("overloaded_error", ProviderUnavailable),
        ("api_error", ProviderUnavailable),
        ("timeout_error", ProviderTimeout),
        ("rate_limit_error", ProviderRateLimited),
        ("invalid_request_error", ProviderRejected),
        ("something_new", ProviderProtocolError),
    ],
)
@pytest.mark.parametrize("has_begun", [False, True])
async def test_an_error_amid_a_stream_is_what_it_says(kind, expected, has_begun):
    before = Answers().events()[: 4 if has_begun else 1]
    error = {"type": kind, "message": "told sk-secret"}
    async with (
        ScriptedUpstream([streamed(*before, sent("error", error=error))]) as upstream,
        provider_of(upstream) as provider,
    ):
        parts = provider.call(call(stream=True))
        if has_begun:
            assert (await anext(parts)).text == "Hello"
        with pytest.raises(ProviderError) as caught:
            await anext(parts)

    assert type(caught.value) is expected
    assert "told ***" in caught.value.message


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        ("529 Overloaded", "overloaded_error", ProviderUnavailable),
        ("500 Error", "api_error", ProviderUnavailable),
        ("429 Too Many", "rate_limit_error", ProviderRateLimited),
        ("400 Bad", "invalid_request_error", ProviderRejected),
        ("404 Not Found", "not_found_error", ProviderRejected),
        ("413 Too Large", "request_too_large", ProviderRejected),
        ("401 Unauthorized", "authentication_error", ProviderError),
        ("403 Forbidden", "permission_error", ProviderError),
    ],
)
async def test_refusals_are_the_failures_that_other_providers_have(
    status, kind, expected, streamed
):
    exc = await failing([refused(status, kind, "sk-secret said")], call(stream=streamed))

    assert type(exc) is expected
    assert "sk-secret" not in exc.message


@pytest.mark.parametrize("status", ["429 Too Many", "529 Overloaded"])
async def test_the_time_to_wait_is_kept(status):
    exc = await failing([refused(status, "overloaded_error", retry_after="7")])

    assert exc.retry_after == "7"


async def test_a_prompt_that_is_too_long_is_told_as_openai_tells_it():
    said = "prompt is too long: 210000 tokens > 200000 maximum"
    exc = await failing([refused("400 Bad", "invalid_request_error", said)])

    assert exc.code == "context_length_exceeded"


async def test_an_empty_account_is_no_fault_of_the_client():
    said = "Your credit balance is too low to access the Anthropic API."
    exc = await failing([refused("400 Bad", "invalid_request_error", said)])

    assert not isinstance(exc, ProviderRejected)
    assert exc.code == "upstream_credentials"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", {"content": []}, {"content": [{"text": 1}]}, {"content": "x"}],
)
async def test_a_whole_reply_that_is_none_is_a_failure(body):
    assert isinstance(await failing([answer(body)], call()), ProviderProtocolError)


async def test_an_error_in_the_clothes_of_a_reply_is_an_error():
    body = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}

    assert isinstance(await failing([answer(body)], call()), ProviderUnavailable)
