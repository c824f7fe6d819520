"""Grafana's own model of a dashboard holds ours: every member is known there, and of its type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("grafana_foundation_sdk", reason="needs pip install grafana-foundation-sdk")

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

DASHBOARD = json.loads(
    (Path(__file__).parents[2] / "ops" / "grafana" / "frugal-gateway.json").read_text()
)
# What an export says beside the model: what is asked for at its import, and a query's old name.
BESIDE = {".__inputs", ".__requires", ".templating.list[].definition"}


def differences(ours, theirs, path=""):
    """Yield where a member is missing, or another, in what Grafana's model made of ours."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name, value in ours.items():
            place = f"{path}.{name}"
            if name in theirs:
                yield from differences(value, theirs[name], place)
            else:
                yield place
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for one, other in zip(ours, theirs, strict=True):
            yield from differences(one, other, f"{path}[]")
    elif ours != theirs:
        yield path


def test_grafanas_model_keeps_every_member():
    register_default_plugins()
    made = json.loads(JSONEncoder().encode(Dashboard.from_json(DASHBOARD)))

    assert set(differences(DASHBOARD, made)) == BESIDE
    assert made["title"] == DASHBOARD["title"]
    assert len(made["panels"]) == len(DASHBOARD["panels"])


def test_a_member_that_grafana_does_not_know_is_found():
    register_default_plugins()
    wrong = json.loads(json.dumps(DASHBOARD))
    wrong["panels"][1]["targets"][0]["exprr"] = wrong["panels"][1]["targets"][0].pop("expr")
    made = json.loads(JSONEncoder().encode(Dashboard.from_json(wrong)))

    assert ".panels[].targets[].exprr" in set(differences(wrong, made))
