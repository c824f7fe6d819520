"""`/metrics`: who may scrape, and that it is true right after a request."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry import looks
from gateway.telemetry.families import FAMILIES
from tests.support.gateway_app import serving
from tests.support.policies import CHEAP, DEAR, one_model, policy, remote
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Wait for a ledger on a busy machine: what is told is tested here, not how soon."""
    monkeypatch.setattr(looks, "WITHIN_S", 60.0)


def samples(text):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_a_scrape_tells_what_was_asked_and_where_the_answers_came_from(tmp_path):
    cache = {"exact": {"ttl": "1h"}, "semantic": {"max_error": 0.5, "audit": 0}}
    async with (
        ScriptedUpstream(Says("Press reset", tokens=(10, 5))) as upstream,
        serving(one_model(upstream.url, cache=cache), tmp_path) as gateway,
    ):
        await gateway.chat("How do I reset my password?")
        await gateway.chat("How do I reset my password?")
        await gateway.chat("how do I reset my password please")
        answer = await gateway.admin.get("/metrics")

    found = samples(answer.text)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert found["frugal_requests_total", "miss", "large", "settled", "auto"] == 1
    assert found["frugal_requests_total", "exact", "large", "settled", "auto"] == 1
    assert found["frugal_requests_total", "semantic", "large", "settled", "auto"] == 1
    assert found["frugal_cache_hits_total", "exact", "auto"] == 1
    assert found["frugal_cache_hits_total", "semantic", "auto"] == 1
    assert found["frugal_calls_total", "large", "accepted", "serve"] == 1
    assert found["frugal_tokens_total", "output", "large"] == 5
    assert found["frugal_request_duration_seconds_count", "exact", "auto"] == 1
    assert found["frugal_cost_usd_total", "auto"] > 0
    assert found["frugal_semantic_cache_entries",] == 1


async def test_every_line_of_a_gateway_that_does_all_has_the_labels_that_are_said(tmp_path):
    """Once with a cascade, queue, breakers, deployments, traces and alerts that nobody takes."""
    async with (
        ScriptedUpstream(Says("Press reset", tokens=(10, 5))) as upstream,
        ScriptedUpstream(Says("Press reset", tokens=(10, 5))) as other,
        serving(_everything(upstream.url, other.url), tmp_path) as gateway,
    ):
        whole, streamed, failed = [
            await gateway.chat("How do I reset it?", model=model, stream=is_streamed)
            for model, is_streamed in (("auto", False), ("other", True), ("gone", False))
        ]
        answer = await gateway.admin.get("/metrics")

    assert (whole.status_code, streamed.status_code, failed.status_code) == (200, 200, 503)
    lines = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            lines.setdefault(family.name, []).append(sample)
    known = {family.name: family for family in FAMILIES}
    for name, samples_of_one in lines.items():
        labels = set(known[name.removeprefix("frugal_")].labels)
        for sample in samples_of_one:
            assert set(sample.labels) - {"le"} == labels
    silent = {name for name in known if f"frugal_{name}" not in lines}
    assert silent == QUIET
    found = samples(answer.text)
    assert found["frugal_budget_limit_usd", "warn", "web", "day", "tenant"] == 3
    assert found["frugal_budget_reserved_usd", "warn", "web", "day", "tenant"] == 0
    assert found["frugal_tenant_requests_total", "web"] == 0
    assert found["frugal_process_queue_waiting", "0"] == 0
    assert len([key for key in found if key[0] == "frugal_process_deployment_up"]) == 2
    assert found["frugal_requests_total", "bypass", "away", "failed", "gone"] == 1


QUIET = {
    # Nothing was drawn for the reference, audited, learnt, given up or refused, nobody waited.
    *("measured_saved_usd", "measured_saved_usd_lower", "measured_saved_usd_upper"),
    *("learning_stage", "learning_steps", "certified_loss_bound", "background_cost_usd"),
    *("semantic_false_hit_ratio", "semantic_false_hit_ratio_lower"),
    *("semantic_false_hit_ratio_upper", "semantic_serving", "semantic_audited_hits"),
    *("semantic_stops", "process_drafts_given_up", "process_draft_tokens_saved", "refusals"),
    *("process_queue_wait_seconds", "semantic_refusals"),
}


def _everything(url, other):
    nowhere = "http://127.0.0.1:1"
    deployments = [{"base_url": url}, {"base_url": other}]
    guarded = {"breaker": {"failures": 0.5}}
    models = {
        "large": remote(url, price=DEAR),
        "double": {k: v for k, v in remote(url, price=CHEAP).items() if k != "base_url"}
        | {"deployments": deployments},
        "away": remote(f"{nowhere}/v1", price=CHEAP),
    }
    near = {"exact": {"ttl": "1h"}, "semantic": {"max_error": 0.5, "audit": 0}}
    tiers = {"tiers": ["double", "large"], "confidence": {"kind": "logprob", "threshold": 0.0}}
    routes = {
        "auto": {"cascade": tiers, "cache": near, **guarded},
        "other": {"model": "double", **guarded},
        "gone": {"model": "away", **guarded},
    }
    limits = {
        "concurrent": 8,
        "queue": {"max_waiting": 8},
        "shed": {"lag": "10s"},
        "tenants": {"web": {"budget": {"usd": 3, "per": "day", "at_limit": "warn"}}},
    }
    told = {"telemetry": {"traces": {"endpoint": nowhere}}, "alerts": {"url": f"{nowhere}/hook"}}
    return policy(models, routes, limits=limits, **told)


async def test_loopback_needs_no_key_but_a_name_of_this_machine(tmp_path):
    text = policy({"large": remote("http://127.0.0.1:1/v1")}, access={"anonymous": "never"})
    async with serving(text, tmp_path) as gateway:
        plain = await gateway.admin.get("/metrics")
        rebound = await gateway.admin.get("/metrics", headers={"host": "evil.example"})

    assert plain.status_code == 200
    assert "frugal_ready 1.0" in plain.text
    assert rebound.status_code == 400
