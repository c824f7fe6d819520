"""The `prompt_cache_key` by which OpenAI sends equal prefixes to the same machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from gateway.money.warmth import LEAST_BYTES, guess_prompt

_encode = msgspec.json.Encoder(order="sorted").encode


def prompt_cache_key(body: Mapping[str, Any], tenant: str) -> str | None:
    """Return a key for the beginning that a tenant's requests share; None for a short prompt.

    That is tools and system prompt, and where they are short, the conversation's
    first words, too. It tells nothing of either.
    """
    messages = body["messages"]
    is_long = guess_prompt(body) is not None
    if not is_long and not body.get("tools"):
        return None
    count = _leading(messages)
    shared = _encode([body.get("tools"), messages[:count]])
    if len(shared) < LEAST_BYTES:
        if not is_long:
            return None
        shared = _encode([body.get("tools"), messages[: count + 1]])
    digest = blake2b(shared, digest_size=16, key=tenant.encode()[:64])
    return f"fg-{digest.hexdigest()}"


def _leading(messages: Sequence[Mapping[str, Any]]) -> int:
    """Return how many messages at the beginning are instructions."""
    for index, message in enumerate(messages):
        if message.get("role") not in ("system", "developer"):
            return index
    return len(messages)
