"""A conversation stays on its model while leaving forfeits more than the switch saves."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from gateway.clock import Clock
from tests.support.gateway_app import serving
from tests.support.policies import policy, remote
from tests.support.replies import Says, in_turn
from tests.support.scripted_upstream import FIN, ScriptedUpstream

FLASH = {"input_per_mtok_usd": 0.30, "output_per_mtok_usd": 2.50}
PRO = {"input_per_mtok_usd": 1.25, "cached_input_per_mtok_usd": 0.125, "output_per_mtok_usd": 2.5}
LONG = "A page of the contract. " * 400
UNSURE = Says("a doubtful draft", tokens=(2_400, 3), logprobs=[-0.01, -3.0, -0.05], name="flash")
SURE = Says("a sure draft", tokens=(2_400, 3), logprobs=[-0.01, -0.02, -0.05], name="flash")
BEST = Says("the large answer", tokens=(2_400, 4), name="pro")


@dataclass
class Hours:
    """A clock that a test sets."""

    now: float = 1_000.0

    @property
    def clock(self):
        """Return it as the gateway takes it."""
        return Clock(tick=lambda: self.now)


def text(flash, pro, *, price=PRO, confidence="logprob", tiers=("flash", "pro"), **route):
    models = {
        "flash": remote(flash, price=FLASH, logprobs=True),
        "pro": remote(pro, price=price),
    }
    cascade = {"tiers": list(tiers), "confidence": confidence}
    return policy(models, {"auto": {"cascade": cascade, **route}})


def turn(number):
    """Return the messages of a conversation's turn: each has the ones before it."""
    said = [{"role": "user", "content": LONG}]
    for _ in range(number):
        said.append({"role": "assistant", "content": "the large answer"})
        said.append({"role": "user", "content": "and then?"})
    return said


async def talk(gateway, number, **members):
    return await gateway.chat(messages=turn(number), **members)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("confidence", ["logprob", "learned"])
async def test_conversation_stays_on_the_model_that_has_it_cached(tmp_path, confidence, stream):
    async with (
        ScriptedUpstream(UNSURE) as flash,
        ScriptedUpstream(BEST) as pro,
        serving(text(flash.url, pro.url, confidence=confidence), tmp_path) as gateway,
    ):
        first = await talk(gateway, 0, stream=stream)
        second = await talk(gateway, 1, stream=stream)

    assert first.headers["x-frugal-path"].endswith("escalated,pro:served")
    assert second.headers["x-frugal-path"] == "pro:stayed"
    assert (len(flash.requests), len(pro.requests)) == (1, 2)
    (line,) = gateway.books.lines(gateway.books.entries()[1]["request_id"])
    assert line["outcome"] == "accepted"
    assert line["reason"].startswith("stays on pro: leaving forfeits $0.002700 of cached prompt")


async def test_conversation_that_has_grown_cold_begins_at_the_first_tier_again(tmp_path):
    hours = Hours()
    async with (
        ScriptedUpstream(UNSURE) as flash,
        ScriptedUpstream(BEST) as pro,
        serving(text(flash.url, pro.url), tmp_path, clock=hours.clock) as gateway,
    ):
        await talk(gateway, 0)
        hours.now += 601
        answer = await talk(gateway, 1)

    assert answer.headers["x-frugal-path"].endswith("escalated,pro:served")


async def test_conversation_leaves_where_the_switch_saves_more(tmp_path):
    dear = {**PRO, "cached_input_per_mtok_usd": 0.625}
    async with (
        ScriptedUpstream(UNSURE) as flash,
        ScriptedUpstream(BEST) as pro,
        serving(text(flash.url, pro.url, price=dear), tmp_path) as gateway,
    ):
        await talk(gateway, 0)
        answer = await talk(gateway, 1)

    assert answer.headers["x-frugal-path"].endswith("escalated,pro:served")


async def test_another_conversation_or_tenants_is_not_held(tmp_path):
    keys = [{"name": n, "tenant": n, "key": f"sk-{n}-0123456789abcdef"} for n in ("one", "other")]
    one, other = ({"authorization": f"Bearer {key['key']}"} for key in keys)
    async with (
        ScriptedUpstream(UNSURE) as flash,
        ScriptedUpstream(BEST) as pro,
        serving(_with_keys(text(flash.url, pro.url), keys), tmp_path) as gateway,
    ):
        await talk(gateway, 0, headers=one)
        new = await gateway.chat(LONG + "Another question.", headers=one)
        theirs = await talk(gateway, 1, headers=other)
        same = await talk(gateway, 1, headers=one)

    assert "stayed" not in new.headers["x-frugal-path"] + theirs.headers["x-frugal-path"]
    assert same.headers["x-frugal-path"] == "pro:stayed"


def _with_keys(policy_text, keys):
    return json.dumps(json.loads(policy_text) | {"access": {"keys": keys}})


async def test_failure_of_the_warm_model_falls_back_on_the_tiers_it_had_passed_over(tmp_path):
    def once(received):
        return BEST(received) if len(pro.requests) == 1 else [FIN]

    async with (
        ScriptedUpstream(UNSURE) as flash,
        ScriptedUpstream(once) as pro,
        serving(text(flash.url, pro.url, retries={"attempts": 1}), tmp_path) as gateway,
    ):
        await talk(gateway, 0)
        answer = await talk(gateway, 1)

    assert answer.status_code == 200
    # Its idle connection was gone, then the new one was closed as well.
    tried = "pro:unavailable:retried,pro:unavailable:failed"
    assert answer.headers["x-frugal-path"] == f"{tried},flash:fallback"


async def test_model_that_a_request_does_not_pay_for_is_not_stayed_on(tmp_path):
    async with (
        ScriptedUpstream(in_turn(UNSURE, SURE)) as flash,
        ScriptedUpstream(BEST) as pro,
        serving(text(flash.url, pro.url), tmp_path) as gateway,
    ):
        await talk(gateway, 0)
        modest = {"x-frugal-max-usd": "0.006"}
        answer = await talk(gateway, 1, max_tokens=50, headers=modest)

    assert answer.headers["x-frugal-path"] == "pro:max_usd:skipped,flash:0.95:accepted"


async def test_short_conversation_is_never_cached_and_never_stays(tmp_path):
    short = [{"role": "user", "content": "hi"}]
    more = [*short, {"role": "assistant", "content": "x"}, {"role": "user", "content": "and?"}]
    async with (
        ScriptedUpstream(UNSURE) as flash,
        ScriptedUpstream(BEST) as pro,
        serving(text(flash.url, pro.url), tmp_path) as gateway,
    ):
        await gateway.chat(messages=short)
        answer = await gateway.chat(messages=more)

    assert answer.headers["x-frugal-path"].endswith("escalated,pro:served")
