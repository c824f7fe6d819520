"""The tool calls of a reply, read only where somebody judges them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from gateway.replay import fold
from router.validators import ToolCall


def calls_of(data: Sequence[bytes]) -> Sequence[ToolCall]:
    """Return the tool calls that a whole reply, or the events of one, tell.

    Events may begin with the first call. Nothing where they are not what they should be.
    """
    if not data:
        return ()
    try:
        whole = fold(data) if data[0].startswith(b"data:") else data[0]
        choices = msgspec.json.decode(whole)["choices"]
        return tuple(call for choice in choices for call in _of_message(choice["message"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ()


def _of_message(message: Mapping[str, Any]) -> Iterator[ToolCall]:
    functions = [each.get("function") for each in message.get("tool_calls") or ()]
    for function in (*functions, message.get("function_call")):
        if function:
            yield ToolCall(str(function["name"]), str(function.get("arguments") or ""))
