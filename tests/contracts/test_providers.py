"""What any provider promises, whoever answers."""

from __future__ import annotations

from contextlib import AsyncExitStack, aclosing

import pytest

from gateway.errors import ProviderError
from gateway.money.usage import Usage
from gateway.providers.anthropic import AnthropicProvider
from gateway.providers.local import LocalProvider
from gateway.providers.openai import OpenAIProvider
from gateway.providers.recorded import RecordedProvider
from gateway.wire import ProviderCall
from policies.schema import Model, Timeouts
from tests.support.chat import chunk_event, completion, delta, payload, usage_event
from tests.support.messages import Answers, refused
from tests.support.scripted_upstream import ScriptedUpstream, answer, stream

PROMPT, REPLY = "say six words", "one two three four five six"
USAGE = Usage(input=3, output=6)
_TOLD = {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}


def _script(request):
    """Answer as a server would: whole or streamed, and only to the prompt it knows."""
    if request.json["messages"][-1]["content"] != PROMPT:
        return [answer({"error": {"message": "unknown"}}, status="404 Not Found")]
    if not request.json["stream"]:
        message = {"role": "assistant", "content": REPLY}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return [answer(completion(choices=[choice], usage=_TOLD))]
    words = [delta(word) for word in REPLY.split(" ")[:1]]
    words += [delta(f" {word}") for word in REPLY.split(" ")[1:]]
    first = chunk_event(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}}])
    return stream(first, *words, delta(finish="stop"), usage_event(**_TOLD))


def _message_script(request):
    """Answer likewise, in the words of the Messages API."""
    if request.json["messages"][-1]["content"][0]["text"] != PROMPT:
        return [refused("404 Not Found", "not_found_error", "unknown")]
    told = {"input_tokens": 3, "output_tokens": 6}
    return Answers([{"type": "text", "text": REPLY}], usage=told)(request)


@pytest.fixture(params=["openai", "anthropic", "local", "recorded"])
async def provider(request, tmp_path):
    async with AsyncExitStack() as stack:
        if request.param == "recorded":
            made = RecordedProvider.of({PROMPT: REPLY})
        elif request.param == "local":
            path = tmp_path / "s"
            await stack.enter_async_context(ScriptedUpstream(_script, uds=path))
            model = Model(provider="local", checkpoint="demo/tiny")
            made = LocalProvider.from_model("m", model, socket=path)
        elif request.param == "anthropic":
            upstream = await stack.enter_async_context(ScriptedUpstream(_message_script))
            model = Model(provider="anthropic", base_url=upstream.url)
            made = AnthropicProvider.from_model("m", model)
        else:
            upstream = await stack.enter_async_context(ScriptedUpstream(_script))
            made = OpenAIProvider.from_model("m", Model(provider="openai", base_url=upstream.url))
        stack.push_async_callback(made.aclose)
        yield made


def asking(prompt=PROMPT, *, stream):
    body = {"model": "m", "messages": [{"role": "user", "content": prompt}], "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    return ProviderCall(body, stream, False, Timeouts(), "r1")


async def collect(provider, call):
    async with aclosing(provider.call(call)) as parts:
        return [part async for part in parts]


async def test_whole_reply_is_one_part(provider):
    (part,) = await collect(provider, asking(stream=False))

    assert (part.text, part.finish_reason, part.usage) == (REPLY, "stop", USAGE)
    assert payload(part)["choices"][0]["message"]["content"] == REPLY
    assert not part.is_usage_only


async def test_stream_is_one_part_an_event_and_never_says_done(provider):
    parts = await collect(provider, asking(stream=True))

    assert "".join(part.text for part in parts) == REPLY
    assert [part.finish_reason for part in parts if part.finish_reason] == ["stop"]
    assert all(part.data.startswith(b"data: {") for part in parts)
    assert all(part.data.endswith(b"}\n\n") for part in parts)
    assert all(part.data.count(b"\n") == 2 for part in parts)


async def test_usage_stands_in_an_event_of_its_own_at_the_end(provider):
    *others, last = await collect(provider, asking(stream=True))

    assert last.is_usage_only
    assert last.usage == USAGE
    assert payload(last)["choices"] == []
    assert not any(part.is_usage_only for part in others)


async def test_text_of_a_part_is_what_its_bytes_say(provider):
    for part in await collect(provider, asking(stream=True)):
        said = [choice["delta"].get("content") or "" for choice in payload(part)["choices"]]

        assert part.text == "".join(said)


async def test_calls_may_be_closed_amid_a_stream_and_made_again(provider):
    for _ in range(3):
        async with aclosing(provider.call(asking(stream=True))) as parts:
            await anext(parts)

    assert (await collect(provider, asking(stream=False)))[0].text == REPLY


@pytest.mark.parametrize("streamed", [False, True])
async def test_failure_is_a_provider_error_before_the_first_part(provider, streamed):
    parts = provider.call(asking("never heard of", stream=streamed))
    with pytest.raises(ProviderError) as caught:
        await anext(parts)

    assert 400 <= caught.value.status < 600
    assert caught.value.word
