"""A reply of the Messages API as a chat completion, whole or event by event.

Thoughts stand in `reasoning_content`, as several servers write them, and with
their signatures in `thinking_blocks`, which a client sends back to go on from
them.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.errors import ProviderError, ProviderProtocolError
from gateway.money.errors import UsageError
from gateway.money.usage import Usage
from gateway.money.usage_dialects import openai_usage, usage_from_anthropic
from gateway.providers.messages.failures import failure_within
from gateway.providers.messages.shapes import FINISH, Block, Delta, Happened, Message
from gateway.sse import Event, SseError
from gateway.wire import Part

_encode = msgspec.json.Encoder().encode
_message = msgspec.json.Decoder(Message)
_happened = msgspec.json.Decoder(Happened)
_THOUGHTS = ("thinking", "redacted_thinking")


class MessagesReader:
    """Reads one reply: an object for each call. `now` is seconds since the epoch."""

    def __init__(self, model: str, secret: str | None, now: float) -> None:
        self.is_done = False
        self.is_finished = False
        self._model = model
        self._secret = secret
        self._head: dict[str, Any] = {"created": int(now)}
        self._answered_by: str | None = None
        self._has_begun = False
        self._blocks: dict[int, _Open] = {}
        self._calls = 0
        self._told: dict[str, Any] = {}

    # Whole

    def whole(self, body: bytes) -> Part:
        """Return a whole reply as one part. Raises ProviderError."""
        try:
            message = _message.decode(body)
        except (ValueError, RecursionError) as exc:
            if (failure := failure_within(body, self._model, self._secret)) is not None:
                raise failure from exc
            raise self.broken("expected a message as JSON, found something else") from exc
        if message.stop_reason is None:
            raise self.broken("expected a message with a stop_reason, found none")
        self._note_usage(message.usage)
        text = "".join(block.text for block in message.content if block.type == "text")
        said, calls = _said(message, text)
        finish = FINISH.get(message.stop_reason, "stop")
        choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": finish}
        self._note_head(message)
        reply = {**self._head, "object": "chat.completion", "choices": [choice]}
        usage = self._usage()
        if usage is not None:
            reply["usage"] = openai_usage(usage)
        return Part(_encode(reply), text, finish, usage, None, message.model, calls)

    # Events

    def event(self, event: Event) -> Part | None:
        """Return an event as a part; None for one that says nothing. Raises ProviderError."""
        try:
            happened = _happened.decode(event.data)
        except (ValueError, RecursionError) as exc:
            raise self.broken("expected an event of a message, found something else") from exc
        handle = _HANDLERS.get(happened.type)
        return None if handle is None else handle(self, happened, event.data)

    def end(self) -> Part | None:
        """Return the usage, which stands last. Raises ProviderProtocolError for a cut stream."""
        if not self.is_finished:
            raise self.broken("the stream ended without a stop_reason")
        usage = self._usage()
        if usage is None:
            return None
        data = self._event([], usage=openai_usage(usage))
        return Part(data, usage=usage, model=self._answered_by, is_usage_only=True)

    def forgive(self, exc: ProviderError | SseError) -> None:
        """Raise what broke the stream, unless the answer had ended: then any end will do."""
        if self.is_finished:
            return
        if isinstance(exc, SseError):
            raise self.broken(str(exc)) from exc
        raise exc

    def broken(self, what: str) -> ProviderProtocolError:
        """Return the failure of a reply that is none."""
        return ProviderProtocolError(f"model {self._model}: {what}")

    # Inside

    def _on_start(self, happened: Happened, _: bytes) -> None:
        if happened.message is None:
            raise self.broken("expected a message at the stream's beginning, found none")
        self._note_head(happened.message)
        self._note_usage(happened.message.usage)

    def _on_block(self, happened: Happened, _: bytes) -> Part | None:
        block = happened.content_block
        if block is None:
            raise self.broken("expected a block of content, found none")
        opened = self._blocks[happened.index] = _Open(block, self._calls)
        if block.type == "tool_use":
            self._calls += 1
            return self._part({"tool_calls": [opened.call()]}, calls=1)
        if block.type == "text" and block.text:
            return self._part({"content": block.text}, text=block.text)
        return None

    def _on_delta(self, happened: Happened, _: bytes) -> Part | None:
        delta, opened = happened.delta, self._blocks.get(happened.index)
        if delta is None or opened is None:
            raise self.broken("expected a change of a block that was opened, found another")
        opened.add(delta)
        if delta.type == "text_delta" and delta.text:
            return self._part({"content": delta.text}, text=delta.text)
        if delta.type == "thinking_delta" and delta.thinking:
            return self._part({"reasoning_content": delta.thinking})
        if delta.type == "input_json_delta" and delta.partial_json:
            return self._part({"tool_calls": [opened.arguments(delta.partial_json)]})
        return None

    def _on_block_end(self, happened: Happened, _: bytes) -> Part | None:
        opened = self._blocks.get(happened.index)
        if opened is None:
            return None
        if opened.block.type in _THOUGHTS:
            return self._part({"thinking_blocks": [_thought(opened.block)]})
        if opened.block.type == "tool_use" and not opened.has_arguments:
            return self._part({"tool_calls": [opened.arguments(_json(opened.block.input))]})
        return None

    def _on_end(self, happened: Happened, _: bytes) -> Part | None:
        self._note_usage(happened.usage)
        delta = happened.delta
        if delta is None or delta.stop_reason is None:
            return None
        self.is_finished = True
        finish = FINISH.get(delta.stop_reason, "stop")
        change: dict[str, Any] = {}
        if delta.stop_reason == "refusal":
            change["refusal"] = _refusal(delta.stop_details)
        return self._part(change, finish=finish)

    def _on_stop(self, _: Happened, __: bytes) -> None:
        self.is_done = True

    def _on_error(self, _: Happened, data: bytes) -> None:
        failure = failure_within(data, self._model, self._secret)
        raise failure or self.broken("the upstream put an error into its stream")

    def _note_head(self, message: Message) -> None:
        self._answered_by = message.model
        self._head = {"id": message.id, "created": self._head["created"], "model": message.model}

    def _note_usage(self, raw: msgspec.Raw) -> None:
        """Take over what is told of usage; a stream tells more as it goes on."""
        told = msgspec.json.decode(raw)
        if isinstance(told, dict):
            self._told.update({name: value for name, value in told.items() if value is not None})

    def _usage(self) -> Usage | None:
        try:
            return usage_from_anthropic(self._told)
        except UsageError:
            return None

    def _part(
        self, change: dict[str, Any], *, text: str = "", finish: str | None = None, calls: int = 0
    ) -> Part:
        if not self._has_begun:  # with the first words, so that until then another may answer
            self._has_begun = True
            change = {"role": "assistant", **change}
        choice = {"index": 0, "delta": change, "logprobs": None, "finish_reason": finish}
        data = self._event([choice])
        return Part(data, text, finish, model=self._answered_by, tool_calls=calls)

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        chunk = {**self._head, "object": "chat.completion.chunk", "choices": choices, **more}
        return b"data: " + _encode(chunk) + b"\n\n"


_HANDLERS = {
    "message_start": MessagesReader._on_start,
    "content_block_start": MessagesReader._on_block,
    "content_block_delta": MessagesReader._on_delta,
    "content_block_stop": MessagesReader._on_block_end,
    "message_delta": MessagesReader._on_end,
    "message_stop": MessagesReader._on_stop,
    "error": MessagesReader._on_error,
}


class _Open:
    """A block of a stream that is being written."""

    __slots__ = ("block", "has_arguments", "place")

    def __init__(self, block: Block, place: int) -> None:
        self.block = block
        self.place = place
        self.has_arguments = False

    def add(self, delta: Delta) -> None:
        """Take note of what must be known at the block's end."""
        self.block.thinking += delta.thinking
        self.block.signature += delta.signature
        self.has_arguments = self.has_arguments or bool(delta.partial_json)

    def call(self) -> dict[str, Any]:
        """Return the beginning of a tool call."""
        function = {"name": self.block.name, "arguments": ""}
        return {
            "index": self.place,
            "id": self.block.id,
            "type": "function",
            "function": function,
        }

    def arguments(self, text: str) -> dict[str, Any]:
        """Return a piece of a tool call's arguments."""
        return {"index": self.place, "function": {"arguments": text}}


def _said(message: Message, text: str) -> tuple[dict[str, Any], int]:
    """Return the message as OpenAI writes it, and how many tools it calls."""
    has_text = any(block.type == "text" for block in message.content)
    said: dict[str, Any] = {"role": "assistant", "content": text if has_text else None}
    is_refused = message.stop_reason == "refusal"
    said["refusal"] = _refusal(message.stop_details) if is_refused else None
    thoughts = [block for block in message.content if block.type in _THOUGHTS]
    if thoughts:
        said["reasoning_content"] = "".join(block.thinking for block in thoughts)
        said["thinking_blocks"] = [_thought(block) for block in thoughts]
    calls = [_call(block) for block in message.content if block.type == "tool_use"]
    if calls:
        said["tool_calls"] = calls
    return said, len(calls)


def _call(block: Block) -> dict[str, Any]:
    function = {"name": block.name, "arguments": _json(block.input)}
    return {"id": block.id, "type": "function", "function": function}


def _json(raw: msgspec.Raw) -> str:
    return bytes(raw).decode()


def _thought(block: Block) -> dict[str, str]:
    if block.type == "redacted_thinking":
        return {"type": block.type, "data": block.data}
    return {"type": block.type, "thinking": block.thinking, "signature": block.signature}


def _refusal(details: Any) -> str:
    return (details.explanation if details else None) or "the model declined to answer"
