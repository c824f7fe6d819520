"""Our own count, where a provider reported none: a guess with bounds that contain the bill.

The bounds rest on what every byte-level BPE tokenizer has in common. Each token
stands for at least one byte of UTF-8, so there are at most as many tokens as
bytes; no vocabulary in use holds a token of more than `LONGEST_TOKEN` bytes
(the longest known are 128), so there are at least bytes / LONGEST_TOKEN. On top
of the text, chat templates add the stated overheads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.money.usage import Usage

LONGEST_TOKEN = 256
REQUEST_OVERHEAD = 512
"""Tokens that a template may add once: a default system prompt, dates, generation marks."""
MESSAGE_OVERHEAD = 32
"""Tokens around one message or one tool call: role, name, separators."""
TOOL_OVERHEAD = 128
"""Tokens around one tool's schema, beside twice its indented JSON."""
UNASKED = 262_144
"""Tokens of a prompt that nobody sent: a provider's instructions, what its search has found."""
IMAGE_MOST = 65_536
"""Tokens of one image at the highest detail that any provider bills."""
IN_FLIGHT = 4_096
"""Tokens generated, and billed, after the last one that reached us."""


@dataclass(frozen=True, slots=True)
class Bounded:
    """A usage of our own counting; the true one lies between `lower` and `upper`."""

    usage: Usage
    lower: Usage
    upper: Usage


@dataclass(frozen=True, slots=True)
class _Span:
    least: int
    guess: int
    most: int


def estimate_usage(
    prompt: Mapping[str, Any] | str | bytes,
    completion: str,
    *,
    is_complete: bool = False,
    may_reason: bool = True,
    max_output: int | None = None,
    elapsed_s: float = 0.0,
) -> Bounded:
    """Count a call by ourselves.

    `prompt` is the chat request's JSON object, or bare text. A completion that is
    cut off, or of a model that may reason, may have cost more than was seen
    (tokens in flight, thoughts that nobody shows): its upper bound is the
    request's own limit, at most `max_output` a choice; where neither is known,
    `IN_FLIGHT` beyond what was seen. `elapsed_s` bounds the busy time of a machine of ours.
    """
    asked = _prompt(prompt)
    is_seen = is_complete and not may_reason
    given = _completion(completion, _limit(prompt, max_output), is_seen=is_seen)
    # A call of which nothing came back may not have been begun.
    has_begun = is_complete or bool(completion)
    return Bounded(
        usage=_usage(asked.guess, given.guess, elapsed_s),
        lower=_usage(asked.least if has_begun else 0, given.least, 0.0),
        upper=_usage(asked.most, given.most, elapsed_s),
    )


def most_prompt_tokens(prompt: Mapping[str, Any]) -> int:
    """Return the upper bound of `estimate_usage` for a chat request's prompt, without the rest.

    Each request is bounded by it before it is sent, so the usual one, of texts
    alone, is not looked at any closer than that takes.
    """
    if not (prompt.get("tools") or prompt.get("response_format")):
        most = REQUEST_OVERHEAD
        for message in prompt["messages"]:
            text = message.get("content")
            if type(text) is not str or len(message) > 2:
                break
            size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
            most += size + MESSAGE_OVERHEAD
        else:
            return most
    return _prompt(prompt).most


def is_beyond_belief(usage: Usage, size: int) -> bool:
    """Return whether a report counts more prompt than a text of `size` bytes can be.

    Two tokens a byte and what a server may add of its own accord are granted.
    """
    return usage.prompt > 2 * size + UNASKED


def guess_tokens(text: str) -> int:
    """Return about how many tokens a text has: a quarter of its ASCII, most other characters."""
    wide = (len(text.encode("utf-8", "surrogatepass")) - len(text)) / 2
    return max(1, round((len(text) - wide) / 4 + wide * 0.8)) if text else 0


def _usage(tokens_in: int, tokens_out: int, compute_s: float) -> Usage:
    return Usage(input=tokens_in, output=tokens_out, compute_s=compute_s, estimated=True)


def _completion(text: str, limit: int | None, *, is_seen: bool) -> _Span:
    """Bound an answer; `is_seen` where all that is billed of it has been shown."""
    size = len(text.encode("utf-8", "surrogatepass"))
    least = -(-size // LONGEST_TOKEN)
    guess = max(least, guess_tokens(text))
    # All is seen: the text, its end mark, and a call's framing where it is a tool's arguments.
    most = size + (MESSAGE_OVERHEAD if is_seen else IN_FLIGHT)
    if limit is not None and limit >= least:
        most = min(most, limit) if is_seen else limit
        guess = min(guess, limit)
    return _Span(least, guess, most)


def _limit(prompt: Mapping[str, Any] | str | bytes, max_output: int | None) -> int | None:
    if not isinstance(prompt, Mapping):
        return max_output
    asked = prompt.get("max_completion_tokens") or prompt.get("max_tokens")
    told = [each for each in (asked, max_output) if type(each) is int]
    limit = min(told, default=None)
    choices = prompt.get("n")
    return limit * (choices if type(choices) is int else 1) if limit is not None else None


def _prompt(prompt: Mapping[str, Any] | str | bytes) -> _Span:
    if isinstance(prompt, bytes):
        prompt = prompt.decode("utf-8", "replace")
    if isinstance(prompt, str):
        return _text(prompt, most=REQUEST_OVERHEAD + MESSAGE_OVERHEAD)
    said = prompt.get("messages")
    messages = said if isinstance(said, list) else []
    spans = [_message(m) for m in messages if isinstance(m, Mapping)]
    spans += _tools(prompt)
    return _Span(
        sum(span.least for span in spans),
        sum(span.guess for span in spans) + 3,
        sum(span.most for span in spans) + REQUEST_OVERHEAD,
    )


def _text(text: str, most: int) -> _Span:
    # Templates may trim a message, so the spaces at its ends prove nothing.
    kept = len(text.strip().encode("utf-8", "surrogatepass"))
    size = len(text.encode("utf-8", "surrogatepass"))
    return _Span(-(-kept // LONGEST_TOKEN), guess_tokens(text), size + most)


def _message(message: Mapping[str, Any]) -> _Span:
    """Bound one message; what an assistant said earlier may be cut by the template."""
    parts = message.get("content")
    texts, images = _content(parts)
    rest = {k: v for k, v in message.items() if k not in ("content", "role")}
    said = _text("".join(texts), most=MESSAGE_OVERHEAD * (1 + _calls(message)))
    extra = _json_bytes(rest) if rest else 0
    least = 0 if message.get("role") == "assistant" else said.least
    return _Span(
        least,
        said.guess + 4 + images * 800 + extra // 4,
        said.most + images * IMAGE_MOST + 2 * extra,
    )


def _content(parts: object) -> tuple[list[str], int]:
    if isinstance(parts, str):
        return [parts], 0
    if not isinstance(parts, list):
        return [], 0
    texts = [p["text"] for p in parts if isinstance(p, Mapping) and isinstance(p.get("text"), str)]
    return texts, len(parts) - len(texts)


def _calls(message: Mapping[str, Any]) -> int:
    calls = message.get("tool_calls")
    return len(calls) if isinstance(calls, list) else 0


def _tools(prompt: Mapping[str, Any]) -> list[_Span]:
    """Bound the schemas of tools and of the answer, which templates print in their own way."""
    tools = prompt.get("tools")
    schemas = list(tools) if isinstance(tools, list) else []
    if prompt.get("response_format"):
        schemas.append(prompt["response_format"])
    sizes = [_json_bytes(schema) for schema in schemas]
    return [_Span(0, size // 8, 2 * size + TOOL_OVERHEAD) for size in sizes]


def _json_bytes(value: object) -> int:
    return len(json.dumps(value, indent=4, default=str))
