"""From the models of a policy to the providers that serve them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, cast

from gateway.clock import Clock
from gateway.money.prices import price_of
from gateway.resilience.adaptive import AdaptiveLimit
from gateway.resilience.balance import BalancedProvider, Member
from gateway.resilience.health import Checked, HealthWatch
from gateway.resilience.homes import Homes
from gateway.wire import Provider
from policies.kinds import PROVIDERS, resolve
from policies.resilience import Deployment
from policies.schema import Model, Policy


class ProviderKind(Protocol):
    """The class of a provider: how one is made from a model of the policy."""

    def from_model(self, name: str, model: Model, *, socket: Path | None = None) -> Provider:
        """Build the provider of one model; `socket` is its local engine's, if it has one."""
        ...


def build_providers(policy: Policy, sockets: Mapping[str, Path]) -> dict[str, Provider]:
    """Return the provider of each model, under the model's name in the policy.

    `sockets` holds the Unix sockets of local engines by model name.
    """
    return {
        name: build_provider(name, model, sockets.get(name))
        for name, model in policy.models.items()
    }


def build_provider(name: str, model: Model, socket: Path | None = None) -> Provider:
    """Return the provider of one model: of all its deployments, if it has several.

    One that watches their health does so once it is told to `begin`.
    """
    kind = cast(ProviderKind, resolve(PROVIDERS, model.provider))
    if not (model.deployments or model.health or model.adaptive_concurrency):
        return kind.from_model(name, model, socket=socket)
    clock = Clock()
    berths = [(deployed_at(each, model), each.weight) for each in model.deployments]
    adaptive = model.adaptive_concurrency
    checked = [
        Checked(
            Member(
                each.base_url or name,
                kind.from_model(name, each, socket=socket),
                weight,
                AdaptiveLimit(adaptive) if adaptive else None,
            ),
            each,
        )
        for each, weight in berths or [(model, 1.0)]
    ]
    provider = BalancedProvider(
        [each.member for each in checked],
        tick=clock.tick,
        wall=clock.wall,
        draw=random.random,
        balance=model.balance,
        homes=_homes(name, model, clock.wall()),
        model=name,
    )
    if model.health is not None:
        provider.watch_with(HealthWatch(checked, model.health, clock.tick))
    return provider


def _homes(name: str, model: Model, now: float) -> Homes | None:
    """Return what keeps conversations where their prompt is cached, if that makes it cheaper."""
    price = price_of(name, model, datetime.fromtimestamp(now, UTC))
    if model.prompt_cache == "off" or price is None or price.cached_input >= price.input:
        return None
    return Homes(price)


def deployed_at(deployment: Deployment, model: Model) -> Model:
    """Return the model as if this deployment were its only server."""
    return model.model_copy(
        update={
            "base_url": deployment.base_url,
            "api_key": deployment.api_key or model.api_key,
            "deployments": (),
        }
    )
