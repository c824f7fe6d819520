"""From a chat request to one of the Messages API, under one rule for what it cannot carry.

What would change the meaning of the answer is refused with its name; what only
advises (seeds, penalties, sampling where a model takes none) or serves the other
provider's bookkeeping is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.providers.messages.content import Block, Uncarried, told
from gateway.providers.messages.models import Traits

_CARRIED = frozenset(
    ("model", "messages", "stream", "max_tokens", "max_completion_tokens", "temperature", "top_p",
     "top_k", "stop", "tools", "tool_choice", "parallel_tool_calls", "response_format",
     "reasoning_effort", "thinking", "user", "safety_identifier", "metadata", "service_tier",
     "speed", "cache_control", "output_config")
)  # fmt: skip
_LEFT_OUT = frozenset(
    ("stream_options", "seed", "frequency_penalty", "presence_penalty", "store", "prediction",
     "verbosity", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options")
)  # fmt: skip
_PASSED = ("speed", "cache_control")
_NEUTRAL: Mapping[str, Any] = {"n": 1, "logprobs": False, "modalities": ["text"], "logit_bias": {}}
"""Members that may be there as long as they ask for nothing."""
_BUDGETS = {"minimal": 1_024, "low": 2_048, "medium": 8_192, "high": 16_384, "xhigh": 32_768}
_LEAST_BUDGET = 1_024
_EFFORT_NAMES = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def messages_request(
    body: Mapping[str, Any], traits: Traits, max_output: int | None
) -> dict[str, Any]:
    """Return the body of a Messages request. Raises Uncarried.

    `max_output` is what a model writes where the client sets no bound; the API
    wants one.
    """
    _refuse_uncarried(body)
    system, turns = told(body["messages"])
    if not turns:
        raise Uncarried("messages", "expected at least one message of a user")
    _end_neatly(turns)
    asked: dict[str, Any] = {
        "model": body["model"],
        "max_tokens": _bound(body) or max_output or traits.max_output,
        "messages": turns,
    }
    if system:
        asked["system"] = system
    if body.get("stream"):
        asked["stream"] = True
    _add_tools(asked, body)
    _add_thinking(asked, body, traits)
    _add_format(asked, body, traits)
    _add_sampling(asked, body, traits)
    _add_bookkeeping(asked, body)
    return asked


def _refuse_uncarried(body: Mapping[str, Any]) -> None:
    for name in body.keys() - _CARRIED - _LEFT_OUT:
        value = body[name]
        if value is None or (name in _NEUTRAL and value == _NEUTRAL[name]):
            continue
        if name == "top_logprobs" and not body.get("logprobs"):
            continue
        raise Uncarried(name, "this model's API cannot carry it; leave it out or ask another model")


def _bound(body: Mapping[str, Any]) -> int | None:
    bound = body.get("max_completion_tokens") or body.get("max_tokens")
    return bound if isinstance(bound, int) else None


def _end_neatly(turns: list[Block]) -> None:
    """Take white space off the end of an answer that is to be continued: the API refuses it."""
    last = turns[-1]["content"][-1]
    if turns[-1]["role"] == "assistant" and last["type"] == "text":
        last["text"] = last["text"].rstrip()


# Tools


def _add_tools(asked: dict[str, Any], body: Mapping[str, Any]) -> None:
    tools = body.get("tools")
    if not tools:
        return
    asked["tools"] = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)]
    choice = _choice(body.get("tool_choice"))
    if body.get("parallel_tool_calls") is False and choice.get("type") != "none":
        choice = {"type": "auto", **choice, "disable_parallel_tool_use": True}
    if choice:
        asked["tool_choice"] = choice


def _tool(tool: Mapping[str, Any], where: str) -> Block:
    function = tool.get("function")
    if tool.get("type") != "function" or not isinstance(function, dict):
        raise Uncarried(f"{where}.type", f"expected function, found {tool.get('type')!r}")
    made: Block = {
        "name": function.get("name"),
        "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
    }
    if function.get("description"):
        made["description"] = function["description"]
    if function.get("strict"):
        made["strict"] = True
    mark = tool.get("cache_control") or function.get("cache_control")
    return {**made, "cache_control": mark} if isinstance(mark, dict) else made


def _choice(choice: object) -> Block:
    if choice is None:
        return {}
    if isinstance(choice, str) and choice in _CHOICES:
        return {"type": _CHOICES[choice]}
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "tool", "name": (choice.get("function") or {}).get("name")}
    raise Uncarried("tool_choice", "expected auto, none, required or one function")


_CHOICES = {"auto": "auto", "required": "any", "none": "none"}


# Thinking


def _add_thinking(asked: dict[str, Any], body: Mapping[str, Any], traits: Traits) -> None:
    """Let the model think as hard as asked, in the words that it takes."""
    if isinstance(body.get("output_config"), dict):
        asked["output_config"] = dict(body["output_config"])
    if isinstance(body.get("thinking"), dict):
        asked["thinking"] = body["thinking"]
        return
    effort = body.get("reasoning_effort")
    if effort is None:
        return
    if effort not in _EFFORT_NAMES:
        known = ", ".join(_EFFORT_NAMES)
        raise Uncarried("reasoning_effort", f"expected one of {known}; found {effort!r}")
    if traits.efforts:
        level = _level(effort, traits.efforts)
        asked["output_config"] = {"effort": level, **asked.get("output_config", {})}
    if thinking := _thinking(effort, asked, traits):
        asked["thinking"] = thinking


def _level(effort: str, known: tuple[str, ...]) -> str:
    """Return the level asked for, or the nearest below that the model knows."""
    if effort in known:
        return effort
    place = _EFFORT_NAMES.index(effort)
    below = [level for level in known if _EFFORT_NAMES.index(level) < place]
    return below[-1] if below else known[0]


def _thinking(effort: str, asked: Mapping[str, Any], traits: Traits) -> Block | None:
    if effort == "none":
        return {"type": "disabled"} if traits.may_rest else None
    if traits.thinking == "adaptive":
        return {"type": "adaptive"}
    if traits.thinking == "none" or _is_forced(asked) or _continues_thoughtlessly(asked):
        return None
    # The budget is part of max_tokens; half of that is left for the answer.
    budget = min(_BUDGETS.get(effort, _BUDGETS["xhigh"]), asked["max_tokens"] // 2)
    return {"type": "enabled", "budget_tokens": budget} if budget >= _LEAST_BUDGET else None


def _is_forced(asked: Mapping[str, Any]) -> bool:
    """Return whether a tool must be called, which such a model cannot do while it thinks."""
    return asked.get("tool_choice", {}).get("type") in ("any", "tool")


def _continues_thoughtlessly(asked: Mapping[str, Any]) -> bool:
    """Return whether a tool's result follows a call whose thoughts the client did not keep."""
    turns = asked["messages"]
    if len(turns) < 2 or turns[-1]["content"][0]["type"] != "tool_result":
        return False
    return turns[-2]["content"][0]["type"] not in ("thinking", "redacted_thinking")


# The rest


def _add_format(asked: dict[str, Any], body: Mapping[str, Any], traits: Traits) -> None:
    wanted = body.get("response_format")
    if wanted is None or wanted.get("type") == "text":
        return
    schema = (wanted.get("json_schema") or {}).get("schema")
    if wanted.get("type") != "json_schema" or not isinstance(schema, dict):
        raise Uncarried(
            "response_format", "expected text, or json_schema with a schema: this model's API "
            "has no mode for JSON of any shape"
        )  # fmt: skip
    if traits.has_json_schema is False:
        raise Uncarried("response_format", "this model cannot hold its answer to a schema")
    form = {"type": "json_schema", "schema": schema}
    asked["output_config"] = {**asked.get("output_config", {}), "format": form}


def _add_sampling(asked: dict[str, Any], body: Mapping[str, Any], traits: Traits) -> None:
    stop = body.get("stop")
    if stop:
        asked["stop_sequences"] = _stops([stop] if isinstance(stop, str) else stop)
    thinks = asked.get("thinking", {}).get("type") in ("enabled", "adaptive")
    if not traits.samples or thinks:
        return
    temperature, top_p = body.get("temperature"), body.get("top_p")
    # OpenAI's scale ends at 2, this one at 1. Of both controls the API takes one.
    if temperature is not None:
        asked["temperature"] = min(temperature, 1.0)
    elif top_p is not None and top_p < 1:
        asked["top_p"] = top_p
    if isinstance(body.get("top_k"), int):
        asked["top_k"] = body["top_k"]


def _stops(stops: list[Any]) -> list[str]:
    for index, stop in enumerate(stops):
        if not isinstance(stop, str) or not stop.strip():
            where = f"stop[{index}]"
            raise Uncarried(where, "expected more than white space, which this model's API refuses")
    return stops


def _add_bookkeeping(asked: dict[str, Any], body: Mapping[str, Any]) -> None:
    noted = body.get("metadata")
    user = body.get("safety_identifier") or body.get("user")
    if not user and isinstance(noted, dict):
        user = noted.get("user_id")
    if isinstance(user, str) and user:
        asked["metadata"] = {"user_id": user}
    tier = body.get("service_tier")
    if tier in ("default", "standard_only"):
        asked["service_tier"] = "standard_only"
    for name in _PASSED:
        if body.get(name) is not None:
            asked[name] = body[name]
