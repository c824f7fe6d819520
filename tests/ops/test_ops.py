"""The Grafana dashboard and the alert rules ask for what `/metrics` tells, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from gateway.learning.steward import ALARMS
from gateway.money.records import State as Outcome
from gateway.resilience.breaker import State as BreakerState
from gateway.telemetry.families import FAMILIES
from gateway.telemetry.metrics import Scrape, exposition
from local_engine.metrics import render_metrics
from local_engine.types import EngineStats

OPS = Path(__file__).parents[2] / "ops"
OF_PROMETHEUS = {"instance", "job", "le"}
FUNCTIONS = {
    *("absent", "count", "histogram_quantile", "increase", "max", "min", "rate", "sum", "topk"),
    *("by", "on", "group_left", "vector", "or"),
}
_KINDS = {"exact", "semantic", "miss", "bypass"}
VALUES = {
    ("frugal_requests_total", "outcome"): set(get_args(Outcome)),
    ("frugal_requests_total", "cache"): _KINDS,
    ("frugal_request_duration_seconds_bucket", "cache"): _KINDS,
    ("frugal_process_breaker_state", "state"): set(get_args(BreakerState)),
    ("frugal_process_traces_total", "outcome"): {"sent", "dropped"},
    ("frugal_process_alerts_total", "outcome"): {"sent", "dropped", "failed"},
    ("frugal_learning_steps_total", "kind"): set(ALARMS),
    ("frugal_certificate", "state"): {"none", "learning", "certified", "lost"},
}
"""What a label that is asked for by its value may be: a rule with another could never fire."""
_SELECTOR = re.compile(r"\b(frugal_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_BY = re.compile(r"\bby\s*\(([^)]*)\)")
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_CALL = re.compile(r"\b([a-z_]+)\s*\(")


def told_labels():
    """Return the labels of every line that there may be, by its name."""
    labels = {}
    for family in FAMILIES:
        own = set(family.labels)
        if family.kind == "histogram":
            labels |= {f"{family.full}_{end}": own for end in ("bucket", "sum", "count")}
        else:
            labels[family.full] = own
    for metric in text_string_to_metric_families(render_metrics(EngineStats())):
        labels |= {sample.name: {"model"} for sample in metric.samples}
    return labels


LABELS = told_labels()
RULES = [
    rule
    for group in yaml.safe_load((OPS / "prometheus" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((OPS / "grafana" / "frugal-gateway.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(f"{p['title']}: {t['expr']}", t["expr"]) for p in PANELS for t in p["targets"]]
QUERIES += [(rule["alert"], rule["expr"]) for rule in RULES]


def words(text):
    return {word.strip() for word in text.split(",")} - {""}


def results(expr):
    """Return the labels that the result of a query may have."""
    if found := _BY.findall(expr):
        return set.union(*map(words, found))
    own = [LABELS[name] for name, _ in _SELECTOR.findall(expr)]
    return set.union(*own) | {"instance", "job"}


@pytest.mark.parametrize("expr", [expr for _, expr in QUERIES], ids=[name for name, _ in QUERIES])
def test_a_query_asks_for_names_and_labels_that_there_are(expr):
    selected = _SELECTOR.findall(expr)
    assert selected
    known = set(OF_PROMETHEUS)
    for name, matchers in selected:
        assert name in LABELS, f"/metrics tells no {name}"
        known |= LABELS[name]
        found = _MATCHER.findall(matchers)
        assert len(found) == len(words(matchers)), f"{matchers} are no matchers"
        for label, _, value in found:
            assert label in LABELS[name] | OF_PROMETHEUS, f"{name} has no label {label}"
            if not value.startswith("$"):
                assert set(value.split("|")) <= VALUES[name, label]
    for grouping in _GROUPING.findall(expr):
        assert words(grouping) <= known
    assert expr.count("(") == expr.count(")")
    assert set(_CALL.findall(_MATCHER.sub("", expr))) <= FUNCTIONS


def test_every_family_is_shown_or_watched():
    asked = {name for _, expr in QUERIES for name, _ in _SELECTOR.findall(expr)}
    shown = {family.full for family in FAMILIES if asked & {family.full, f"{family.full}_bucket"}}

    assert {family.full for family in FAMILIES} - shown == {"frugal_budgets_untold"}


def test_rules_and_legends_name_labels_that_their_results_have():
    for rule in RULES:
        text = " ".join(rule["annotations"].values())
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= results(rule["expr"]), rule["alert"]
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
    for panel in PANELS:
        for target in panel["targets"]:
            legend = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert legend <= results(target["expr"]), panel["title"]


def test_names_are_given_once_and_every_query_goes_to_the_data_source_that_is_chosen():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    alerts = [rule["alert"] for rule in RULES]

    assert len(ids) == len(set(ids))
    assert len(alerts) == len(set(alerts))
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["query"] == "prometheus"
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert all(target["datasource"] == chosen for p in PANELS for target in p["targets"])
    used = set(re.findall(r"\$(\w+)", " ".join(expr for _, expr in QUERIES)))
    assert {name for name in used if not name.startswith("__")} <= set(variables)
    for name in ("instance", "route"):
        metric, label = re.findall(r"\w+", variables[name]["query"]["query"])[1:]
        assert label in LABELS[metric] | OF_PROMETHEUS


def test_panels_do_not_lie_over_each_other():
    taken = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["id"]) == panel["id"], panel["title"]


def test_what_is_checked_against_is_what_a_scrape_tells():
    engines = {"tiny": render_metrics(EngineStats())}
    text = exposition(Scrape(engines=engines)).decode()
    told = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))

    assert told == {re.sub("_(bucket|sum|count)$", "", name) for name in LABELS}
