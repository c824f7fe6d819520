"""What Anthropic's models take, told by their names: family and version.

From the pages on models, effort, thinking, structured outputs and prompt
caching at platform.claude.com, as of November 2026. A policy's own
`max_output` and `json_schema` go first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Thinking = Literal["none", "budget", "adaptive"]

_VERSION_LAST = re.compile(r"claude-([a-z]+)-(\d{1,2})(?:[-.](\d{1,2}))?(?![\d])")
_VERSION_FIRST = re.compile(r"claude-(\d{1,2})(?:[-.](\d{1,2}))?-([a-z]+)")
_ALWAYS_THINK = frozenset({"fable", "mythos"})
_UNKNOWN_OUTPUT = 8_192


@dataclass(frozen=True, slots=True)
class Traits:
    """One model: tokens it writes at most, tokens a cached prefix needs, what it accepts.

    `samples` where temperature, top_p and top_k are accepted; `efforts` are the
    levels of `output_config.effort`; `may_rest` where thinking can be turned off
    by saying so.
    """

    max_output: int = _UNKNOWN_OUTPUT
    least_cached: int = 1_024
    has_json_schema: bool | None = None
    samples: bool = True
    thinking: Thinking = "none"
    efforts: tuple[str, ...] = ()
    may_rest: bool = False


@lru_cache(maxsize=256)
def traits_of(model: str) -> Traits:
    """Return what is known of a model; of a name that tells nothing, what harms least."""
    family, version = _read(model.lower())
    if version is None:
        return Traits()
    return Traits(
        max_output=_max_output(family, version),
        least_cached=_least_cached(family, version),
        has_json_schema=version >= (4, 5),
        samples=version < (4, 7),
        thinking=_thinking(version),
        efforts=_efforts(family, version),
        may_rest=version == (5, 0) and family not in _ALWAYS_THINK,
    )


def _read(model: str) -> tuple[str, tuple[int, int] | None]:
    if found := _VERSION_FIRST.search(model):
        return found[3], (int(found[1]), int(found[2] or 0))
    if found := _VERSION_LAST.search(model):
        return found[1], (int(found[2]), int(found[3] or 0))
    return "", None


def _max_output(family: str, version: tuple[int, int]) -> int:
    if version >= (5, 0) or (family == "opus" and version >= (4, 6)):
        return 128_000
    if version >= (4, 0):
        return 32_000 if family == "opus" and version < (4, 5) else 64_000
    if version >= (3, 7):
        return 64_000
    return 8_192 if version >= (3, 5) else 4_096


def _least_cached(family: str, version: tuple[int, int]) -> int:
    if version >= (5, 0):
        return 1_024 if family == "sonnet" and version == (5, 0) else 512
    if family == "opus" and (4, 5) <= version <= (4, 7):
        return 4_096
    if family == "haiku":
        return 4_096 if version >= (4, 5) else 2_048
    return 1_024


def _thinking(version: tuple[int, int]) -> Thinking:
    if version >= (4, 6):
        return "adaptive"
    return "budget" if version >= (3, 7) else "none"


def _efforts(family: str, version: tuple[int, int]) -> tuple[str, ...]:
    if version >= (4, 7):
        return ("low", "medium", "high", "xhigh", "max")
    if version == (4, 6):
        return ("low", "medium", "high", "max")
    return ("low", "medium", "high") if family == "opus" and version == (4, 5) else ()
