from __future__ import annotations

import json
from contextlib import aclosing, asynccontextmanager

import pytest

from gateway.errors import ProviderProtocolError, ProviderTimeout, ProviderUnavailable
from gateway.money.usage import Usage
from gateway.providers.openai import OpenAIProvider
from policies.schema import Model, Timeouts
from tests.support.chat import (
    USAGE,
    call,
    chunk_event,
    collect,
    completion,
    delta,
    payload,
    usage_event,
)
from tests.support.scripted_upstream import (
    FIN,
    RST,
    STREAM_END,
    STREAM_HEAD,
    Hold,
    ScriptedUpstream,
    answer,
    chunk,
    event,
    stream,
)


@asynccontextmanager
async def provider_of(upstream, **members):
    declared = {"provider": "openai", "base_url": upstream.url, "api_key": "sk-secret", **members}
    provider = OpenAIProvider.from_model("big", Model.model_validate(declared))
    try:
        yield provider
    finally:
        await provider.aclose()


async def ask(script, request=None, **members):
    """Return the parts that a provider makes of one script."""
    async with ScriptedUpstream([script]) as upstream, provider_of(upstream, **members) as provider:
        return await collect(provider, request or call(stream=True))


async def whole(reply, request=None, **members):
    (part,) = await ask([answer(reply)], request or call(), **members)
    return part


# Whole replies


async def test_whole_reply_is_the_upstreams_own_bytes():
    body = json.dumps(completion(system_fingerprint="fp", x_unknown=[1, {"a": None}])).encode()
    part = await whole(body)

    assert part.data == body
    assert (part.text, part.finish_reason, part.model) == ("hi", "stop", "up-1")
    assert part.usage == Usage(input=9, output=3)
    assert part.stats is None


async def test_request_reaches_the_upstream_with_its_fields_and_our_key():
    async with (
        ScriptedUpstream([[answer(completion())]]) as upstream,
        provider_of(upstream) as provider,
    ):
        await collect(provider, call(temperature=0.5, unknown={"kept": True}))

        (request,) = upstream.requests
        assert request.path == "/v1/chat/completions"
        assert request.headers["authorization"] == "Bearer sk-secret"
        assert request.headers["x-request-id"] == "req-1"
        assert request.json == call(temperature=0.5, unknown={"kept": True}).body


async def test_without_a_key_no_authorization_is_sent():
    async with (
        ScriptedUpstream([[answer(completion())]]) as upstream,
        provider_of(upstream, api_key=None) as provider,
    ):
        await collect(provider, call())

        assert "authorization" not in upstream.requests[0].headers


async def test_tool_calls_are_counted_and_null_content_is_no_text():
    calls = [{"id": f"c{i}", "type": "function", "function": {"name": "f"}} for i in range(2)]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    part = await whole(
        completion(choices=[{"index": 0, "message": message, "finish_reason": "tool_calls"}])
    )

    assert (part.text, part.tool_calls, part.finish_reason) == ("", 2, "tool_calls")


async def test_content_in_parts_is_read_as_its_text():
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "hi"}]
    message = {"role": "assistant", "content": parts}
    part = await whole(completion(choices=[{"message": message, "finish_reason": "stop"}]))

    assert part.text == "hi"


@pytest.mark.parametrize(
    "usage", [None, {"prompt_tokens": -5}, {"prompt_tokens": 10**12}, "many", [1]]
)
async def test_usage_missing_or_absurd_is_none_and_no_failure(usage):
    assert (await whole(completion(usage=usage))).usage is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'{"choices": [{"mess',
        b"<html><b>busy</b></html>",
        b'{"choices": []}',
        b'{"choices": null}',
        b'{"object": "chat.completion"}',
        b'{"choices": [{"index": 0}]}',
        b'{"choices": [{"message": {"content": NaN}}]}',
        b'{"choices": [{"message": {"content": "\xff"}}]}',
        b'{"x": "\xff", "choices": [{"message": {"content": "ok"}}]}',
        b'{"a":' * 5000,
    ],
)
async def test_what_is_no_reply_is_broken(body):
    with pytest.raises(ProviderProtocolError, match="model big") as caught:
        await whole(body)

    assert "<" not in caught.value.message


async def test_error_hidden_in_a_200_is_a_failure_with_its_own_code():
    hidden = {"error": {"message": "model overloaded", "code": "overloaded", "type": "x"}}
    with pytest.raises(ProviderProtocolError, match="model overloaded") as caught:
        await whole(hidden)

    assert caught.value.code == "overloaded"


async def test_reply_with_a_null_error_is_a_reply():
    assert (await whole(completion(error=None))).text == "hi"


# Streams


async def test_streamed_events_are_the_upstreams_own_bytes():
    events = [delta("", role="assistant"), delta("h\u00e9"), delta("llo"), delta(finish="stop")]
    parts = await ask(stream(*events, usage_event()))

    assert [part.data for part in parts] == [*events, usage_event()]
    assert "".join(part.text for part in parts) == "h\u00e9llo"
    assert [part.finish_reason for part in parts] == [None, None, None, "stop", None]
    assert [part.usage for part in parts] == [None, None, None, None, Usage(input=9, output=3)]
    assert [part.is_usage_only for part in parts] == [False] * 4 + [True]
    assert {part.model for part in parts} == {"up-1"}


async def test_usage_is_asked_of_every_stream_beside_the_clients_options():
    script = stream(delta("x", "stop"))
    async with ScriptedUpstream([script]) as upstream, provider_of(upstream) as provider:
        request = call(stream=True, stream_options={"include_obfuscation": False})
        await collect(provider, request)

        options = upstream.requests[0].json["stream_options"]
        assert options == {"include_obfuscation": False, "include_usage": True}
        assert request.body["stream_options"] == {"include_obfuscation": False}


async def test_connection_serves_the_next_call_after_a_stream():
    script = stream(delta("x", "stop"), usage_event())
    async with ScriptedUpstream([script]) as upstream, provider_of(upstream) as provider:
        for _ in range(3):
            await collect(provider, call(stream=True))

        assert upstream.connections == 1


async def test_missing_done_after_a_finish_is_fine():
    parts = await ask(stream(delta("x"), delta(finish="stop"), is_done=False))

    assert [part.finish_reason for part in parts] == [None, "stop"]


@pytest.mark.parametrize("end", [[FIN], [RST], [b"zz\r\n", FIN]])
async def test_any_end_is_fine_once_every_choice_has_finished(end):
    script = [STREAM_HEAD, chunk(delta("x")), chunk(delta(finish="stop")), *end]
    parts = await ask(script)

    assert [part.text for part in parts] == ["x", ""]


async def test_stream_without_a_finish_is_broken_whatever_it_says():
    for is_done in (True, False):
        with pytest.raises(ProviderProtocolError, match="finish_reason"):
            await ask(stream(delta("x"), is_done=is_done))


async def test_stream_of_nothing_is_broken():
    for script in (stream(), stream(is_done=False), [answer(b"", content_type="text/plain")]):
        with pytest.raises(ProviderProtocolError):
            await ask(script)


@pytest.mark.parametrize("end", [[FIN], [RST], [b"zz\r\n", FIN]])
async def test_stream_cut_amid_its_text_yields_what_came_and_then_fails(end):
    hold = Hold()
    script = [STREAM_HEAD, chunk(delta("one")), hold, *end]
    async with (
        ScriptedUpstream([script]) as upstream,
        provider_of(upstream) as provider,
        aclosing(provider.call(call(stream=True))) as parts,
    ):
        first = await anext(parts)
        hold.release()
        with pytest.raises((ProviderProtocolError, ProviderUnavailable)):
            await anext(parts)

    assert first.text == "one"


async def test_empty_finish_reason_is_none_yet():
    parts = await ask(stream(delta("x", ""), delta("y", "stop")))

    assert [part.finish_reason for part in parts] == [None, "stop"]
    with pytest.raises(ProviderProtocolError, match="finish_reason"):
        await ask(stream(delta("x", "")))


async def test_second_finish_is_dropped():
    parts = await ask(stream(delta("x"), delta(finish="stop"), delta(finish="length")))

    assert [part.finish_reason for part in parts] == [None, "stop"]


async def test_usage_that_comes_with_a_second_finish_is_kept():
    late = chunk_event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}], usage=USAGE)
    *_, last = await ask(stream(delta("x", "stop"), late))

    assert last.is_usage_only
    assert last.usage == Usage(input=9, output=3)
    assert payload(last)["choices"] == []


async def test_every_choice_must_finish():
    events = [delta("a"), delta("b", index=1), delta(finish="stop")]
    with pytest.raises(ProviderProtocolError, match="finish_reason"):
        await ask(stream(*events, is_done=False), call(stream=True, n=2))
    parts = await ask(stream(*events, delta(finish="length", index=1)), call(stream=True, n=2))

    assert [part.finish_reason for part in parts] == [None, None, "stop", "length"]


async def test_choice_that_never_began_is_missed_unless_the_upstream_says_done():
    events = [delta("a"), delta(finish="stop")]
    with pytest.raises(ProviderProtocolError, match="finish_reason"):
        await ask(stream(*events, is_done=False), call(stream=True, n=2))

    assert len(await ask(stream(*events), call(stream=True, n=2))) == 2


async def test_usage_within_events_is_read_where_it_stands():
    last = chunk_event(
        choices=[{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}], usage=USAGE
    )
    (part,) = await ask(stream(last))

    assert part.usage == Usage(input=9, output=3)
    assert not part.is_usage_only


async def test_preamble_without_choices_passes_through():
    preamble = chunk_event(choices=[], prompt_filter_results=[])
    first, *_ = await ask(stream(preamble, delta("x", "stop")))

    assert first.data == preamble
    assert not first.is_usage_only


async def test_tool_calls_are_counted_once_however_many_pieces_they_come_in():
    def piece(index, **members):
        return delta(tool_calls=[{"index": index, **members}])

    events = [
        piece(0, id="a", function={"name": "f", "arguments": ""}),
        piece(0, function={"arguments": "{}"}),
        piece(1, id="b", function={"name": "g", "arguments": ""}),
        piece(1, id="b", function={"arguments": "{}"}),
        delta(finish="tool_calls"),
    ]
    parts = await ask(stream(*events))

    assert [part.tool_calls for part in parts] == [1, 0, 1, 0, 0]


async def test_calls_that_share_an_index_are_told_apart_by_their_ids():
    both = [{"index": 0, "id": "a"}, {"index": 0, "id": "b"}]
    first, *_ = await ask(stream(delta(tool_calls=both), delta(finish="tool_calls")))

    assert first.tool_calls == 2


async def test_utf8_may_be_cut_anywhere_and_line_ends_be_any():
    text = (delta("h\u00e9 \U0001f600") + delta(finish="stop")).replace(b"\n", b"\r\n")
    raw = text.decode().encode()
    script = [STREAM_HEAD, *(chunk(raw[i : i + 1]) for i in range(len(raw))), STREAM_END]
    parts = await ask(script)

    assert "".join(part.text for part in parts) == "h\u00e9 \U0001f600"
    assert all(part.data.startswith(b"data: {") for part in parts)
    assert all(part.data.endswith(b"}\n\n") for part in parts)


async def test_last_event_may_lack_its_blank_line():
    script = [STREAM_HEAD, chunk(delta("x")), chunk(delta(finish="stop")[:-2]), STREAM_END]

    assert (await ask(script))[-1].finish_reason == "stop"


@pytest.mark.parametrize(
    "bad",
    [
        b"data: {not json}\n\n",
        b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n',
        b'data: {"x": "\xff", "choices": [{"delta": {}}]}\n\n',
        b"data: []\n\n",
        b"data: null\n\n",
        b'data: {"type": "ping"}\n\n',
        b'data: {"choices": [{"delta": {}, "finish_reason": 7}]}\n\n',
        b"data: " + b"x" * (1024 * 1024 + 1) + b"\n\n",
        b'event: error\ndata: {"message": "boom"}\n\n',
    ],
)
async def test_event_that_is_none_breaks_the_stream(bad):
    with pytest.raises(ProviderProtocolError, match="model big"):
        await ask(stream(delta("x"), bad, delta(finish="stop")))


async def test_error_event_breaks_the_stream_and_tells_why():
    failure = event({"error": {"message": "out of memory", "code": "oom", "type": "server"}})
    with pytest.raises(ProviderProtocolError, match="out of memory") as caught:
        await ask(stream(delta("x"), failure))

    assert caught.value.code == "oom"


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        ({"error": {"message": "no such thing"}}, "application/json", "no such thing"),
        (completion(), "application/json", "whole document"),
        (b"<html>busy</html>", "text/html", "whole document"),
    ],
)
async def test_document_in_place_of_a_stream_is_broken(body, kind, said):
    with pytest.raises(ProviderProtocolError, match=said):
        await ask([answer(body, content_type=kind)])


async def test_stream_that_stalls_times_out():
    script = [STREAM_HEAD, chunk(delta("x")), Hold()]
    with pytest.raises(ProviderTimeout, match="idle"):
        await ask(script, call(stream=True, timeouts=Timeouts(idle=0.05)))


async def test_stream_of_comments_has_not_begun():
    script = [STREAM_HEAD, chunk(b": wait\n\n"), Hold()]
    with pytest.raises(ProviderTimeout, match="first_token"):
        await ask(script, call(stream=True, timeouts=Timeouts(first_token=0.3)))


async def test_whole_reply_is_held_to_first_token_only_where_that_was_set():
    with pytest.raises(ProviderTimeout, match="first_token"):
        await ask([Hold()], call(timeouts=Timeouts(first_token=0.05)))
    with pytest.raises(ProviderTimeout, match="total"):
        await ask([Hold()], call(timeouts=Timeouts(total=0.05)))


async def test_closing_the_call_leaves_the_upstream():
    script = [STREAM_HEAD, chunk(delta("x")), Hold()]
    async with ScriptedUpstream([script]) as upstream, provider_of(upstream) as provider:
        async with aclosing(provider.call(call(stream=True))) as parts:
            await anext(parts)

        await upstream.until_gone()


@pytest.mark.parametrize(
    ("tail", "path"),
    [
        ("/", "/v1/chat/completions"),
        ("?api-version=1", "/v1/chat/completions?api-version=1"),
        ("/openai/deployments/x/", "/v1/openai/deployments/x/chat/completions"),
    ],
)
async def test_endpoint_lies_below_the_base_url(tail, path):
    async with ScriptedUpstream([[answer(completion())]]) as upstream:
        model = Model(provider="openai", base_url=upstream.url + tail)
        provider = OpenAIProvider.from_model("m", model)
        await collect(provider, call())
        await provider.aclose()

        assert upstream.requests[0].path == path


async def test_unreachable_upstream_is_unavailable():
    model = Model(provider="vllm", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(ProviderUnavailable, match=r"127\.0\.0\.1:9"):
        await collect(OpenAIProvider.from_model("gone", model), call())


def test_flavour_without_an_address_needs_one():
    with pytest.raises(ValueError, match=r"models\.x\.base_url"):
        OpenAIProvider.from_model("x", Model(provider="vllm"))
    assert OpenAIProvider.from_model("x", Model(provider="openai"))


@pytest.mark.parametrize("key", ["sk-1\n", "sk 1", "sk-\u20ac", "sk-1\r\nx: y"])
def test_key_that_fits_no_header_is_refused_without_being_shown(key):
    with pytest.raises(ValueError, match=r"models\.x\.api_key") as caught:
        OpenAIProvider.from_model("x", Model(provider="openai", api_key=key))

    assert key not in str(caught.value)


# Log-probabilities


def told(*tokens):
    content = [
        {
            "token": "t",
            "logprob": best,
            "bytes": [116],
            "top_logprobs": [{"token": "t", "logprob": p, "bytes": None} for p in (best, *rest)],
        }
        for best, *rest in tokens
    ]
    return {"content": content, "refusal": None}


def replying(*tokens):
    message = {"role": "assistant", "content": "hi"}
    choice = {"index": 0, "message": message, "logprobs": told(*tokens), "finish_reason": "stop"}
    return completion(choices=[choice])


async def test_statistics_are_asked_for_and_hidden_from_a_client_that_did_not_ask():
    script = [answer(replying((-0.1, -2.1), (-0.5, -0.75)))]
    async with (
        ScriptedUpstream([script]) as upstream,
        provider_of(upstream, logprobs=True) as provider,
    ):
        (part,) = await collect(provider, call(wants_stats=True))

        sent = upstream.requests[0].json
        assert (sent["logprobs"], sent["top_logprobs"]) == (True, 2)
        assert part.stats.logprobs == (-0.1, -0.5)
        assert part.stats.margins == pytest.approx((2.0, 0.25))
        assert part.stats.entropies == ()
        assert part.stats.source == "provider"
        assert payload(part)["choices"][0]["logprobs"] is None
        assert payload(part)["choices"][0]["message"] == {"role": "assistant", "content": "hi"}


async def test_streamed_statistics_belong_to_their_part_and_are_hidden():
    def token(text, *tokens, finish=None):
        inner = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
        return chunk_event(choices=[{**inner, "logprobs": told(*tokens)}])

    script = stream(token("a", (-0.1, -2.1)), token("b", (-0.5, -0.75), finish="stop"))
    request = call(stream=True, wants_stats=True)
    first, second = await ask(script, request, logprobs=True)

    assert (first.stats.logprobs, second.stats.logprobs) == ((-0.1,), (-0.5,))
    assert payload(first)["choices"][0]["logprobs"] is None
    assert first.data.endswith(b"\n\n")


@pytest.mark.parametrize(("asked", "left"), [({}, 0), ({"top_logprobs": 1}, 1)])
async def test_client_gets_as_many_rivals_as_it_asked_for(asked, left):
    request = call(wants_stats=True, logprobs=True, **asked)
    part = await whole(replying((-0.1, -2.1)), request, logprobs=True)

    (token,) = payload(part)["choices"][0]["logprobs"]["content"]
    assert part.stats.margins == pytest.approx((2.0,))
    assert len(token["top_logprobs"]) == left


async def test_client_that_asked_for_more_gets_the_bytes_untouched():
    body = json.dumps(replying((-0.1, -2.1, -3.0))).encode()
    script = [answer(body)]
    async with (
        ScriptedUpstream([script]) as upstream,
        provider_of(upstream, logprobs=True) as provider,
    ):
        request = call(wants_stats=True, logprobs=True, top_logprobs=3)
        (part,) = await collect(provider, request)

        assert upstream.requests[0].json["top_logprobs"] == 3
        assert part.data == body
        assert part.stats.margins == pytest.approx((2.0,))


async def test_statistics_are_not_asked_of_a_model_that_has_none():
    async with (
        ScriptedUpstream([[answer(completion())]]) as upstream,
        provider_of(upstream) as provider,
    ):
        (part,) = await collect(provider, call(wants_stats=True))

        assert "logprobs" not in upstream.requests[0].json
        assert part.stats is None


async def test_flavour_knows_whether_its_servers_have_them():
    async with (
        ScriptedUpstream([[answer(replying((-0.1,)))]]) as upstream,
        provider_of(upstream, provider="vllm") as provider,
    ):
        (part,) = await collect(provider, call(wants_stats=True))

        assert upstream.requests[0].json["logprobs"] is True
        assert part.stats.logprobs == (-0.1,)
        assert part.stats.margins == ()


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,", " : ")])
async def test_statistics_are_hidden_however_the_upstream_writes_its_json(separators):
    reply = replying((-0.1, -2.1))
    reply["choices"][0]["message"]["content"] = 'says "logprobs":{"content":[]} and {}'
    body = json.dumps(reply, separators=separators).encode()
    part = await whole(body, call(wants_stats=True), logprobs=True)
    reply["choices"][0]["logprobs"] = None

    assert payload(part) == reply
    assert part.stats.logprobs == (-0.1,)


async def test_empty_log_probabilities_are_hidden_and_say_nothing():
    reply = completion()
    reply["choices"][0]["logprobs"] = {}
    part = await whole(reply, call(wants_stats=True), logprobs=True)

    assert payload(part) == completion()
    assert part.stats is None


@pytest.mark.parametrize("told", [{"content": "many"}, {"content": [{"logprob": None}]}, [1]])
async def test_log_probabilities_of_another_shape_are_no_statistics(told):
    reply = completion()
    reply["choices"][0]["logprobs"] = told
    part = await whole(reply, call(wants_stats=True), logprobs=True)

    assert payload(part) == completion()
    assert part.stats is None


async def test_log_probabilities_the_client_asked_for_serve_without_a_declaration():
    body = json.dumps(replying((-0.1, -2.1))).encode()
    part = await whole(body, call(wants_stats=True, logprobs=True, top_logprobs=2))

    assert part.data == body
    assert part.stats.logprobs == (-0.1,)
