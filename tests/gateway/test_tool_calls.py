from __future__ import annotations

import json

import pytest

from gateway.replay import unfold
from gateway.tool_calls import calls_of
from router.validators import ToolCall

CALLS = [
    {"id": str(at), "type": "function", "function": {"name": name, "arguments": arguments}}
    for at, (name, arguments) in enumerate((("add", '{"a": 1}'), ("stop", "{}")))
]
READ = (ToolCall("add", '{"a": 1}'), ToolCall("stop", "{}"))


def body(**message):
    return json.dumps({
        "id": "x", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": "tool_calls", "message": message}],
    }).encode()  # fmt: skip


def test_calls_are_read_of_a_whole_reply_and_of_its_events():
    whole = body(role="assistant", content=None, tool_calls=CALLS)
    events = unfold(whole, include_usage=True)
    begun = next(at for at, event in enumerate(events) if b"tool_calls" in event)

    assert calls_of([whole]) == READ
    assert calls_of(events) == calls_of(events[begun:]) == READ


def test_the_old_way_to_call_is_read_too():
    assert calls_of([body(function_call={"name": "add", "arguments": "{}"})]) == (
        ToolCall("add", "{}"),
    )


@pytest.mark.parametrize(
    "data",
    [(), (b"no",), (b"data: no\n\n",), (b"[]",), (b'{"choices": [{}]}',),
     (body(tool_calls=[{"function": {}}]),), (body(tool_calls=[7]),), (body(tool_calls=7),)],
)  # fmt: skip
def test_what_is_no_reply_has_no_calls(data):
    assert calls_of(data) == ()
