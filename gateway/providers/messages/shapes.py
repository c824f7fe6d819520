"""Replies and events of the Messages API: what is read of them."""

from __future__ import annotations

import msgspec


class Counts(msgspec.Struct, gc=False):
    """How much output went into thinking."""

    thinking_tokens: int | None = None


class Block(msgspec.Struct, gc=False):
    """A piece of content, or its beginning; other kinds than these are passed over."""

    type: str
    text: str = ""
    thinking: str = ""
    signature: str = ""
    data: str = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw(b"{}")


class StopDetails(msgspec.Struct, gc=False):
    """Why an answer was refused."""

    explanation: str | None = None


class Message(msgspec.Struct, gc=False):
    """A whole reply, or its head at the beginning of a stream."""

    content: list[Block]
    id: str = ""
    model: str | None = None
    stop_reason: str | None = None
    stop_details: StopDetails | None = None
    usage: msgspec.Raw = msgspec.Raw(b"null")


class Delta(msgspec.Struct, gc=False):
    """What an event adds to a block, or to the message as a whole."""

    type: str = ""
    text: str = ""
    partial_json: str = ""
    thinking: str = ""
    signature: str = ""
    stop_reason: str | None = None
    stop_details: StopDetails | None = None


class Failure(msgspec.Struct, gc=False):
    """An error within a stream."""

    type: str = ""
    message: str = ""


class Happened(msgspec.Struct, gc=False):
    """One event of a stream."""

    type: str
    index: int = 0
    message: Message | None = None
    content_block: Block | None = None
    delta: Delta | None = None
    usage: msgspec.Raw = msgspec.Raw(b"null")
    error: Failure | None = None


FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
"""OpenAI's `finish_reason` for each `stop_reason`; another one is a plain stop."""
