"""Policies for tests: models behind scripted upstreams, at prices that are easy to add up."""

from __future__ import annotations

import json
from typing import Any

CHEAP = {"input_per_mtok_usd": 1, "output_per_mtok_usd": 2}
DEAR = {"input_per_mtok_usd": 10, "output_per_mtok_usd": 20}
"""A thousand nano-dollars a prompt token is a dollar a million."""


def remote(url: str, *, price: dict[str, Any] | str = "unknown_is_free", **more: Any) -> Any:
    """Return a model of the policy behind an OpenAI-compatible server."""
    return {"provider": "openai", "base_url": url, "price": price, **more}


def policy(models: dict[str, Any], routes: dict[str, Any] | None = None, **more: Any) -> str:
    """Return the text of a policy that lets loopback in. JSON is YAML."""
    whole = {"version": 1, "access": {"anonymous": "loopback"}, "models": models, **more}
    return json.dumps(whole | ({"routes": routes} if routes else {}), indent=1)


KEPT = {"exact": {"ttl": "1h"}}


def one_model(
    url: str, *, cache: dict[str, Any] | None = KEPT, price: Any = CHEAP, **route: Any
) -> str:
    """Return a policy whose route `auto` is one model."""
    kept = {"cache": cache} if cache else {}
    models = {"large": remote(url, price=price, model="upstream-model")}
    return policy(models, {"auto": {"model": "large", **kept, **route}})


def two_tiers(
    small: str,
    large: str,
    *,
    cascade: dict[str, Any] | None = None,
    small_is: dict[str, Any] | None = None,
    cache: dict[str, Any] | None = KEPT,
    **route: Any,
) -> str:
    """Return a policy whose route `auto` asks `small`, and `large` where that is not good."""
    models = {
        "small": remote(small, price=CHEAP, logprobs=True, **(small_is or {})),
        "large": remote(large, price=DEAR),
    }
    tiers = {"tiers": ["small", "large"], "confidence": {"kind": "logprob", "threshold": 0.8}}
    kept = {"cache": cache} if cache else {}
    return policy(models, {"auto": {"cascade": tiers | (cascade or {}), **kept, **route}})
