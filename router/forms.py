"""The form that a logged request asked for, and the tool calls of a logged reply.

They stand in a table as the API writes them: `response_format` an object, `tools` and
`tool_calls` lists; or as JSON text, for formats without nested columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from router.validators import ToolCall, Wanted

FORMS: tuple[str, ...] = ("response_format", "tools")
"""Columns of the request; `tool_calls` is of the reply."""


def is_object(value: Any) -> bool:
    """Return whether a cell holds a JSON object, or its text."""
    return isinstance(_opened(value), dict)


def is_list(value: Any) -> bool:
    """Return whether a cell holds a list of JSON objects, or its text."""
    found = _opened(value)
    return isinstance(found, list) and all(isinstance(each, dict) for each in found)


def wanted_of(response_format: Any, tools: Any) -> Wanted:
    """Return what was asked of a reply's form; both cells may be None."""
    return Wanted.of_request({"response_format": _opened(response_format), "tools": _opened(tools)})


def calls_in(tool_calls: Any) -> tuple[ToolCall, ...]:
    """Return the calls of a cell; None holds none."""
    return tuple(_calls(_opened(tool_calls)))


def _calls(found: Any) -> Iterator[ToolCall]:
    for each in found if isinstance(found, list) else ():
        function = each.get("function", each) if isinstance(each, Mapping) else None
        if isinstance(function, Mapping) and isinstance(function.get("name"), str):
            yield ToolCall(function["name"], _text(function.get("arguments")))


def _text(arguments: Any) -> str:
    if isinstance(arguments, str):
        return arguments
    return msgspec.json.encode(arguments if arguments is not None else {}).decode()


def _opened(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value.encode("utf-8", "replace"))
    except (msgspec.DecodeError, RecursionError):
        return None
