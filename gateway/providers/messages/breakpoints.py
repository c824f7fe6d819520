"""Where a Messages request lets its prefix be cached, if anybody sets it: tools, system, turns.

A client that marks breakpoints of its own knows better, and gets no others.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import msgspec

from gateway.providers.messages.content import Block
from gateway.providers.prefixes import Mark, PrefixMemory

_MARK = "cache_control"
_BYTES_A_TOKEN = 4
_IMAGE_TOKENS = 1_000
_UNMARKABLE = ("thinking", "redacted_thinking")
_encode = msgspec.json.Encoder().encode


def add_breakpoints(asked: dict[str, Any], memory: PrefixMemory, tenant: str, now: float) -> None:
    """Set breakpoints in a Messages request where keeping its prefix pays."""
    if _MARK in asked or any(_MARK in block for block in _blocks(asked)):
        return
    places, marks = _marks(asked, tenant)
    if not marks:
        return
    for block, ttl in zip(places, memory.plan(tenant, marks, now), strict=True):
        if ttl is not None:
            block[_MARK] = {"type": "ephemeral"} | ({"ttl": "1h"} if ttl == "1h" else {})


def _blocks(asked: dict[str, Any]) -> Iterator[Block]:
    yield from asked.get("tools", ())
    yield from asked.get("system", ())
    for turn in asked["messages"]:
        for block in turn["content"]:
            yield block
            if isinstance(inner := block.get("content"), list):
                yield from inner


def _marks(asked: dict[str, Any], tenant: str) -> tuple[list[Block], list[Mark]]:
    """Return the blocks that may bear a breakpoint, and the prefixes that end with them."""
    digest = blake2b(tenant.encode(), digest_size=16)
    places: list[Block] = []
    marks: list[Mark] = []
    tokens = 0
    sections = [("tools", asked.get("tools")), ("system", asked.get("system"))]
    sections += [("turn", turn["content"]) for turn in asked["messages"]]
    for kind, blocks in sections:
        for block in blocks or ():
            data = _encode(block)
            digest.update(data)
            tokens += _tokens(block, data)
        digest.update(kind.encode())
        if kind == "system":  # what else decides how turns are read
            digest.update(_encode([asked.get("thinking"), asked.get("tool_choice")]))
        if blocks and blocks[-1].get("type") not in _UNMARKABLE:
            places.append(blocks[-1])
            marks.append(Mark(kind, digest.copy().digest(), tokens))  # type: ignore[arg-type]
    return places, marks


def _tokens(block: Block, data: bytes) -> int:
    has_bytes = block.get("type") in ("image", "document")
    return _IMAGE_TOKENS if has_bytes else len(data) // _BYTES_A_TOKEN
