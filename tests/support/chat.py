"""Chat completions as upstreams write them, and calls that ask for them."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

from gateway.wire import Part, Provider, ProviderCall
from policies.schema import Timeouts
from tests.support.scripted_upstream import event

USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


def completion(**members: Any) -> dict[str, Any]:
    """Return a whole reply; `choices` defaults to one that says hi."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "hi", "refusal": None},
        "logprobs": None,
        "finish_reason": "stop",
    }
    head = {"id": "c1", "object": "chat.completion", "created": 1, "model": "up-1"}
    return {**head, "choices": [choice], "usage": USAGE, **members}


def delta(
    content: str | None = None, finish: str | None = None, *, index: int = 0, **members: Any
) -> bytes:
    """Return an event of one choice; further members go into the delta."""
    change = {**({} if content is None else {"content": content}), **members}
    return chunk_event(
        choices=[{"index": index, "delta": change, "logprobs": None, "finish_reason": finish}]
    )


def chunk_event(**members: Any) -> bytes:
    """Return an event with these members beside the usual head."""
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "up-1"}
    return event({**head, **members})


def usage_event(**usage: int) -> bytes:
    """Return the event that carries only usage."""
    return chunk_event(choices=[], usage={**USAGE, **usage})


def call(
    *,
    stream: bool = False,
    wants_stats: bool = False,
    timeouts: Timeouts | None = None,
    **members: Any,
) -> ProviderCall:
    """Return a call; further members go into the body."""
    messages = [{"role": "user", "content": "hello"}]
    body = {"model": "up-1", "messages": messages, "stream": stream, **members}
    return ProviderCall(body, stream, wants_stats, timeouts or Timeouts(), "req-1")


async def collect(provider: Provider, request: ProviderCall) -> list[Part]:
    """Return all parts of a reply."""
    async with aclosing(provider.call(request)) as parts:
        return [part async for part in parts]


def payload(part: Part) -> Any:
    """Return the JSON of a part, whole or event."""
    return json.loads(part.data.removeprefix(b"data: "))
