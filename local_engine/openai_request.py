"""What a client asks in OpenAI's words, checked and turned into engine requests."""

from __future__ import annotations

import functools
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, NoReturn

from local_engine.beam_request import beam_rules, beam_width
from local_engine.beams import BeamRules
from local_engine.body import Body, kind_of
from local_engine.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    UnknownModel,
    Unsupported,
)
from local_engine.form import form_of
from local_engine.grammar import Grammars
from local_engine.loader import LoadedModel
from local_engine.tool_request import disarmed, forced_calls, read_arguments, toolbox_of
from local_engine.tools import Toolbox
from local_engine.types import GenerationRequest, Sampling

_MAX_STOPS = 16
_MAX_STOP_CHARS = 256
_MAX_CHOICES = 16
_MAX_BIASES = 1024
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_ODD = 0x9E3779B97F4A7C15


@dataclass(frozen=True, slots=True)
class Ask:
    """A completion request after all checks; `requests` holds one entry per choice.

    `best_of` is how many answers each prompt gets where not all of them are returned, and
    `copies` how many are. With `beams`, which hold the rules of each prompt's search, the
    `copies` requests of a prompt stand for its best answers.
    """

    kind: Literal["chat", "text"]
    requests: tuple[GenerationRequest, ...]
    streams: bool
    has_usage: bool
    has_logprobs: bool
    has_token_stats: bool
    best_of: int = 1
    copies: int = 1
    tools: Toolbox | None = None
    beams: tuple[BeamRules, ...] = ()


@dataclass(frozen=True, slots=True)
class Served:
    """What requests are read against."""

    name: str
    model: LoadedModel
    context: int
    grammars: Grammars
    adapters: tuple[str, ...] = ()


def parse_json(body: bytes) -> dict[str, Any]:
    """Read a JSON object strictly: no NaN, no broken text, no bottomless nesting."""
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except RecursionError as exc:
        raise InvalidRequest("The body is nested too deeply.") from exc
    except ValueError as exc:
        raise InvalidRequest(f"The body is not valid JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise InvalidRequest(f"The body must be a JSON object, found {kind_of(value)}.")
    return value


def parse_chat(body: Mapping[str, Any], served: Served, id: str, now: datetime) -> Ask:
    """Read a /v1/chat/completions body; raises `InvalidRequest` and `UnknownModel`."""
    fields = Body(body)
    _adapter(fields, served)
    _refuse_unbuilt_chat(fields)
    box = toolbox_of(fields, served.model.template)
    tokens = _chat_prompt(fields, served.model, now, has_tools=box is not None)
    has_logprobs = fields.flag("logprobs")
    top = fields.integer("top_logprobs", 0, 20, 0)
    if top and not has_logprobs:
        raise InvalidRequest("top_logprobs needs logprobs: true.", "top_logprobs")
    limit = fields.optional_integer("max_completion_tokens", 1, 1 << 30)
    if limit is None:
        limit = fields.optional_integer("max_tokens", 1, 1 << 30)
    if limit is None:
        limit = served.model.max_tokens
    logprobs = top if has_logprobs else None
    return _ask("chat", fields, served, id, [tokens], limit=limit, logprobs=logprobs, box=box)


def parse_text(body: Mapping[str, Any], served: Served, id: str) -> Ask:
    """Read a /v1/completions body; raises `InvalidRequest` and `UnknownModel`."""
    fields = Body(body)
    _adapter(fields, served)
    for key in ("suffix", "echo"):
        if fields.values.get(key):
            raise Unsupported(f"{key} is not supported by this engine.", key)
    prompts = _text_prompts(fields, served)
    limit = fields.integer("max_tokens", 1, 1 << 30, 16)
    logprobs = fields.optional_integer("logprobs", 0, 20)
    return _ask("text", fields, served, id, prompts, limit=limit, logprobs=logprobs)


def _ask(
    kind: Literal["chat", "text"],
    fields: Body,
    served: Served,
    id: str,
    prompts: list[tuple[int, ...]],
    *,
    limit: int | None,
    logprobs: int | None,
    box: Toolbox | None = None,
) -> Ask:
    copies = fields.integer("n", 1, _MAX_CHOICES, 1)
    best_of = _best_of(fields, copies)
    width = beam_width(fields, best_of)
    if width is not None:
        best_of = copies
    if len(prompts) * (width or best_of) > 64:
        raise InvalidRequest("A request may ask for 64 answers at most.", "prompt")
    sampling = _sampling(fields, served.model.sampling)
    adapter = _adapter(fields, served)
    constraint = form_of(fields, served.grammars)
    if box is not None and constraint is not None:
        raise Unsupported("Tools and a form of the answer are not built together.", "tools")
    constraint = constraint or forced_calls(fields, box, served.grammars)
    options = fields.mapping("stream_options")
    frugal = Body(fields.mapping("frugal"))
    tenant = frugal.text("tenant", "")
    priority = frugal.integer("priority", -8, 8, 0)
    deadline_s = frugal.optional_number("deadline_s", 0.001, 86400.0)
    choices = [(n, prompt, copy) for n, prompt in enumerate(prompts) for copy in range(best_of)]
    requests = tuple(
        GenerationRequest(
            id=f"{id}/{index}",
            prompt=prompt,
            max_tokens=_room(prompt, limit, served.context),
            sampling=replace(sampling, seed=(sampling.seed + copy * _ODD) % (1 << 64)),
            stop=_stops(fields),
            top_logprobs=logprobs or 0,
            ignore_end=fields.flag("ignore_eos"),
            constraint=constraint,
            tenant=tenant,
            group=f"{id}/{n}" if best_of > 1 else "",
            priority=priority,
            deadline_s=deadline_s,
            adapter=adapter,
            shown=frozenset() if box is None else box.shown(served.model.tokenizer),
        )
        for index, (n, prompt, copy) in enumerate(choices)
    )
    ends = served.model.end_ids
    beams = [] if width is None else [r.max_tokens for r in requests[::copies]]
    return Ask(
        kind,
        requests,
        streams=fields.flag("stream"),
        has_usage=Body(options).flag("include_usage"),
        has_logprobs=logprobs is not None,
        has_token_stats=frugal.flag("token_stats"),
        best_of=best_of,
        copies=copies,
        tools=box,
        beams=tuple(beam_rules(fields, width or 1, most, ends) for most in beams),
    )


def _best_of(fields: Body, copies: int) -> int:
    """Return how many answers to make of each prompt, of which the likeliest are returned."""
    best_of = fields.integer("best_of", 1, _MAX_CHOICES, copies)
    if best_of < copies:
        raise InvalidRequest("best_of must be at least n.", "best_of")
    if best_of > copies and fields.flag("stream"):
        raise InvalidRequest("best_of above n cannot be streamed.", "best_of")
    return best_of


def _room(prompt: tuple[int, ...], limit: int | None, context: int) -> int:
    """Return how many tokens may be generated: as asked, but never past the context."""
    room = context - len(prompt)
    if room < 1:
        raise ContextLengthExceeded(len(prompt), context)
    return room if limit is None else min(limit, room)


def _adapter(fields: Body, served: Served) -> str:
    """Return the adapter that is asked for by the name of its model; empty for none."""
    asked = fields.text("model", served.name)
    if asked != served.name and asked not in served.adapters:
        raise UnknownModel(asked[:200], "', '".join((served.name, *served.adapters)))
    return "" if asked == served.name else asked


def _refuse_unbuilt_chat(fields: Body) -> None:
    for key in ("functions", "audio", "prediction"):
        if fields.values.get(key):
            raise Unsupported(f"{key} is not supported by this engine.", key)


def _chat_prompt(
    fields: Body, model: LoadedModel, now: datetime, *, has_tools: bool
) -> tuple[int, ...]:
    """Render the messages and tokenize what comes out."""
    messages = _messages(fields)
    if model.template is None:
        raise Unsupported("This checkpoint has no chat template; use /v1/completions.", "messages")
    mark = secrets.token_hex(16)
    disarm = functools.partial(model.tokenizer.disarm, mark=mark)
    messages = [{k: disarmed(v, disarm) for k, v in m.items()} for m in messages]
    tools = disarmed(fields.values["tools"], disarm) if has_tools else None
    variables = fields.mapping("chat_template_kwargs")
    prompt = model.template.render(messages, now=now, variables=variables, tools=tools)
    pieces = [model.tokenizer.encode(p, add_special=False) for p in prompt.split(mark)]
    return tuple(token for piece in pieces for token in piece)


def _messages(fields: Body) -> list[dict[str, Any]]:
    found = fields.values.get("messages")
    if not isinstance(found, list) or not found:
        raise InvalidRequest("messages must be a list with at least one message.", "messages")
    return [_message(value, f"messages[{index}]") for index, value in enumerate(found)]


def _message(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{where} must be an object, found {kind_of(value)}.", where)
    if value.get("role") not in _ROLES:
        raise InvalidRequest(f"{where}.role must be one of {', '.join(_ROLES)}.", f"{where}.role")
    content = value.get("content")
    if content is None and value["role"] == "assistant":
        content = ""
    if value.get("tool_calls") is not None:
        value = {**value, "tool_calls": read_arguments(value["tool_calls"], f"{where}.tool_calls")}
    # OpenAI renamed the system role; chat templates know the old name.
    role = "system" if value["role"] == "developer" else value["role"]
    return {**value, "role": role, "content": _content(content, f"{where}.content")}


def _content(content: Any, where: str) -> str:
    """Return the text of a message: a string, or text parts joined."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidRequest(f"{where} must be text or parts, found {kind_of(content)}.", where)
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            raise Unsupported(f"{where}: this engine reads text parts only, found {kind!r}.", where)
        texts.append(part["text"])
    return "".join(texts)


def _text_prompts(fields: Body, served: Served) -> list[tuple[int, ...]]:
    prompt = fields.values.get("prompt")
    many = prompt if isinstance(prompt, list) and not _is_ids(prompt) else [prompt]
    if not many:
        raise InvalidRequest("prompt must hold text.", "prompt")
    return [_text_prompt(one, served) for one in many]


def _text_prompt(prompt: Any, served: Served) -> tuple[int, ...]:
    if isinstance(prompt, str):
        tokens = served.model.tokenizer.encode(prompt, add_special=True)
    elif isinstance(prompt, list) and _is_ids(prompt):
        tokens = tuple(prompt)
    else:
        raise InvalidRequest("prompt must be text, token ids, or a list of these.", "prompt")
    if not tokens:
        raise InvalidRequest("prompt must not be empty.", "prompt")
    return tokens


def _is_ids(value: list[Any]) -> bool:
    return bool(value) and all(type(item) is int for item in value)


def _sampling(fields: Body, default: Sampling) -> Sampling:
    seed = fields.optional_integer("seed", -(1 << 63), 1 << 63)
    return Sampling(
        temperature=fields.number("temperature", 0.0, 2.0, default.temperature),
        top_p=fields.number("top_p", 0.0, 1.0, default.top_p),
        top_k=max(0, fields.integer("top_k", -1, 1 << 30, default.top_k)),
        min_p=fields.number("min_p", 0.0, 1.0, default.min_p),
        presence_penalty=fields.number("presence_penalty", -2.0, 2.0, 0.0),
        frequency_penalty=fields.number("frequency_penalty", -2.0, 2.0, 0.0),
        repetition_penalty=fields.number(
            "repetition_penalty", 0.01, 10.0, default.repetition_penalty
        ),
        logit_bias=_logit_bias(fields),
        seed=secrets.randbits(63) if seed is None else seed,
    )


def _logit_bias(fields: Body) -> dict[int, float]:
    found = fields.mapping("logit_bias")
    if len(found) > _MAX_BIASES:
        raise InvalidRequest(f"logit_bias may hold {_MAX_BIASES} tokens at most.", "logit_bias")
    is_sound = all(
        key.isascii()
        and key.isdigit()
        and len(key) < 10
        and type(value) in (int, float)
        and -100.0 <= value <= 100.0
        for key, value in found.items()
    )
    if not is_sound:
        raise InvalidRequest(
            "logit_bias must map token ids to numbers from -100 to 100.", "logit_bias"
        )
    return {int(key): float(value) for key, value in found.items()}


def _stops(fields: Body) -> tuple[str, ...]:
    found = fields.values.get("stop")
    stops = [found] if isinstance(found, str) else found or []
    is_sound = isinstance(stops, list) and all(
        isinstance(s, str) and 0 < len(s) <= _MAX_STOP_CHARS for s in stops
    )
    if not is_sound or len(stops) > _MAX_STOPS:
        raise InvalidRequest(
            f"stop must be text or up to {_MAX_STOPS} texts of 1 to {_MAX_STOP_CHARS} characters.",
            "stop",
        )
    return tuple(stops)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
