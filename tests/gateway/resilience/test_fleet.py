from __future__ import annotations

from pathlib import Path

import pytest

from gateway.providers.local import LocalProvider
from gateway.resilience.fleet import Fleet
from policies.loader import PolicyError, parse_policy
from policies.schema import Policy

REMOTE = "{provider: openai, base_url: http://127.0.0.1:9/v1, price: unknown_is_free%s}"
LOCAL = "{provider: local, checkpoint: demo/tiny, price: {machine_hour_usd: %s}, max_batch: %s}"


def _policy(**models: str) -> Policy:
    lines = "".join(f"\n  {name}: {model}" for name, model in models.items())
    return parse_policy(f"version: 1\nmodels:{lines}", name="policy.yaml", env={})


async def test_a_model_that_stayed_as_it_was_keeps_its_provider() -> None:
    first = _policy(a=REMOTE % "", b=REMOTE % "")
    second = _policy(a=REMOTE % "", b=REMOTE % ", model: other", c=REMOTE % "")
    fleet = Fleet(first, given={}, sockets={})

    before, after = await fleet.providers(first), await fleet.providers(second)

    assert after["a"] is before["a"]
    assert after["b"] is not before["b"]
    assert set(after) == {"a", "b", "c"}
    await fleet.keep_only([second])
    assert (await fleet.providers(second))["a"] is before["a"]
    assert (await fleet.providers(first))["b"] is not before["b"]
    await fleet.aclose()


async def test_an_engine_serves_on_under_a_new_price_and_ends_with_a_new_command() -> None:
    first = _policy(tiny=LOCAL % (1, 2))
    dearer, larger = _policy(tiny=LOCAL % (9, 2)), _policy(tiny=LOCAL % (9, 4))
    fleet = Fleet(first, given={}, sockets={})
    folders = []
    for policy in (first, dearer, larger):
        provider = (await fleet.providers(policy))["tiny"]
        assert isinstance(provider, LocalProvider)
        folders.append(_folder(fleet, policy))
        await fleet.keep_only([policy])

    assert folders[0] == folders[1] != folders[2]
    assert not folders[0].exists()
    assert folders[2].exists()
    await fleet.aclose()
    assert not folders[2].exists()


def _folder(fleet: Fleet, policy: Policy) -> Path:
    """Return where the engine of the only local model has its socket."""
    return fleet.socket("tiny", policy.models["tiny"]).parent


async def test_a_worker_does_not_start_what_its_parent_runs_for_all() -> None:
    first = _policy(tiny=LOCAL % (1, 2))
    sockets = {"tiny": Path("engine.sock")}
    fleet = Fleet(first, given={}, sockets=sockets, is_one_of_many=True)
    await fleet.providers(_policy(tiny=LOCAL % (5, 2)))

    with pytest.raises(PolicyError, match=r"models\.tiny: an engine that changes needs a restart"):
        await fleet.providers(_policy(tiny=LOCAL % (1, 3)))
    await fleet.aclose()
