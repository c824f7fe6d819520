"""From the models of a policy to the providers that serve them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gateway.wire import Provider
from policies.kinds import PROVIDERS, resolve
from policies.schema import Policy


def build_providers(policy: Policy, sockets: Mapping[str, Path]) -> dict[str, Provider]:
    """Return the provider of each model, under the model's name in the policy.

    `sockets` holds the Unix sockets of local engines by model name.
    """
    providers: dict[str, Provider] = {}
    for name, model in policy.models.items():
        kind = resolve(PROVIDERS, model.provider)
        providers[name] = kind.from_model(name, model, socket=sockets.get(name))
    return providers
