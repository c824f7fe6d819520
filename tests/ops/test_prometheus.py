"""A real Prometheus takes the rules, fires them, scrapes a gateway and answers the dashboard."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest
import yaml

from gateway.telemetry.metrics import Scrape, exposition
from local_engine.metrics import render_metrics
from local_engine.types import EngineStats
from tests.support.gateway_app import asking, frugal_serve
from tests.support.policies import CHEAP, DEAR, two_tiers
from tests.support.replies import Says
from tests.support.threaded import upstream_in_thread

OPS = Path(__file__).parents[2] / "ops"
RULES = OPS / "prometheus" / "alerts.yaml"
DASHBOARD = json.loads((OPS / "grafana" / "frugal-gateway.json").read_text())
QUERIES = [
    (panel["title"], target["expr"])
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]
ALERTS = [
    rule["alert"]
    for group in yaml.safe_load(RULES.read_text())["groups"]
    for rule in group["rules"]
]
_READY_WITHIN_S = 60.0

_FOUND = {
    name: shutil.which(name, path=os.environ.get("FRUGAL_PROMETHEUS")) or shutil.which(name)
    for name in ("prometheus", "promtool")
}
pytestmark = pytest.mark.skipif(
    None in _FOUND.values(),
    reason="needs prometheus and promtool (Debian: apt-get install prometheus), on the PATH or in "
    "the folder that FRUGAL_PROMETHEUS names",
)

# What makes each alert fire: series, and values by the minute as promtool spells them.
_OF = 'job="frugal", instance="a"'
_COMES = "0+60x200"
_HELD = "1x200"
FIRES = {
    "FrugalNotScraped": {},
    "FrugalNotReady": {"frugal_ready{%s}": "0x200"},
    "FrugalLedgerUnreadable": {"frugal_ledger_readable{%s}": "0x200"},
    "FrugalLedgerBehind": {'frugal_process_ledger_waiting{%s,worker="0"}': "3000x200"},
    "FrugalErrors": {
        'frugal_requests_total{%s,route="auto",outcome="failed",cache="miss"}': "0+6x200",
        'frugal_requests_total{%s,route="auto",outcome="settled",cache="miss"}': _COMES,
    },
    "FrugalSlow": {
        'frugal_request_duration_seconds_bucket{%s,route="auto",cache="miss",le="30"}': "0x200",
        'frugal_request_duration_seconds_bucket{%s,route="auto",cache="miss",le="60"}': _COMES,
        'frugal_request_duration_seconds_bucket{%s,route="auto",cache="miss",le="+Inf"}': _COMES,
    },
    "FrugalBreakerOpen": {
        'frugal_process_breaker_state{%s,worker="0",model="m",state="open"}': _HELD
    },
    "FrugalDeploymentDown": {
        'frugal_process_deployment_up{%s,worker="0",model="m",deployment="d"}': "0x200"
    },
    "FrugalEngineNotReady": {'frugal_engine_ready{%s,model="tiny"}': "0x200"},
    "FrugalQueueLong": {
        'frugal_process_queue_wait_seconds_bucket{%s,worker="0",le="5"}': "0x200",
        'frugal_process_queue_wait_seconds_bucket{%s,worker="0",le="10"}': _COMES,
        'frugal_process_queue_wait_seconds_bucket{%s,worker="0",le="+Inf"}': _COMES,
    },
    "FrugalRefusals": {'frugal_refusals_total{%s,code="rate_limited"}': "0+120x200"},
    "FrugalBudgetNearlySpent": {
        'frugal_budget_spent_usd{%s,scope="key",name="k",per="month",at_limit="warn"}': "95x200",
        'frugal_budget_limit_usd{%s,scope="key",name="k",per="month",at_limit="warn"}': "100x200",
    },
    "FrugalBackgroundSpend": {
        'frugal_background_cost_usd_total{%s,purpose="audit"}': "0+1x200",
        'frugal_cost_usd_total{%s,route="auto"}': "0+2x200",
    },
    "FrugalCascadeLosesMoney": {'frugal_measured_saved_usd_upper{%s,route="auto"}': "-1x200"},
    "FrugalFalseHits": {
        'frugal_semantic_false_hit_ratio_lower{%s,route="auto",tenant="t"}': "0.05x200",
        'frugal_semantic_max_error_ratio{%s,route="auto"}': "0.01x200",
    },
    "FrugalErrorBudgetSpent": {'frugal_semantic_serving{%s,route="auto",tenant="t"}': "0x200"},
    "FrugalDrift": {
        'frugal_learning_steps_total{%s,route="auto",kind="drift"}': "0x170 1x30",
    },
    "FrugalCertificateLost": {'frugal_certificate{%s,route="auto",state="lost"}': _HELD},
    "FrugalTracesDropped": {'frugal_process_traces_total{%s,worker="0",outcome="dropped"}': _COMES},
    "FrugalAlertsLost": {'frugal_process_alerts_total{%s,worker="0",outcome="failed"}': "0+1x200"},
}
WELL = {
    "frugal_ready{%s}": _HELD,
    "frugal_ledger_readable{%s}": _HELD,
    'frugal_requests_total{%s,route="auto",outcome="settled",cache="miss"}': _COMES,
    'frugal_learning_steps_total{%s,route="auto",kind="drift"}': "0x200",
    'frugal_semantic_serving{%s,route="auto",tenant="t"}': _HELD,
    'frugal_semantic_false_hit_ratio_lower{%s,route="auto",tenant="t"}': "0.0x200",
    'frugal_semantic_max_error_ratio{%s,route="auto"}': "0.01x200",
    'frugal_process_breaker_state{%s,worker="0",model="m",state="open"}': "0x200",
    'frugal_measured_saved_usd_upper{%s,route="auto"}': "5x200",
}
"""A gateway in good health, of which no rule says anything."""


def _case(series, alert):
    """Return a test of promtool: what holds three hours after such series began."""
    told = [
        {"series": name % _OF if "%s" in name else name, "values": v} for name, v in series.items()
    ]
    expr = 'count(ALERTS{alertstate="firing"%s})' % (f', alertname="{alert}"' if alert else "")
    samples = [{"labels": "{}", "value": 1}] if alert else []
    return {
        "interval": "1m",
        "input_series": told,
        "promql_expr_test": [{"expr": expr, "eval_time": "180m", "exp_samples": samples}],
    }


def _promtool(*arguments):
    return subprocess.run(
        [_FOUND["promtool"], *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def test_promtool_takes_the_rules():
    done = _promtool("check", "rules", str(RULES))

    assert done.returncode == 0, done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_every_rule_fires_when_it_should_and_none_when_all_is_well(tmp_path):
    assert set(FIRES) == set(ALERTS)
    cases = [_case(series, alert) for alert, series in FIRES.items()] + [_case(WELL, None)]
    path = tmp_path / "rules.yaml"
    path.write_text(
        yaml.safe_dump(
            {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": cases}, width=1000
        )
    )
    done = _promtool("test", "rules", str(path))

    assert done.returncode == 0, done.stdout + done.stderr


def test_names_types_and_helps_are_as_prometheus_would_have_them():
    text = exposition(Scrape(engines={"tiny": render_metrics(EngineStats())}))
    done = subprocess.run(
        [_FOUND["promtool"], "check", "metrics"], input=text, capture_output=True, timeout=120,
        check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


# A gateway that is scraped


def _free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@contextlib.contextmanager
def _prometheus(folder, target):
    """Run a Prometheus that scrapes one gateway each second; yield a client of it."""
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "frugal", "static_configs": [{"targets": [target]}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = _free_port()
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [_FOUND["prometheus"], f"--config.file={folder / 'prometheus.yml'}",
             f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        base = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=base, trust_env=False, timeout=30) as client:
            yield client
    finally:
        process.terminate()
        process.wait(timeout=30)


def _query(client, expr):
    answer = client.get("/api/v1/query", params={"query": expr}).json()
    assert answer["status"] == "success", f"{expr}: {answer.get('error')}"
    return answer["data"]["result"]


def _until(client, expr, holds):
    deadline = time.monotonic() + _READY_WITHIN_S
    while True:
        assert time.monotonic() < deadline, expr
        with contextlib.suppress(httpx.TransportError, ValueError):
            if holds(found := _query(client, expr)):
                return found
        time.sleep(0.2)


def _as_grafana_asks(expr):
    """Put in the place of Grafana's variables what it would."""
    values = {"route": ".*", "instance": ".*", "__range": "1h", "__rate_interval": "1m"}
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], expr)


@pytest.fixture(scope="module")
def scraped(tmp_path_factory):
    """Yield a Prometheus that has scraped a gateway with some requests behind it."""
    folder = tmp_path_factory.mktemp("prometheus")
    sure = Says("yes", tokens=(10, 3), logprobs=[-0.01], name="small-up")
    with (
        upstream_in_thread(sure) as small,
        upstream_in_thread(Says("no", tokens=(10, 4))) as large,
    ):
        text = two_tiers(small.url, large.url, cascade={"audit": {"share": 1}, "control": 0.2},
                         limits={"budget": {"usd": 100, "per": "month"}})  # fmt: skip
        with (
            frugal_serve(text, folder) as served,
            _prometheus(folder, served.admin_url.removeprefix("http://")) as client,
            served.client() as asks,
        ):
            _until(client, "frugal_ready", bool)
            for number in range(20):
                answer = asks.post("/v1/chat/completions", json=asking(f"Question {number % 15}?"))
                assert answer.status_code == 200, answer.text
            _until(
                client, "sum(frugal_requests_total)", lambda r: r and float(r[0]["value"][1]) >= 20
            )
            yield client


@pytest.mark.parametrize("expr", [expr for _, expr in QUERIES], ids=[name for name, _ in QUERIES])
def test_the_dashboards_queries_are_answered(scraped, expr):
    _query(scraped, _as_grafana_asks(expr))


def test_what_is_scraped_is_what_was_asked(scraped):
    cost = _query(scraped, "sum(frugal_cost_usd_total)")
    hits = _until(scraped, 'sum(frugal_cache_hits_total{cache="exact"})', bool)
    up = _query(scraped, "up")
    health = scraped.get("/api/v1/targets").json()["data"]["activeTargets"][0]

    assert float(cost[0]["value"][1]) >= 15 * (10 * CHEAP["input_per_mtok_usd"]) / 1e6
    assert float(cost[0]["value"][1]) <= 20 * (10 * DEAR["input_per_mtok_usd"] + 80) / 1e6
    assert hits[0]["value"][1] == "5"
    assert up[0]["value"][1] == "1"
    assert (health["health"], health["lastError"]) == ("up", "")


def test_the_rules_are_followed_and_a_healthy_gateway_sets_none_off(scraped):
    groups = scraped.get("/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]

    assert {rule["name"] for rule in rules} == set(ALERTS)
    assert [rule["lastError"] for rule in rules if rule.get("lastError")] == []
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []
