"""From a provider's usage report to our disjoint buckets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.money.errors import UsageError
from gateway.money.usage import Usage

_MOST = 1_000_000_000


def usage_from_openai(payload: Mapping[str, Any] | None) -> Usage | None:
    """Split an OpenAI usage object into disjoint buckets; None where none was reported.

    An explicit 0 is 0. Raises UsageError on counts that cannot be true:
    negative, fractional, beyond 10**9, or details larger than their total.
    """
    if payload is None:
        return None
    if not _is_object(payload):
        raise UsageError(f"expected usage as an object, found {type(payload).__name__}")
    prompt = payload.get("prompt_tokens")
    output = payload.get("completion_tokens")
    if prompt is None and output is None:
        return None
    if type(prompt) is not int or not 0 <= prompt <= _MOST:
        raise _absurd("prompt_tokens", prompt)
    if type(output) is not int or not 0 <= output <= _MOST:
        output = _output_of(payload, prompt, output)
    told_in = payload.get("prompt_tokens_details")
    told_out = payload.get("completion_tokens_details")
    if told_in or told_out or len(payload) > 3:
        return _detailed(payload, prompt, output, told_in or {}, told_out or {})
    return Usage(prompt, 0, 0, output)


def _output_of(payload: Mapping[str, Any], prompt: int, output: object) -> int:
    """Return the output of a report without one: embeddings tell only the prompt and the total."""
    if output is not None or payload.get("total_tokens") is None:
        raise _absurd("completion_tokens", output)
    total = _count(payload, "total_tokens")
    if total < prompt:
        raise UsageError(f"expected total_tokens of at least {prompt} prompt_tokens, found {total}")
    return total - prompt


def _detailed(
    payload: Mapping[str, Any],
    prompt: int,
    output: int,
    told_in: Mapping[str, Any],
    told_out: Mapping[str, Any],
) -> Usage:
    if not _is_object(told_in) or not _is_object(told_out):
        raise UsageError("expected the details of usage as objects")
    cached = _count(told_in, "cached_tokens") or _cached_elsewhere(payload)
    written = _count(told_in, "cache_write_tokens")
    heard = _count(told_in, "audio_tokens")
    seen = _count(told_in, "image_tokens")
    reasoning = _count(told_out, "reasoning_tokens") if told_out else 0
    spoken = _count(told_out, "audio_tokens") if told_out else 0
    if reasoning and payload.get("total_tokens") == prompt + output + reasoning:
        # xAI counts reasoning beside completion_tokens, not within; only the total tells.
        output += reasoning
    text_in = prompt - cached - written - heard - seen
    text_out = output - reasoning - spoken
    if text_in < 0 or text_out < 0:
        raise UsageError(
            "expected the details of usage within their totals, found "
            f"{prompt - text_in} of {prompt} prompt_tokens "
            f"and {output - text_out} of {output} completion_tokens"
        )
    return Usage(text_in, cached, written, text_out, reasoning, heard, seen, audio_output=spoken)


def _cached_elsewhere(payload: Mapping[str, Any]) -> int:
    """Return cached input as DeepSeek and Moonshot spell it."""
    return _count(payload, "prompt_cache_hit_tokens") or _count(payload, "cached_tokens")


def _is_object(value: object) -> bool:
    # The first half alone takes a tenth of the time, and is nearly always enough.
    return type(value) is dict or isinstance(value, Mapping)


def _count(told: Mapping[str, Any], name: str) -> int:
    value = told.get(name)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= _MOST:
        raise _absurd(name, value)
    return value


def _absurd(name: str, value: object) -> UsageError:
    shown = repr(value)
    return UsageError(
        f"expected {name} as a whole number from 0 to 10**9, "
        f"found {shown if len(shown) <= 40 else shown[:40] + '…'}"
    )
