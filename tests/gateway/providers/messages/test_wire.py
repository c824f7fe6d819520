"""Anthropic's own client reads what our fake of its API writes, so that the fake may be trusted."""

from __future__ import annotations

import anthropic
import pytest

from tests.support.messages import TEXT, Answers, refused, sent, streamed
from tests.support.scripted_upstream import ScriptedUpstream

THOUGHT = {"type": "thinking", "thinking": "let me see", "signature": "sig"}
WEATHER = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}}
ANSWERS = Answers(
    [THOUGHT, TEXT, WEATHER],
    stop_reason="tool_use",
    usage={"cache_read_input_tokens": 7, "output_tokens_details": {"thinking_tokens": 2}},
)
ASKED = {
    "model": "claude-opus-5",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hi"}],
}


def client_of(upstream):
    url = upstream.url.removesuffix("/v1")
    return anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0)


async def test_the_real_client_reads_a_whole_message():
    async with ScriptedUpstream(ANSWERS) as upstream, client_of(upstream) as client:
        message = await client.messages.create(**ASKED)

        assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
        assert message.usage.cache_read_input_tokens == 7
        assert message.stop_reason == "tool_use"
        assert upstream.requests[0].path == "/v1/messages"


async def test_the_real_client_reads_a_stream_to_the_same_message():
    async with ScriptedUpstream(ANSWERS) as upstream, client_of(upstream) as client:
        async with client.messages.stream(**ASKED) as stream:
            message = await stream.get_final_message()

        assert message.content[0].thinking == "let me see"
        assert message.content[1].text == TEXT["text"]
        assert message.content[2].input == {"city": "Rome"}
        assert message.usage.output_tokens == 5
        assert message.usage.output_tokens_details.thinking_tokens == 2
        assert message.stop_reason == "tool_use"


async def test_the_real_client_knows_its_errors():
    scripts = [
        [refused("529 Overloaded", "overloaded_error")],
        streamed(sent("error", error={"type": "overloaded_error", "message": "busy"})),
    ]
    async with ScriptedUpstream(scripts) as upstream, client_of(upstream) as client:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await client.messages.create(**ASKED)
        assert caught.value.status_code == 529
        with pytest.raises(anthropic.APIError):
            async for _ in await client.messages.create(stream=True, **ASKED):
                pass
