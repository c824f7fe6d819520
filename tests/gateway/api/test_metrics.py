"""`/metrics`: who may scrape, and that it is true right after a request."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.support.gateway_app import serving
from tests.support.policies import one_model, policy, remote
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream


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


async def test_loopback_needs_no_key_but_a_name_of_this_machine(tmp_path):
    text = policy({"large": remote("http://127.0.0.1:1/v1")}, access={"anonymous": "never"})
    async with serving(text, tmp_path) as gateway:
        plain = await gateway.admin.get("/metrics")
        rebound = await gateway.admin.get("/metrics", headers={"host": "evil.example"})

    assert plain.status_code == 200
    assert "frugal_ready 1.0" in plain.text
    assert rebound.status_code == 400
