"""A semantic cache that is wrong too often, from its audits to the webhook that is told."""

from __future__ import annotations

import asyncio

import pytest

import gateway.error_budgets
from tests.support.gateway_app import serving
from tests.support.policies import policy, remote
from tests.support.scripted_upstream import ScriptedUpstream, answer
from tests.support.semantic import THINGS, Contrary, in_other_words


@pytest.fixture
def looks_often(monkeypatch):
    """Look at the budgets every few milliseconds rather than every half minute."""
    monkeypatch.setattr(gateway.error_budgets, "LOOK_EVERY_S", 0.02)


async def test_audits_that_find_it_wrong_stop_it_and_the_webhook_is_told(tmp_path, looks_often):
    async with (
        ScriptedUpstream([[answer(b"", status="204 No Content")]]) as hook,
        ScriptedUpstream(Contrary()) as upstream,
    ):
        semantic = {"max_error": 0.5, "audit": 1}
        text = policy(
            {"m": remote(upstream.url)},
            {"auto": {"model": "m", "cache": {"semantic": semantic}}},
            alerts={"url": hook.url, "events": ["error_budget"]},
        )
        async with serving(text, tmp_path) as running:
            served = []
            for thing in THINGS:
                first, other = in_other_words(thing)
                await running.chat(first)
                again = await running.chat(other)
                served.append(again.headers["x-cache"])
                await _audited(running, served.count("semantic"))
                if await _stopped(running):
                    break
            await hook.until(lambda: bool(hook.requests))
            scraped = (await running.admin.get("/metrics")).text
            told = hook.requests[0].json

    assert served.count("semantic") >= 5  # fewer wrong ones could still be chance
    assert told["event"] == "error_budget_spent"
    assert (told["route"], told["tenant"]) == ("auto", "default")
    assert 'frugal_semantic_serving{route="auto",tenant="default"} 0.0' in scraped
    assert 'frugal_semantic_stops_total{route="auto",tenant="default"} 1.0' in scraped


async def _seen(running):
    return (await running.admin.get("/admin/cache")).json()


async def _audited(running, most):
    """Wait until as many hits were audited as were served, or the budget was spent by them."""
    async with asyncio.timeout(20):
        while (await _seen(running))["semantic"]["audited"] < most:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def _stopped(running):
    return any(each["stops"] for each in (await _seen(running))["semantic"]["budgets"])
