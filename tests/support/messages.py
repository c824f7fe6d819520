"""A model behind Anthropic's Messages API, as it stands on the wire."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.scripted_upstream import (
    STREAM_END,
    STREAM_HEAD,
    Received,
    Script,
    Step,
    answer,
    chunk,
)

TEXT = {"type": "text", "text": "Hello there, world"}
USAGE = {
    "input_tokens": 12,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    "output_tokens": 5,
    "service_tier": "standard",
}


@dataclass(frozen=True, slots=True)
class Answers:
    """A model that answers every request with the same blocks, whole or streamed as asked."""

    content: Sequence[dict[str, Any]] = (TEXT,)
    stop_reason: str = "end_turn"
    usage: dict[str, Any] | None = None
    stop_details: dict[str, Any] | None = None
    name: str = "claude-opus-5"

    def __call__(self, received: Received) -> Script:
        """Return the script of one answer."""
        if received.json.get("stream"):
            return streamed(*self.events())
        return [answer(self.body())]

    def body(self) -> dict[str, Any]:
        """Return the whole message."""
        return {
            **self._head(),
            "content": list(self.content),
            "stop_reason": self.stop_reason,
            "stop_details": self.stop_details,
            "usage": {**USAGE, **(self.usage or {})},
        }

    def events(self) -> list[bytes]:
        """Return the events of the message, with a ping as the API sends them."""
        told = {**USAGE, **(self.usage or {})}
        blocks = [e for i, block in enumerate(self.content) for e in block_events(i, block)]
        change = {"stop_reason": self.stop_reason, "stop_sequence": None}
        if self.stop_details is not None:
            change["stop_details"] = self.stop_details
        after = {"output_tokens": told["output_tokens"]}
        if "output_tokens_details" in told:
            after["output_tokens_details"] = told["output_tokens_details"]
        head = {**self._head(), "content": [], "stop_reason": None}
        head["usage"] = {**told, "output_tokens": 1}
        return [
            sent("message_start", message=head),
            sent("ping"),
            *blocks,
            sent("message_delta", delta=change, usage=after),
            sent("message_stop"),
        ]

    def _head(self) -> dict[str, Any]:
        head = {"id": "msg_01", "type": "message", "role": "assistant", "model": self.name}
        return {**head, "stop_sequence": None}


def sent(kind: str, **members: Any) -> bytes:
    """Return one event of a stream."""
    data = json.dumps({"type": kind, **members})
    return f"event: {kind}\ndata: {data}\n\n".encode()


def block_events(index: int, block: dict[str, Any]) -> list[bytes]:
    """Return the events that write one block."""
    kind = block["type"]
    empty, deltas = dict(block), list[dict[str, Any]]()
    if kind == "text":
        empty["text"] = ""
        first, *rest = block["text"].split(" ")
        deltas = [{"type": "text_delta", "text": t} for t in (first, *(f" {r}" for r in rest))]
    elif kind == "thinking":
        empty |= {"thinking": "", "signature": ""}
        deltas = [{"type": "thinking_delta", "thinking": block["thinking"]}]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    elif kind == "tool_use":
        empty["input"] = {}
        text = json.dumps(block["input"]) if block["input"] else ""
        deltas = [
            {"type": "input_json_delta", "partial_json": piece}
            for piece in ("", text[: len(text) // 2], text[len(text) // 2 :])
        ]
    return [
        sent("content_block_start", index=index, content_block=empty),
        *(sent("content_block_delta", index=index, delta=delta) for delta in deltas),
        sent("content_block_stop", index=index),
    ]


def streamed(*events: bytes) -> list[Step]:
    """Return the script of a whole stream, one chunk an event."""
    return [STREAM_HEAD, *(chunk(event) for event in events), STREAM_END]


def refused(status: str, kind: str, message: str = "no", **headers: str) -> bytes:
    """Return an error as the Messages API answers it."""
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return answer(body, status=status, headers=named)
