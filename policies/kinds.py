"""The kinds that a policy may name, and the classes behind them.

Outsiders write `package.module:Class` in place of a kind and are treated alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

_CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_OPENAI = "gateway.providers.openai:OpenAIProvider"

OPENAI_PROVIDERS = frozenset({"openai", "vllm", "sglang", "llamacpp", "ollama", "tgi"})
"""Providers that speak OpenAI's HTTP API."""

REMOTE_PROVIDERS = OPENAI_PROVIDERS | {"anthropic"}
"""Providers at an address, with a key."""

LOGPROBS_BY_DEFAULT = frozenset({"llamacpp", "local", "sglang", "tgi", "vllm"})
"""Providers that are asked for log-probabilities unless the model says `logprobs: false`."""

PROVIDERS: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(sorted(OPENAI_PROVIDERS), _OPENAI)
    | {
        "anthropic": "gateway.providers.anthropic:AnthropicProvider",
        "local": "gateway.providers.local:LocalProvider",
        "recorded": "gateway.providers.recorded:RecordedProvider",
    }
)
CONFIDENCES: Mapping[str, str] = MappingProxyType(
    {
        "agreement": "router.confidence:AgreementScorer",
        "logprob": "router.confidence:LogprobScorer",
    }
)

LEARNED = "learned"
"""The confidence that is a router of its own, not a scorer of single drafts."""


class KindError(ValueError):
    """A kind that names no class that can be had."""


def is_class_path(kind: str) -> bool:
    """Return whether a kind is spelt `package.module:Class`."""
    return _CLASS_PATH.fullmatch(kind) is not None


def resolve(kinds: Mapping[str, str], kind: str) -> type[Any]:
    """Import the class behind a kind or a class path. Raises KindError."""
    target = kinds.get(kind, kind)
    if not is_class_path(target):
        known = ", ".join(kinds)
        raise KindError(f"expected one of {known}, or package.module:Class; found {kind!r}")
    module_name, class_name = target.split(":")
    try:
        found = getattr(import_module(module_name), class_name)
    except ImportError as exc:
        raise KindError(f"cannot import {module_name} for {kind!r}: {exc}") from exc
    except AttributeError as exc:
        raise KindError(f"{module_name} has no class {class_name} for {kind!r}") from exc
    if not isinstance(found, type):
        raise KindError(f"expected {target} to be a class, found {type(found).__name__}")
    return found
