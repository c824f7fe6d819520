"""The policies that ship are ones that load."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.loader import load_policy

FOLDER = Path(__file__).parents[2] / "policies"
ENV = {
    "FRUGAL_DEMO_UPSTREAM": "http://127.0.0.1:4100/v1",
    "FRUGAL_KEY": "fk-1",
    "OPENAI_API_KEY": "sk-1",
}


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.yaml")))
def test_shipped_policy_loads(name, tmp_path):
    (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    (tmp_path / "Qwen3-0.6B").mkdir()

    policy = load_policy(tmp_path / name, ENV)

    assert policy.route_for("auto") is not None


def test_demo_policy_cascades_from_the_local_model_to_the_remote_one():
    policy = load_policy(FOLDER / "demo.yaml", ENV)

    route = policy.routes["auto"]
    assert route.tiers == ("tiny", "large")
    assert [policy.models[name].provider for name in route.tiers] == ["local", "openai"]
    assert route.cascade.confidence.early is not None
    assert route.cache.exact.ttl == 86400.0
    assert policy.access.anonymous == "loopback"
