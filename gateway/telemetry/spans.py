"""From the account of a request to the spans of its trace, by the GenAI semantic conventions.

OpenTelemetry semantic conventions for generative AI, as of 1.40: one span for the
request as a server, one client span a call to a model. What only a gateway knows
(cache, cascade, money) stands under `frugal.`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from gateway.attempt import Attempt
from gateway.entry import Entry
from gateway.money.price import from_nano
from gateway.money.records import AttemptRecord, EntryRecord
from gateway.money.usage import Usage
from gateway.telemetry.context import TraceContext
from gateway.telemetry.secrets import blotted

_CALLED_OFF = ("accepted", "rejected", "rejected_early", "abandoned")
Value = str | bool | int | float | Sequence[str]


class Span(Struct, frozen=True):
    """One span; ids as numbers, moments in nanoseconds since the epoch."""

    name: str
    is_server: bool
    trace_id: int
    span_id: int
    parent_id: int
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value]
    error: str | None


class Account(Struct, frozen=True):
    """What is known of a request once it is settled: all that its spans are made of."""

    entry: Entry
    context: TraceContext
    record: EntryRecord
    lines: Sequence[AttemptRecord]


def spans_of(account: Account, *, texts: bool = False) -> list[Span]:
    """Return the request's own span and those of its calls; with `texts`, what was said."""
    entry, context, record = account.entry, account.context, account.record
    end_ns = _ns(record.started_at_us + record.latency_us)
    attributes = _of_request(entry, record)
    if texts:
        attributes["gen_ai.input.messages"] = _input(entry)
        if entry.served is not None:
            attributes["gen_ai.output.messages"] = _output(entry.served)
    served = Span(
        f"chat {record.requested_model}",
        True,
        context.trace_id,
        context.span_id,
        context.parent_id,
        _ns(record.started_at_us),
        end_ns,
        attributes,
        record.error,
    )
    calls = [
        _of_call(account, attempt, line, end_ns, texts=texts)
        for attempt, line in zip(entry.attempts, account.lines, strict=True)
    ]
    return [served, *calls]


def _of_request(entry: Entry, record: EntryRecord) -> dict[str, Value]:
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": record.requested_model,
        "http.request.method": "POST",
        "http.response.status_code": record.status,
        "url.path": "/v1/chat/completions",
        "frugal.request_id": record.request_id,
        "frugal.route": record.route,
        "frugal.tenant": record.tenant,
        "frugal.key": record.key,
        "frugal.cache": record.cache,
        "frugal.path": record.path,
        "frugal.cost_usd": _usd(record.cost_nano_usd),
        "frugal.saved_usd": _usd(record.saved_nano_usd),
        "frugal.estimated": record.estimated,
        **_usage(record.usage),
        **_asked(entry),
    }
    if record.model:
        attributes["gen_ai.response.model"] = record.model
    if record.tags:
        attributes["frugal.tags"] = record.tags
    if entry.similarity is not None:
        attributes["frugal.cache.similarity"] = entry.similarity
    if record.ttft_us is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = record.ttft_us / 1e6
    if record.error is not None:
        attributes["error.type"] = record.error
    return attributes


def _of_call(
    account: Account, attempt: Attempt, line: AttemptRecord, end_ns: int, *, texts: bool
) -> Span:
    entry, context = account.entry, account.context
    start_ns = _ns(account.record.started_at_us) + int(entry.began_after_s(attempt) * 1e9)
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": line.provider,
        "gen_ai.request.model": line.model,
        "gen_ai.request.stream": attempt.is_stream,
        "frugal.purpose": line.purpose,
        "frugal.outcome": line.outcome,
        "frugal.cost_usd": _usd(line.cost_nano_usd),
        **_usage(line.usage),
    }
    if attempt.answered_by is not None:
        attributes["gen_ai.response.model"] = attempt.answered_by
    if attempt.finish_reason is not None:
        attributes["gen_ai.response.finish_reasons"] = (attempt.finish_reason,)
    if line.ttft_us is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = line.ttft_us / 1e6
    if line.confidence is not None:
        attributes["frugal.confidence"] = line.confidence
    if line.reason:
        attributes["frugal.reason"] = line.reason
    if texts:
        attributes["gen_ai.output.messages"] = _output(attempt)
    error = None if line.outcome in _CALLED_OFF else line.outcome
    if error is not None:
        attributes["error.type"] = error
    return Span(
        f"chat {line.model}",
        False,
        context.trace_id,
        attempt.span_id,
        context.span_id,
        start_ns,
        min(start_ns + line.latency_us * 1000, max(end_ns, start_ns)),
        attributes,
        error,
    )


def _asked(entry: Entry) -> dict[str, Value]:
    fields = entry.request.fields
    told: dict[str, Value | None] = {
        "gen_ai.request.max_tokens": entry.request.max_tokens,
        "gen_ai.request.temperature": fields.temperature,
        "gen_ai.request.top_p": fields.top_p,
        "gen_ai.request.choice.count": fields.n if fields.n != 1 else None,
        "gen_ai.request.stream": entry.request.stream,
    }
    return {name: value for name, value in told.items() if value is not None}


def _usage(usage: Usage) -> dict[str, Value]:
    """Return token counts: what was read includes what was cached, as the conventions have it."""
    told: dict[str, Value] = {
        "gen_ai.usage.input_tokens": usage.prompt,
        "gen_ai.usage.output_tokens": usage.output + usage.reasoning + usage.audio_output,
    }
    if usage.cached_input:
        told["gen_ai.usage.cache_read.input_tokens"] = usage.cached_input
    if written := usage.cache_write + usage.cache_write_1h:
        told["gen_ai.usage.cache_creation.input_tokens"] = written
    if usage.reasoning:
        told["gen_ai.usage.reasoning.output_tokens"] = usage.reasoning
    return told


def _input(entry: Entry) -> str:
    said = [
        {"role": message.get("role"), "parts": _parts(message.get("content"))}
        for message in entry.request.body["messages"]
    ]
    return _json(said)


def _output(attempt: Attempt) -> str:
    parts = _parts(attempt.text)
    return _json(
        [{"role": "assistant", "parts": parts, "finish_reason": attempt.finish_reason or "error"}]
    )


def _parts(content: object) -> list[dict[str, Any]]:
    """Return what was said as parts; of images and files only that they were there."""
    if not isinstance(content, list):
        return [{"type": "text", "content": blotted(str(content))}] if content else []
    parts: list[dict[str, Any]] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        is_text = kind == "text" and isinstance(part.get("text"), str)
        parts.append(
            {"type": "text", "content": blotted(part["text"])} if is_text else {"type": str(kind)}
        )
    return parts


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _usd(nano: int) -> float:
    return float(from_nano(nano))


def _ns(micros: int) -> int:
    return micros * 1000
