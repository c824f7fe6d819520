"""What is said in a chat, as blocks of the Messages API.

System and developer messages, wherever they stand, become the system prompt in
their order. Results of tools join the user turn that follows them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

Block = dict[str, Any]

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,", re.ASCII)
_IMAGES = ("image/gif", "image/jpeg", "image/png", "image/webp")
_NOT_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")
_MARK = "cache_control"


class Uncarried(ValueError):
    """Something that the Messages API cannot carry; `param` says where it stands."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(f"{param}: {message}")
        self.param = param


def told(messages: Sequence[Mapping[str, Any]]) -> tuple[list[Block], list[Block]]:
    """Return the system prompt's blocks, and the turns. Raises Uncarried."""
    system: list[Block] = []
    turns: list[Block] = []
    for index, message in enumerate(messages):
        role, where = message["role"], f"messages[{index}]"
        if role in ("system", "developer"):
            system += _marked_whole(message, _spoken(message.get("content"), where, _text_only))
            continue
        read = _ROLES.get(role)
        if read is None:
            known = "system, developer, user, assistant, tool"
            raise Uncarried(f"{where}.role", f"expected one of {known}; found {role!r}")
        if blocks := _marked_whole(message, read(message, where)):
            _add(turns, "assistant" if role == "assistant" else "user", blocks)
    return system, turns


def _add(turns: list[Block], role: str, blocks: list[Block]) -> None:
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"] += blocks
    else:
        turns.append({"role": role, "content": blocks})


def _marked_whole(message: Mapping[str, Any], blocks: list[Block]) -> list[Block]:
    """Let a mark on a whole message stand on its last block."""
    if blocks and isinstance(mark := message.get(_MARK), dict):
        blocks[-1] = {**blocks[-1], _MARK: mark}
    return blocks


# Roles


def _user(message: Mapping[str, Any], where: str) -> list[Block]:
    return _spoken(message.get("content"), where, _part)


def _assistant(message: Mapping[str, Any], where: str) -> list[Block]:
    thoughts = message.get("thinking_blocks")
    blocks = [b for b in thoughts if isinstance(b, dict)] if isinstance(thoughts, list) else []
    blocks += _spoken(message.get("content"), where, _own_part)
    if message.get("refusal"):
        blocks.append(_text(message["refusal"]))
    for index, call in enumerate(message.get("tool_calls") or ()):
        blocks.append(_tool_use(call, f"{where}.tool_calls[{index}]"))
    if message.get("function_call"):
        raise Uncarried(f"{where}.function_call", "is deprecated; use tool_calls")
    return blocks


def _tool(message: Mapping[str, Any], where: str) -> list[Block]:
    call_id = message.get("tool_call_id")
    if not isinstance(call_id, str):
        raise Uncarried(f"{where}.tool_call_id", "expected the id of a tool call")
    content = _spoken(message.get("content"), where, _part)
    result: Block = {"type": "tool_result", "tool_use_id": _id(call_id)}
    return [{**result, "content": content} if content else result]


_ROLES: Mapping[str, Callable[[Mapping[str, Any], str], list[Block]]] = {
    "user": _user,
    "assistant": _assistant,
    "tool": _tool,
}


# Parts


def _spoken(
    content: object, where: str, read: Callable[[Mapping[str, Any], str], Block | None]
) -> list[Block]:
    """Return a message's blocks; empty text, which the API refuses, is none."""
    if isinstance(content, str):
        return [_text(content)] if content.strip() else []
    return list(_parts(content, where, read)) if isinstance(content, list) else []


def _parts(
    content: list[Any], where: str, read: Callable[[Mapping[str, Any], str], Block | None]
) -> Iterator[Block]:
    for index, part in enumerate(content):
        block = read(part, f"{where}.content[{index}]")
        if block is not None:
            mark = part.get(_MARK)
            yield {**block, _MARK: mark} if isinstance(mark, dict) else block


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _text_only(part: Mapping[str, Any], where: str) -> Block | None:
    if part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise Uncarried(f"{where}.type", f"expected text here, found {part.get('type')!r}")
    return _text(part["text"]) if part["text"].strip() else None


def _own_part(part: Mapping[str, Any], where: str) -> Block | None:
    if part.get("type") == "refusal" and isinstance(part.get("refusal"), str):
        return _text(part["refusal"])
    if part.get("type") in ("thinking", "redacted_thinking"):
        return dict(part)
    return _text_only(part, where)


def _part(part: Mapping[str, Any], where: str) -> Block | None:
    kind = part.get("type")
    if kind == "image_url":
        return {"type": "image", "source": _image(part.get("image_url"), where)}
    if kind == "file":
        return {"type": "document", "source": _document(part.get("file"), where)}
    if kind == "text":
        return _text_only(part, where)
    raise Uncarried(
        f"{where}.type", f"expected text, image_url or file for this model, found {kind!r}"
    )


def _image(told: object, where: str) -> Block:
    url = told.get("url") if isinstance(told, dict) else told
    if not isinstance(url, str):
        raise Uncarried(f"{where}.image_url", "expected a URL")
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    return _base64(url, _IMAGES, f"{where}.image_url.url")


def _document(told: object, where: str) -> Block:
    data = told.get("file_data") if isinstance(told, dict) else None
    if not isinstance(data, str):
        raise Uncarried(f"{where}.file", "expected file_data as a data URL; ids are another's")
    return _base64(data, ("application/pdf",), f"{where}.file.file_data")


def _base64(url: str, kinds: Sequence[str], where: str) -> Block:
    found = _DATA_URL.match(url)
    kind = found[1].lower().replace("image/jpg", "image/jpeg") if found else None
    if found is None or kind not in kinds:
        expected = " or ".join(f"data:{known};base64,…" for known in kinds)
        raise Uncarried(where, f"expected {expected}; found data:{kind or '…'}")
    return {"type": "base64", "media_type": kind, "data": url[found.end() :]}


# Tool calls


def _tool_use(call: Mapping[str, Any], where: str) -> Block:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise Uncarried(f"{where}.function", "expected a function with a name")
    return {
        "type": "tool_use",
        "id": _id(str(call.get("id") or "")),
        "name": function["name"],
        "input": _arguments(function.get("arguments"), f"{where}.function.arguments"),
    }


def _arguments(text: object, where: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        arguments = msgspec.json.decode(text) if isinstance(text, str) else text
    except msgspec.DecodeError as exc:
        raise Uncarried(where, "expected a JSON object in a string, found no JSON") from exc
    if not isinstance(arguments, dict):
        raise Uncarried(where, "expected a JSON object in a string, found another value")
    return arguments


def _id(call_id: str) -> str:
    """Return an id in the letters that the API takes; call and result change alike."""
    return _NOT_IN_ID.sub("_", call_id)
