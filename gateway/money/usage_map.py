"""From the usage report of a chat completion to our disjoint buckets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.money.errors import UsageError
from gateway.money.usage import Usage
from gateway.money.usage_counts import MOST, absurd, count, is_object
from gateway.money.usage_dialects import usage_from_elsewhere


def usage_from_openai(payload: Mapping[str, Any] | None) -> Usage | None:
    """Split an OpenAI usage object into disjoint buckets; None where none was reported.

    Compatible servers that report in another provider's shape are understood,
    too. An explicit 0 is 0. Raises UsageError on counts that cannot be true:
    negative, fractional, beyond 10**9, or details larger than their total.
    """
    if payload is None:
        return None
    if not is_object(payload):
        raise UsageError(f"expected usage as an object, found {type(payload).__name__}")
    prompt = payload.get("prompt_tokens")
    output = payload.get("completion_tokens")
    if prompt is None and output is None:
        return usage_from_elsewhere(payload)
    if type(prompt) is not int or not 0 <= prompt <= MOST:
        raise absurd("prompt_tokens", prompt)
    if type(output) is not int or not 0 <= output <= MOST:
        output = _output_of(payload, prompt, output)
    told_in = payload.get("prompt_tokens_details")
    told_out = payload.get("completion_tokens_details")
    if told_in or told_out or len(payload) > 3:
        return _detailed(payload, prompt, output, told_in or {}, told_out or {})
    return Usage(prompt, 0, 0, output, _beside(payload, prompt + output, 0))


def _output_of(payload: Mapping[str, Any], prompt: int, output: object) -> int:
    """Return the output of a report without one: embeddings tell only the prompt and the total."""
    if output is not None or payload.get("total_tokens") is None:
        raise absurd("completion_tokens", output)
    total = count(payload, "total_tokens")
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
    if not is_object(told_in) or not is_object(told_out):
        raise UsageError("expected the details of usage as objects")
    cached = count(told_in, "cached_tokens") or _cached_elsewhere(payload)
    written = count(told_in, "cache_write_tokens")
    heard = count(told_in, "audio_tokens")
    seen = count(told_in, "image_tokens")
    reasoning = count(told_out, "reasoning_tokens") if told_out else 0
    spoken = count(told_out, "audio_tokens") if told_out else 0
    beside = _beside(payload, prompt + output, reasoning)
    output += beside
    reasoning = reasoning or beside
    text_in = prompt - cached - written - heard - seen
    text_out = output - reasoning - spoken
    if text_in < 0 or text_out < 0:
        raise UsageError(
            "expected the details of usage within their totals, found "
            f"{prompt - text_in} of {prompt} prompt_tokens "
            f"and {output - text_out} of {output} completion_tokens"
        )
    return Usage(text_in, cached, written, text_out, reasoning, heard, seen, audio_output=spoken)


def _beside(payload: Mapping[str, Any], told: int, reasoning: int) -> int:
    """Return reasoning that is counted beside completion_tokens, which only the total tells.

    xAI reports it and counts it apart; Google's compatible endpoint does not
    report it, but bills it. Another total is no evidence of anything.
    """
    total = payload.get("total_tokens")
    if total is None or total == told or type(total) is not int or not told < total <= MOST:
        return 0
    more = total - told
    return more if reasoning in (0, more) else 0


def _cached_elsewhere(payload: Mapping[str, Any]) -> int:
    """Return cached input as DeepSeek and Moonshot spell it."""
    return count(payload, "prompt_cache_hit_tokens") or count(payload, "cached_tokens")
