"""Budgets as clients meet them: never exceeded, released, renewed by the calendar."""

from __future__ import annotations

import asyncio
import json
import logging
from decimal import Decimal

import pytest

from gateway.clock import Clock
from tests.support.gateway_app import serving
from tests.support.policies import KEPT, policy, remote, two_tiers
from tests.support.replies import Says, in_turn
from tests.support.scripted_upstream import FIN, Hold, ScriptedUpstream, answer

# A thousand tokens out at ten dollars a million: a cent an answer.
CENT = {"input_per_mtok_usd": 0, "output_per_mtok_usd": 10}
ANSWER = Says("yes", tokens=(10, 1000))
NANO = 10**9
HOUR = 1_795_003_200.0 - 1_795_003_200.0 % 3600


class Time:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = HOUR + 60

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time():
    return Time()


@pytest.fixture
async def upstream():
    async with ScriptedUpstream(ANSWER) as server:
        yield server


@pytest.fixture
def served(upstream, tmp_path, time):
    def start(limits, *, routes=None, models=None, **more):
        known = {"m": remote(upstream.url, price=CENT), **(models or {})}
        text = policy(known, routes, limits=limits, **more)
        return serving(text, tmp_path, clock=Clock(wall=time, tick=time))

    return start


def _spent(gateway):
    return sum(entry["cost_nano_usd"] for entry in gateway.books.entries())


async def test_two_hundred_at_once_never_spend_more_than_the_dollar(served, upstream):
    async with served({"budget": {"usd": 1, "per": "day"}}) as gateway:
        replies = await asyncio.gather(
            *(gateway.chat(str(i), model="m", max_tokens=1000) for i in range(200))
        )
        statuses = [reply.status_code for reply in replies]
        spent = _spent(gateway)

    assert spent == statuses.count(200) * NANO // 100 <= NANO
    assert statuses.count(200) == 100
    assert statuses.count(429) == 100
    assert len(upstream.requests) == 100


async def test_who_is_refused_is_told_why_and_not_to_try_again(served):
    async with served({"budget": {"usd": 0.015, "per": "day"}}) as gateway:
        first = await gateway.chat("a", model="m", max_tokens=1000)
        refused = await gateway.chat("b", model="m", max_tokens=1000)
        smaller = await gateway.chat("c", model="m", max_tokens=500)

    assert first.status_code == 200
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "insufficient_quota"
    assert "0.015 dollars a day" in refused.json()["error"]["message"]
    assert refused.headers["x-should-retry"] == "false"
    assert smaller.status_code == 200


async def test_a_reservation_is_given_back_when_the_client_leaves(tmp_path):
    hold = Hold()
    async with ScriptedUpstream([[hold], [answer(ANSWER.body())]]) as upstream:
        limits = {"budget": {"usd": 0.01, "per": "total"}}
        text = policy({"m": remote(upstream.url, price=CENT)}, limits=limits)
        async with serving(text, tmp_path) as gateway:
            task = asyncio.create_task(gateway.chat(model="m", max_tokens=1000))
            await upstream.until(lambda: len(upstream.requests) == 1)
            held = await gateway.chat("meanwhile", model="m", max_tokens=1000)
            task.cancel()
            await gateway.books.until(1)
            after = await gateway.chat("next", model="m", max_tokens=999)

    assert held.status_code == 429
    assert held.headers["retry-after"] == "1"
    assert after.status_code == 200


async def test_a_client_that_leaves_has_spent_what_may_be_billed_where_the_policy_says_so(tmp_path):
    hold = Hold()
    async with ScriptedUpstream([[hold], [answer(ANSWER.body())]]) as upstream:
        limits = {"budget": {"usd": 0.015, "per": "total"}, "abandoned": "most"}
        text = policy({"m": remote(upstream.url, price=CENT)}, limits=limits)
        async with serving(text, tmp_path) as gateway:
            task = asyncio.create_task(gateway.chat(model="m", max_tokens=500))
            await upstream.until(lambda: len(upstream.requests) == 1)
            held = await gateway.chat("meanwhile", model="m", max_tokens=1001)
            task.cancel()
            await gateway.books.until(1)
            refused = await gateway.chat("too long", model="m", max_tokens=1001)
            after = await gateway.chat("next", model="m", max_tokens=1000)

    assert held.status_code == 429
    assert held.headers["retry-after"] == "1"
    assert refused.status_code == 429
    assert after.status_code == 200


async def test_a_reservation_is_given_back_when_nobody_could_be_asked(served, upstream):
    limits = {"budget": {"usd": 0.01, "per": "total"}}
    models = {"away": remote("http://127.0.0.1:1/v1", price=CENT)}
    async with served(limits, models=models) as gateway:
        failed = await gateway.chat(model="away", max_tokens=1000)
        after = await gateway.chat(model="m", max_tokens=1000)

    assert failed.status_code == 503
    assert after.status_code == 200


@pytest.mark.parametrize(("usd", "status"), [(0.02, 429), (0.03, 200)])
async def test_a_call_is_sent_again_only_where_the_budget_has_room_for_both(tmp_path, usd, status):
    scripts = in_turn(ANSWER, lambda _: [FIN], ANSWER)
    async with ScriptedUpstream(scripts) as upstream:
        limits = {"budget": {"usd": usd, "per": "total"}}
        text = policy({"m": remote(upstream.url, price=CENT)}, limits=limits)
        async with serving(text, tmp_path) as gateway:
            await gateway.chat("first", model="m", max_tokens=1000)
            second = await gateway.chat("second", model="m", max_tokens=1000)
            third = await gateway.chat("third", model="m", max_tokens=1)
            row = gateway.books.entries()[1]

    assert (second.status_code, third.status_code) == (status, 429)
    assert len(upstream.requests) == 2 + (status == 200)
    assert row["upper_nano_usd"] == (2 if status == 200 else 1) * NANO // 100


@pytest.mark.parametrize(("usd", "calls"), [("0.015", 2), ("0.02", 3)])
async def test_a_call_is_sent_again_only_within_the_requests_own_ceiling(tmp_path, usd, calls):
    scripts = in_turn(ANSWER, lambda _: [FIN], ANSWER)
    async with ScriptedUpstream(scripts) as upstream:
        text = policy({"m": remote(upstream.url, price=CENT)})
        async with serving(text, tmp_path) as gateway:
            modest = {"x-frugal-max-usd": usd}
            for prompt in ("first", "second"):
                await gateway.chat(prompt, model="m", max_tokens=1000, headers=modest)
            row = gateway.books.entries()[1]

    assert len(upstream.requests) == calls
    assert row["upper_nano_usd"] == (calls - 1) * NANO // 100


async def test_a_control_that_fails_comes_to_the_reference_again_only_with_money_for_it(tmp_path):
    names = [f"k{number}" for number in range(24)]  # each with a budget; one is drawn for sure
    async with ScriptedUpstream([[FIN]]) as small, ScriptedUpstream([[FIN]]) as large:
        told = json.loads(two_tiers(small.url, large.url, cascade={"control": 0.5}))
        for model in told["models"].values():
            model["price"] = CENT
        told["limits"] = {"budget": {"usd": 0.02, "per": "total"}}
        told["access"] = {
            "keys": [{"name": each, "key": f"sk-{each}-0123456789abcdef"} for each in names]
        }
        async with serving(json.dumps(told), tmp_path) as gateway:
            for name in names:
                headers = {"authorization": f"Bearer sk-{name}-0123456789abcdef"}
                await gateway.chat(name, max_tokens=1000, headers=headers)
            rows = gateway.books.entries()

    ways = {" ".join(step.rpartition(":")[0] for step in row["path"].split(",")) for row in rows}
    assert ways == {
        "small:unavailable large:unavailable",
        "large:unavailable small:unavailable large:limited",
    }
    assert {row["upper_nano_usd"] for row in rows} == {2 * NANO // 100}


async def test_a_budget_begins_anew_with_the_hour(served, time):
    async with served({"budget": {"usd": 0.01, "per": "hour"}}) as gateway:
        statuses = []
        for prompt in ("a", "b"):
            statuses.append((await gateway.chat(prompt, model="m", max_tokens=1000)).status_code)
        time.now += 3600
        statuses.append((await gateway.chat("c", model="m", max_tokens=1000)).status_code)

    assert statuses == [200, 429, 200]


async def test_a_request_is_charged_to_the_window_that_it_began_in(tmp_path, time):
    hold = Hold()
    async with ScriptedUpstream([[hold, answer(ANSWER.body())]]) as upstream:
        limits = {"budget": {"usd": 0.01, "per": "hour"}}
        text = policy({"m": remote(upstream.url, price=CENT)}, limits=limits)
        async with serving(text, tmp_path, clock=Clock(wall=time, tick=time)) as gateway:
            task = asyncio.create_task(gateway.chat("a", model="m", max_tokens=1000))
            await upstream.until(lambda: len(upstream.requests) == 1)
            time.now += 3600
            hold.release()
            await task
            second = await gateway.chat("b", model="m", max_tokens=1000)

    assert second.status_code == 200


async def test_what_was_spent_before_a_restart_still_counts(served):
    limits = {"budget": {"usd": 0.02, "per": "month", "time_zone": "Europe/Berlin"}}
    async with served(limits) as gateway:
        await gateway.chat("a", model="m", max_tokens=1000)
        await gateway.chat("b", model="m", max_tokens=900)
    async with served(limits) as gateway:
        again = await gateway.chat("c", model="m", max_tokens=1000)

    assert again.status_code == 429


async def test_budgets_of_key_tenant_route_and_tag_all_hold(served):
    cent = {"budget": {"usd": 0.01, "per": "total"}}
    keys = [
        {"name": n, "tenant": t, "key": f"key-{n}"} for n, t in (("a", "x"), ("b", "x"), ("c", "y"))
    ]
    limits = {"tenants": {"x": cent}, "tags": {"batch": cent}}
    routes = {"r": {"model": "m", "limits": cent}}
    async with served(limits, routes=routes, access={"keys": keys}) as gateway:

        async def ask(key, model="m", **more):
            headers = {"authorization": f"Bearer key-{key}"}
            prompt = f"{key}{model}{more}"
            asked = await gateway.chat(
                prompt, model=model, max_tokens=1000, headers=headers, **more
            )
            return asked.status_code, asked.json().get("error", {}).get("message", "")

        assert (await ask("a"))[0] == 200
        status, said = await ask("b")
        assert status == 429
        assert "tenant 'x'" in said
        assert (await ask("c", frugal={"tags": ["batch"]}))[0] == 200
        assert "tag 'batch'" in (await ask("c", frugal={"tags": ["batch", "b"]}))[1]
        assert (await ask("c", "r"))[0] == 200
        assert "route 'r'" in (await ask("c", "r", n=1))[1]


async def test_hits_are_served_when_the_money_is_gone(served):
    routes = {"auto": {"model": "m", "cache": KEPT}}
    async with served({"budget": {"usd": 0.01}}, routes=routes) as gateway:
        await gateway.chat("a", max_tokens=1000)
        other = await gateway.chat("b", max_tokens=1000)
        hit = await gateway.chat("a", max_tokens=1000)

    assert other.status_code == 429
    assert (hit.status_code, hit.headers["x-cache"]) == (200, "exact")


async def test_equal_requests_at_once_reserve_once(served, upstream):
    routes = {"auto": {"model": "m", "cache": KEPT}}
    async with served({"budget": {"usd": 0.01}}, routes=routes) as gateway:
        replies = await asyncio.gather(*(gateway.chat("a", max_tokens=1000) for _ in range(20)))

    assert {reply.status_code for reply in replies} == {200}
    assert len(upstream.requests) == 1


async def test_equal_requests_at_once_reserve_once_of_a_budget_that_is_known(served, upstream):
    routes = {"auto": {"model": "m", "cache": KEPT}}
    async with served({"budget": {"usd": 0.02}}, routes=routes) as gateway:
        await gateway.chat("b", max_tokens=1)
        replies = await asyncio.gather(*(gateway.chat("a", max_tokens=1000) for _ in range(20)))

    assert {reply.status_code for reply in replies} == {200}
    assert len(upstream.requests) == 2


async def test_at_the_limit_the_cheapest_tier_answers_and_is_not_cached(served, tmp_path, upstream):
    async with ScriptedUpstream(Says("cheap", tokens=(10, 10))) as small:
        models = {"s": remote(small.url, price={"input_per_mtok_usd": 0, "output_per_mtok_usd": 1})}
        tiers = {"tiers": ["s", "m"], "confidence": {"kind": "agreement", "with": "m"}}
        routes = {"auto": {"cascade": tiers, "cache": KEPT}}
        limits = {"budget": {"usd": 0.03, "at_limit": "cheapest"}}
        async with served(limits, routes=routes, models=models) as gateway:
            first = await gateway.chat("a", max_tokens=1000)
            second = await gateway.chat("b", max_tokens=1000)
            third = await gateway.chat("b", max_tokens=1000)

    assert first.headers["x-frugal-model"] == "m"
    assert second.headers["x-frugal-path"] == "s:served"
    assert third.headers["x-cache"] == "miss"


async def test_a_warning_lets_requests_pass_and_is_logged_once(served, caplog):
    with caplog.at_level(logging.WARNING, logger="gateway.access.admission"):
        async with served({"budget": {"usd": 0.01, "at_limit": "warn"}}) as gateway:
            statuses = [
                (await gateway.chat(str(i), model="m", max_tokens=1000)).status_code
                for i in range(4)
            ]

    assert statuses == [200] * 4
    assert [r.getMessage() for r in caplog.records if "used up" in r.getMessage()] == [
        "the budget of key 'anonymous': 0.01 dollars a month: is used up; requests go on"
    ]


async def test_several_budgets_hold_at_once(served):
    budgets = [{"usd": 1, "per": "month"}, {"usd": "0.01", "per": "hour"}]
    async with served({"budget": budgets}) as gateway:
        await gateway.chat("a", model="m", max_tokens=1000)
        refused = await gateway.chat("b", model="m", max_tokens=1000)

    assert f"{Decimal('0.01')} dollars an hour" in refused.json()["error"]["message"]


async def test_without_max_tokens_the_models_own_bound_is_reserved(served, upstream):
    models = {"bounded": remote(upstream.url, price=CENT, max_output=1000)}
    async with served({"budget": {"usd": 0.015}}, models=models) as gateway:
        unbounded = await gateway.chat("a", model="m")
        bounded = await gateway.chat("b", model="bounded")

    assert unbounded.status_code == 429
    assert "max_tokens" in unbounded.json()["error"]["message"]
    assert bounded.status_code == 200


# A request's own ceiling


@pytest.fixture
def cascaded(upstream):
    cascade = {"tiers": ["cheap", "m"], "confidence": {"kind": "agreement", "with": "judge"}}
    models = {
        "cheap": remote(upstream.url, price={**CENT, "output_per_mtok_usd": 1}),
        "judge": remote(upstream.url, price="unknown_is_free"),
    }
    return {"routes": {"auto": {"cascade": cascade, "cache": KEPT}}, "models": models}


async def test_a_ceiling_leaves_out_the_tiers_that_could_pass_it(served, cascaded, upstream):
    async with served({}, **cascaded) as gateway:
        whole = await gateway.chat("a", max_tokens=1000)
        modest = await gateway.chat("b", max_tokens=1000, headers={"x-frugal-max-usd": "0.002"})
        in_body = await gateway.chat("c", max_tokens=1000, frugal={"max_usd": 0.002})
        again = await gateway.chat("a", max_tokens=1000, frugal={"max_usd": 0})

    assert "skipped" not in whole.headers["x-frugal-path"]
    assert modest.headers["x-frugal-path"].startswith("m:max_usd:skipped,cheap:")
    assert in_body.headers["x-frugal-model"] == "cheap"
    assert again.headers["x-cache"] == "exact"  # what costs nothing passes no ceiling
    assert len(upstream.requests) == 6


async def test_a_ceiling_below_every_tier_is_a_clear_400(served, cascaded, upstream):
    async with served({}, **cascaded) as gateway:
        refused = await gateway.chat("a", max_tokens=1000, frugal={"max_usd": 0.0005})
        leads = await gateway.chat("a", max_tokens=1000)
        counted = (await gateway.admin.get("/admin/refusals")).json()["data"]

    error = refused.json()["error"]
    assert [(each["code"], each["requests"]) for each in counted] == [("max_usd_exceeded", 1)]
    assert refused.status_code == 400
    assert (error["code"], error["param"]) == ("max_usd_exceeded", "x-frugal-max-usd")
    assert "smaller max_tokens" in error["message"]
    assert leads.status_code == 200


async def test_a_budget_sets_no_more_aside_than_the_ceiling(served):
    async with served({"budget": {"usd": "0.004", "per": "day"}}) as gateway:
        whole = await gateway.chat("a", model="m", max_tokens=1000)
        modest = await gateway.chat("b", model="m", max_tokens=200, frugal={"max_usd": 0.003})

    assert whole.status_code == 429
    assert modest.status_code == 200
