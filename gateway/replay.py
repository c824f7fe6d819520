"""Whole replies as streams, and streams as whole replies.

A cached answer, or one that others wait for, may be asked for in the other mode
than it came in. Members that the chat completion format does not name are
carried along: of the reply in its first chunk, of a choice in its last, of a
message in a delta of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

Json = dict[str, Any]

_decode = msgspec.json.decode
_encode = msgspec.json.encode
_ABSENT = object()
# What every chunk repeats, and what a chunk alone has.
_EVERY_CHUNK = ("id", "created", "model", "service_tier", "system_fingerprint")
_CHUNK_ONLY = frozenset(("choices", "object", "obfuscation"))
# Texts that name something: repeated by some servers, so never joined.
_NAMES = frozenset(("id", "type", "role", "name", "format", "signature"))
_SPOKEN = ("content", "refusal")


def unfold(body: bytes, include_usage: bool) -> list[bytes]:
    """Return the events of the stream that would have carried this reply, without `[DONE]`.

    A choice is told in a role chunk, its texts, its tool calls and its finish; an
    event with the usage follows where `include_usage`. Raises ValueError when
    `body` is not a chat completion.
    """
    reply = _decode(body)
    if not isinstance(reply, dict) or not isinstance(reply.get("choices"), list):
        raise ValueError("expected a chat completion with choices")
    try:
        return [b"data: " + _encode(chunk) + b"\n\n" for chunk in _unfolded(reply, include_usage)]
    except (AttributeError, TypeError) as exc:
        raise ValueError("expected choices with messages, found something else") from exc


def _unfolded(reply: Json, include_usage: bool) -> list[Json]:
    usage = reply.get("usage") if include_usage else None
    head = {name: reply[name] for name in _EVERY_CHUNK if name in reply}
    head["object"] = "chat.completion.chunk"
    quiet = {**head, "usage": None} if usage is not None else head
    first = {k: v for k, v in reply.items() if k not in _CHUNK_ONLY and k != "usage"} | quiet
    chunks: list[Json] = []
    for choice in reply["choices"]:
        chunks += ({**(quiet if chunks else first), "choices": [c]} for c in _told(choice))
    if usage is not None:
        chunks.append({**head, "choices": [], "usage": usage})
    return chunks


def _told(choice: Json) -> Iterator[Json]:
    """Tell one choice as a stream does."""
    message: Json = choice.get("message") or {}
    index = choice.get("index", 0)
    logprobs = choice.get("logprobs")
    quiet = {"logprobs": None} if "logprobs" in choice else {}

    def told(delta: Json, said: Json = quiet) -> Json:
        return {"index": index, "delta": delta, **said, "finish_reason": None}

    yield told(_opening(message))
    for name, value in _sayings(message):
        if name in _SPOKEN and logprobs is not None:
            yield told({name: value}, {"logprobs": logprobs})
            logprobs = None
        else:
            yield told({name: value})
    for delta in _tool_deltas(message.get("tool_calls") or ()):
        yield told({"tool_calls": [delta]})
    rest = {k: v for k, v in choice.items() if k not in ("message", "logprobs")}
    end = {"logprobs": logprobs} if quiet else {}
    yield {**rest, "index": index, "delta": {}, **end, "finish_reason": rest.get("finish_reason")}


def _opening(message: Json) -> Json:
    """Return the first delta: who speaks, and the members that are empty."""
    opening = {"role": message.get("role", "assistant")}
    opening |= {name: value for name, value in message.items() if not value}
    if isinstance(message.get("content"), str):
        opening["content"] = ""
    return opening


def _sayings(message: Json) -> list[tuple[str, Any]]:
    """Return the members that say something, in the order that a client can show them."""
    said = {k: v for k, v in message.items() if v and k not in ("role", "tool_calls")}
    texts = [k for k, v in said.items() if isinstance(v, str) and k not in _SPOKEN]
    spoken = [k for k in _SPOKEN if k in said]
    others = [k for k in said if k not in texts and k not in spoken]
    return [(name, said[name]) for name in (*texts, *spoken, *others)]


def _tool_deltas(calls: Sequence[Json]) -> Iterator[Json]:
    """Announce each call with empty arguments, then give these, as clients expect it."""
    for index, call in enumerate(calls):
        function = call.get("function")
        if not isinstance(function, dict) or not function.get("arguments"):
            yield {**call, "index": index}
            continue
        yield {**call, "index": index, "function": {**function, "arguments": ""}}
        yield {"index": index, "function": {"arguments": function["arguments"]}}


def fold(events: Sequence[bytes]) -> bytes:
    """Return the whole reply that these events tell.

    Comments, empty events and `[DONE]` are passed over. Texts are joined, tool
    calls merged by their index, log-probabilities concatenated; of anything
    else the last word counts. Raises ValueError for an event that is no chunk,
    such as an error.
    """
    chunks = _chunks(events)
    try:
        return _encode(_folded(chunks))
    except (AttributeError, TypeError) as exc:
        raise ValueError("expected choices with deltas, found something else") from exc


def _folded(chunks: Sequence[Json]) -> Json:
    reply: Json = {"object": "chat.completion"}
    choices: dict[int, Json] = {}
    for chunk in chunks:
        for name, value in chunk.items():
            if name not in _CHUNK_ONLY and reply.get(name, _ABSENT) != value:
                _settle(reply, name, value)
        for told in chunk["choices"]:
            index = told.get("index", 0)
            if index not in choices:
                choices[index] = {"message": {}}
            _add_choice(choices[index], told)
    usage = reply.pop("usage", None)
    reply["choices"] = [_closed(index, choices[index]) for index in sorted(choices)]
    if usage is not None:
        reply["usage"] = usage
    return reply


def _chunks(events: Sequence[bytes]) -> list[Json]:
    chunks = [chunk for event in events if (chunk := _chunk(event)) is not None]
    if not chunks:
        raise ValueError("expected the events of a stream, found none")
    return chunks


def _chunk(event: bytes) -> Json | None:
    data = _data(event)
    if not data or data == b"[DONE]":
        return None
    chunk: Json = _decode(data)
    is_chunk = isinstance(chunk, dict) and isinstance(chunk.get("choices"), list)
    if not is_chunk or chunk.get("error"):
        raise ValueError(f"expected a chunk of a chat completion, found {data[:200]!r}")
    return chunk


def _data(event: bytes) -> bytes:
    """Return what the data lines of an event say; nearly always it is one line and no more."""
    line, _, rest = event.partition(b"\n")
    if line.startswith(b"data:") and rest == b"\n":
        return line[5:].strip()
    return b"\n".join(one[5:].strip() for one in event.splitlines() if one.startswith(b"data:"))


def _settle(target: Json, name: str, value: Any) -> None:
    """Let the last word count, but never an empty one against a full one."""
    if name not in target or value or (value is not None and not target[name]):
        target[name] = value


def _add_choice(choice: Json, told: Json) -> None:
    for name, value in told.items():
        if name == "delta":
            _add_delta(choice["message"], value or {})
        elif value is None and name in choice:
            continue
        elif name == "logprobs" or isinstance(value, list):
            _merge_member(choice, name, value)
        elif name != "index":
            _settle(choice, name, value)


def _add_delta(message: Json, delta: Json) -> None:
    for name, value in delta.items():
        if name == "tool_calls" and value:
            _merge_calls(message, value)
        else:
            _merge_member(message, name, value)


def _merge_calls(message: Json, deltas: Sequence[Json]) -> None:
    calls: list[Json] = message.get("tool_calls") or []
    message["tool_calls"] = calls
    for delta in deltas:
        # Servers that send each call in one piece may leave the index out.
        _merge_into(calls, {"index": len(calls), **delta})


def _merge_into(items: list[Any], delta: Any) -> None:
    """Merge a delta into the item of its index, or add it."""
    same = None
    if isinstance(delta, dict) and "index" in delta:
        same = next((item for item in items if _is_same(item, delta)), None)
    if same is None:
        items.append(delta)
    else:
        _merge(same, delta)


def _is_same(item: Any, delta: Json) -> bool:
    if not isinstance(item, dict) or item.get("index") != delta["index"]:
        return False
    types = item.get("type"), delta.get("type")
    return None in types or types[0] == types[1]


def _merge(target: Json, delta: Json) -> None:
    for name, value in delta.items():
        _merge_member(target, name, value)


def _merge_member(target: Json, name: str, value: Any) -> None:
    old = target.get(name)
    if not old:
        _settle(target, name, value)
    elif isinstance(old, str) and isinstance(value, str) and name not in _NAMES:
        target[name] = old + value
    elif isinstance(old, dict) and isinstance(value, dict):
        _merge(old, value)
    elif isinstance(old, list) and isinstance(value, list):
        for item in value:
            _merge_into(old, item)
    else:
        _settle(target, name, value)


def _closed(index: int, choice: Json) -> Json:
    """Return a choice as a whole reply has it; the index of a call belongs to the stream."""
    message: Json = choice.pop("message")
    for call in message.get("tool_calls") or ():
        call.pop("index", None)
    choice.setdefault("finish_reason", None)
    return {"index": index, "message": message, **choice}
