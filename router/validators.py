"""What a request demands of the form of its reply: JSON, a schema, tools, code that parses.

A schema is read as most requests write it (`type`, `properties`, `required`,
`items`, `enum`, `const`, bounds, `anyOf` and `additionalProperties`). A keyword
beyond those is not checked: the reply may then break a rule that is not seen,
but none is called wrong that is right.
"""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NAMES: tuple[str, ...] = (
    "json_wanted", "json_valid", "schema_held", "tools_called", "tools_known", "arguments_held",
    "code_blocks", "code_parses",
)  # fmt: skip

_MOST = 200_000  # characters of JSON that are read
_DEEPEST = 40
_CODE = re.compile(r"```(?:python|py)\s*\n(.{0,20000}?)```", re.DOTALL)
_FENCE = re.compile(r"^\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a reply makes. `arguments` is JSON as the model wrote it."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks of the form. `tools` are the schemas of their arguments, by name."""

    json: bool = False
    schema: Mapping[str, Any] | None = None
    tools: Mapping[str, Mapping[str, Any]] | None = None

    @classmethod
    def of_request(cls, body: Mapping[str, Any]) -> Wanted:
        """Read `response_format` and `tools` of a chat completion request."""
        if not (body.get("response_format") or body.get("tools")):
            return NOTHING
        form = body.get("response_format")
        form = form if isinstance(form, Mapping) else {}
        inner = form.get("json_schema")
        schema = inner.get("schema") if isinstance(inner, Mapping) else None
        return cls(
            json=form.get("type") in ("json_object", "json_schema"),
            schema=schema if isinstance(schema, Mapping) else None,
            tools=dict(_tools(body.get("tools"))) or None,
        )


NOTHING = Wanted()


def _tools(tools: Any) -> list[tuple[str, Mapping[str, Any]]]:
    functions = [each.get("function") for each in tools or () if isinstance(each, Mapping)]
    return [
        (str(each.get("name")), each.get("parameters") or {})
        for each in functions
        if isinstance(each, Mapping)
    ]


def validator_features(
    text: str, calls: Sequence[ToolCall], wanted: Wanted = NOTHING
) -> tuple[float, ...]:
    """Return the features of `NAMES`; NaN where nothing of the kind was asked or given."""
    return (*_of_json(text, calls, wanted), *_of_tools(calls, wanted), *_of_code(text))


def fault_of(text: str, calls: Sequence[ToolCall], wanted: Wanted) -> str | None:
    """Return in a few words how a reply breaks the form that was asked for; None where it does not.

    Stricter than the features: JSON within a fence is none to who parses it.
    """
    if wanted.tools is not None:
        for call in calls:
            if call.name not in wanted.tools:
                return "calls a tool that was not offered"
            if not _arguments_hold(call, wanted.tools[call.name]):
                return "a tool's arguments break their schema"
    if calls or not (wanted.json or wanted.schema):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "is no JSON"
    return None if wanted.schema is None or holds(value, wanted.schema) else "breaks its schema"


def _of_json(text: str, calls: Sequence[ToolCall], wanted: Wanted) -> tuple[float, ...]:
    if calls or not (wanted.json or wanted.schema):
        return 0.0, math.nan, math.nan
    found = _FENCE.match(text[:_MOST])
    try:
        value = json.loads(found[1] if found else text[:_MOST])
    except (ValueError, RecursionError):
        return 1.0, 0.0, 0.0 if wanted.schema else math.nan
    held = math.nan if wanted.schema is None else float(holds(value, wanted.schema))
    # A fence round the JSON is what a strict reader stumbles over.
    return 1.0, 0.5 if found else 1.0, held


def _of_tools(calls: Sequence[ToolCall], wanted: Wanted) -> tuple[float, ...]:
    if wanted.tools is None or not calls:
        return float(len(calls)), math.nan, math.nan
    known = [call for call in calls if call.name in wanted.tools]
    held = [_arguments_hold(call, wanted.tools[call.name]) for call in known]
    return float(len(calls)), len(known) / len(calls), sum(held) / len(calls)


def _arguments_hold(call: ToolCall, schema: Mapping[str, Any]) -> bool:
    try:
        value = json.loads(call.arguments[:_MOST] or "{}")
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and holds(value, schema)


def _of_code(text: str) -> tuple[float, float]:
    blocks = _CODE.findall(text) if "```" in text else []
    if not blocks:
        return 0.0, math.nan
    return float(len(blocks)), sum(map(_parses, blocks)) / len(blocks)


def _parses(code: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "invalid escape sequence": not our code
            ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def holds(value: Any, schema: Any) -> bool:
    """Return whether a value keeps to a JSON schema, as far as its keywords are read.

    A schema that is none itself (`minItems: "x"`) is no fault of the reply.
    """
    try:
        return _holds(value, schema, 0)
    except (TypeError, AttributeError, RecursionError):
        return True


def _holds(value: Any, schema: Any, depth: int) -> bool:
    if schema is False:
        return False
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return True
    return all(
        check(value, schema[keyword], schema, depth)
        for keyword, check in _CHECKS.items()
        if keyword in schema
    )


_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "integer": lambda v: (
        (isinstance(v, int) and not isinstance(v, bool))
        or (isinstance(v, float) and v.is_integer())
    ),
}


def _has_type(value: Any, wanted: Any, schema: Any, depth: int) -> bool:
    names = wanted if isinstance(wanted, list) else [wanted]
    return any(_TYPES.get(str(name), lambda v: True)(value) for name in names)


def _has_members(value: Any, wanted: Any, schema: Any, depth: int) -> bool:
    if not isinstance(value, dict) or not isinstance(wanted, Mapping):
        return True
    return all(_holds(value[key], each, depth + 1) for key, each in wanted.items() if key in value)


def _has_required(value: Any, wanted: Any, schema: Any, depth: int) -> bool:
    return not isinstance(value, dict) or all(key in value for key in wanted)


def _has_no_others(value: Any, wanted: Any, schema: Any, depth: int) -> bool:
    if not isinstance(value, dict) or "patternProperties" in schema:
        return True
    others = [each for key, each in value.items() if key not in schema.get("properties", {})]
    return all(_holds(each, wanted, depth + 1) for each in others)


def _has_items(value: Any, wanted: Any, schema: Any, depth: int) -> bool:
    if not isinstance(value, list) or "prefixItems" in schema:
        return True
    return all(_holds(each, wanted, depth + 1) for each in value)


def _same(one: Any, other: Any) -> bool:
    """Compare as JSON does: true is not one."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _is_number(value: Any) -> bool:
    return _TYPES["number"](value)


_CHECKS: Mapping[str, Callable[[Any, Any, Any, int], bool]] = {
    "type": _has_type,
    "enum": lambda v, wanted, s, d: any(_same(v, each) for each in wanted),
    "const": lambda v, wanted, s, d: _same(v, wanted),
    "properties": _has_members,
    "required": _has_required,
    "additionalProperties": _has_no_others,
    "items": _has_items,
    "minItems": lambda v, n, s, d: not isinstance(v, list) or len(v) >= n,
    "maxItems": lambda v, n, s, d: not isinstance(v, list) or len(v) <= n,
    "minLength": lambda v, n, s, d: not isinstance(v, str) or len(v) >= n,
    "maxLength": lambda v, n, s, d: not isinstance(v, str) or len(v) <= n,
    "minimum": lambda v, n, s, d: not _is_number(v) or v >= n,
    "maximum": lambda v, n, s, d: not _is_number(v) or v <= n,
    "anyOf": lambda v, each, s, d: any(_holds(v, one, d + 1) for one in each),
    "allOf": lambda v, each, s, d: all(_holds(v, one, d + 1) for one in each),
}
