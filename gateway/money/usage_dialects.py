"""Usage as others than OpenAI's chat completions report it, split into our disjoint buckets.

| shape | prompt | holds cached tokens | output | holds reasoning |
|---|---|---|---|---|
| OpenAI's Responses | `input_tokens` | yes | `output_tokens` | yes |
| Anthropic's Messages | `input_tokens` | no, nor written ones | `output_tokens` | yes |
| Google's generateContent | `promptTokenCount` | yes | `candidatesTokenCount` | no |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.money.errors import UsageError
from gateway.money.usage import Usage
from gateway.money.usage_counts import absurd, count, details, is_object, rest

_STANDARD = frozenset(("standard", "default", "auto"))


def usage_from_elsewhere(payload: Mapping[str, Any]) -> Usage | None:
    """Return usage by the shape of its report; None for one that counts nothing.

    Raises UsageError for counts that cannot be true.
    """
    if "promptTokenCount" in payload or "totalTokenCount" in payload:
        return usage_from_gemini(payload)
    if "input_tokens" not in payload and "output_tokens" not in payload:
        return None
    is_split = any(name.startswith("cache_") for name in payload)
    return usage_from_anthropic(payload) if is_split else usage_from_responses(payload)


def usage_from_responses(payload: Mapping[str, Any]) -> Usage | None:
    """Split the usage of OpenAI's Responses API. Raises UsageError."""
    prompt, output = _both(payload)
    if prompt is None or output is None:
        return None
    told_in = details(payload, "input_tokens_details")
    told_out = details(payload, "output_tokens_details")
    cached, written = count(told_in, "cached_tokens"), count(told_in, "cache_write_tokens")
    heard, seen = count(told_in, "audio_tokens"), count(told_in, "image_tokens")
    thought, spoken = count(told_out, "reasoning_tokens"), count(told_out, "audio_tokens")
    return Usage(
        input=rest(prompt, cached, written, heard, seen, of="input_tokens"),
        cached_input=cached,
        cache_write=written,
        output=rest(output, thought, spoken, of="output_tokens"),
        reasoning=thought,
        audio=heard,
        image=seen,
        audio_output=spoken,
    )


def usage_from_anthropic(payload: Mapping[str, Any]) -> Usage | None:
    """Split the usage of a message: what was read from and written to its cache stands apart.

    Raises UsageError.
    """
    prompt, output = _both(payload)
    if prompt is None or output is None:
        return None
    split = details(payload, "cache_creation")
    for_an_hour = count(split, "ephemeral_1h_input_tokens")
    written = count(payload, "cache_creation_input_tokens")
    if "cache_creation_input_tokens" not in payload:
        written = for_an_hour + count(split, "ephemeral_5m_input_tokens")
    thought = count(details(payload, "output_tokens_details"), "thinking_tokens")
    return Usage(
        input=prompt,
        cached_input=count(payload, "cache_read_input_tokens"),
        cache_write=rest(written, for_an_hour, of="cache_creation_input_tokens"),
        cache_write_1h=for_an_hour,
        output=rest(output, thought, of="output_tokens"),
        reasoning=thought,
        tier="fast" if payload.get("speed") == "fast" else tier_of(payload.get("service_tier")),
    )


def usage_from_gemini(payload: Mapping[str, Any]) -> Usage | None:
    """Split a `usageMetadata`: thoughts stand beside the candidates. Raises UsageError."""
    if payload.get("promptTokenCount") is None and payload.get("candidatesTokenCount") is None:
        return None
    prompt = count(payload, "promptTokenCount") + count(payload, "toolUsePromptTokenCount")
    cached = count(payload, "cachedContentTokenCount")
    fresh = _modalities(payload, "promptTokensDetails")
    warm = _modalities(payload, "cacheTokensDetails")
    heard = rest(fresh.get("AUDIO", 0), warm.get("AUDIO", 0), of="audio tokens")
    seen = rest(fresh.get("IMAGE", 0), warm.get("IMAGE", 0), of="image tokens")
    output = count(payload, "candidatesTokenCount")
    spoken = _modalities(payload, "candidatesTokensDetails").get("AUDIO", 0)
    return Usage(
        input=rest(prompt, cached, heard, seen, of="promptTokenCount"),
        cached_input=cached,
        output=rest(output, spoken, of="candidatesTokenCount"),
        reasoning=count(payload, "thoughtsTokenCount"),
        audio=heard,
        image=seen,
        audio_output=spoken,
    )


def openai_usage(usage: Usage) -> dict[str, Any]:
    """Return usage as OpenAI's chat completions report it."""
    written = usage.cache_write + usage.cache_write_1h
    prompt = usage.input + usage.cached_input + written + usage.audio + usage.image
    output = usage.output + usage.reasoning + usage.audio_output
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_input,
            "cache_write_tokens": written,
            "audio_tokens": usage.audio,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": usage.audio_output,
        },
    }


def tier_of(told: object) -> str:
    """Return the service tier that is billed otherwise than the standard one, or nothing."""
    return told if isinstance(told, str) and told not in _STANDARD else ""


def _both(payload: Mapping[str, Any]) -> tuple[int, int] | tuple[None, None]:
    if not is_object(payload):
        raise UsageError(f"expected usage as an object, found {type(payload).__name__}")
    if payload.get("input_tokens") is None and payload.get("output_tokens") is None:
        return None, None
    for name in ("input_tokens", "output_tokens"):
        if payload.get(name) is None:
            raise absurd(name, None)
    return count(payload, "input_tokens"), count(payload, "output_tokens")


def _modalities(payload: Mapping[str, Any], name: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for each in payload.get(name) or ():
        if not is_object(each):
            raise UsageError(f"expected {name} as objects, found {type(each).__name__}")
        kind = str(each.get("modality"))
        counts[kind] = counts.get(kind, 0) + count(each, "tokenCount")
    return counts
