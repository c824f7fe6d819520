"""From the models of a policy to the providers that serve them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

from gateway.wire import Provider
from policies.kinds import PROVIDERS, resolve
from policies.schema import Model, Policy


class ProviderKind(Protocol):
    """The class of a provider: how one is made from a model of the policy."""

    def from_model(self, name: str, model: Model, *, socket: Path | None) -> Provider:
        """Build the provider of one model; `socket` is its local engine's, if it has one."""
        ...


def build_providers(policy: Policy, sockets: Mapping[str, Path]) -> dict[str, Provider]:
    """Return the provider of each model, under the model's name in the policy.

    `sockets` holds the Unix sockets of local engines by model name.
    """
    providers: dict[str, Provider] = {}
    for name, model in policy.models.items():
        kind = cast(ProviderKind, resolve(PROVIDERS, model.provider))
        providers[name] = kind.from_model(name, model, socket=sockets.get(name))
    return providers
