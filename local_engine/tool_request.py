"""The tools that a client offers, checked against what the model's chat template can do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from local_engine.body import Body
from local_engine.errors import InvalidRequest, Unsupported
from local_engine.grammar import Constraint, Grammars
from local_engine.template import ChatTemplate
from local_engine.tools import Toolbox, style_of

_MAX_TOOLS = 128
_MAX_NAME = 64


def toolbox_of(fields: Body, template: ChatTemplate | None) -> Toolbox | None:
    """Return the tools that may be called, None where there are none or `tool_choice` says so.

    Raises `InvalidRequest`, and `Unsupported` where the template knows no tools.
    """
    offered = fields.values.get("tools")
    if not offered or fields.values.get("tool_choice") == "none":
        return None
    if not isinstance(offered, list) or len(offered) > _MAX_TOOLS:
        raise InvalidRequest(f"tools must be a list of up to {_MAX_TOOLS} tools.", "tools")
    schemas = dict(_tool(tool, f"tools[{n}]") for n, tool in enumerate(offered))
    style = None if template is None else style_of(template.source)
    if style is None:
        raise Unsupported("This checkpoint's chat template knows no tools.", "tools")
    is_parallel = fields.values.get("parallel_tool_calls") is not False
    return Toolbox(style, schemas, is_parallel)


def forced_calls(fields: Body, box: Toolbox | None, grammars: Grammars) -> Constraint | None:
    """Return the form of an answer that must call tools, where `tool_choice` asks for one."""
    choice = fields.values.get("tool_choice")
    if choice in (None, "auto", "none"):
        return None
    if box is None:
        raise InvalidRequest("tool_choice needs tools.", "tool_choice")
    name = None if choice == "required" else _named(choice)
    if name is not None and name not in box.schemas:
        raise InvalidRequest(
            f"tool_choice names {name[:80]!r}, which is not in tools.", "tool_choice"
        )
    return grammars.lark(box.grammar(grammars.tokenizer, only=name), "tools", is_ours=True)


def read_arguments(calls: Any, where: str) -> list[dict[str, Any]]:
    """Return the calls of an earlier turn with their arguments as objects, as templates expect."""
    if not isinstance(calls, list):
        raise InvalidRequest(f"{where} must be a list of calls.", where)
    return [_earlier_call(call, f"{where}[{n}]") for n, call in enumerate(calls)]


def disarmed(value: Any, disarm: Callable[[str], str]) -> Any:
    """Return a JSON value with every text in it disarmed, keys too."""
    if isinstance(value, str):
        return disarm(value)
    if isinstance(value, list):
        return [disarmed(v, disarm) for v in value]
    if isinstance(value, dict):
        return {disarm(k): disarmed(v, disarm) for k, v in value.items()}
    return value


def _tool(tool: Any, where: str) -> tuple[str, dict[str, Any]]:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or tool.get("type") != "function":
        raise InvalidRequest(f"{where} must be a tool of the type function.", where)
    name, schema = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME:
        raise InvalidRequest(f"{where}.function.name must be text.", f"{where}.function.name")
    if not isinstance(schema, dict | None):
        at = f"{where}.function.parameters"
        raise InvalidRequest(f"{at} must be a JSON schema.", at)
    return name, schema or {"type": "object", "properties": {}}


def _named(choice: Any) -> str:
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise InvalidRequest(
            "tool_choice must be none, auto, required or name a function.", "tool_choice"
        )
    return name


def _earlier_call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise InvalidRequest(f"{where}.function must have a name.", where)
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError) as exc:
            raise InvalidRequest(f"{where}.function.arguments must be JSON.", where) from exc
    return {**call, "function": {**function, "arguments": arguments}}
