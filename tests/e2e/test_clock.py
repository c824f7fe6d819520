"""A wall clock that jumps moves no limit, no breaker and no deadline."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from gateway.clock import Clock
from tests.support.gateway_app import serving
from tests.support.policies import one_model
from tests.support.replies import Says
from tests.support.scripted_upstream import ScriptedUpstream, answer

HOUR_S = 3_600.0
JUMPS = [HOUR_S, -HOUR_S, 30 * 24 * HOUR_S]
ANSWER = Says("hi", tokens=(10, 5))


@dataclass
class Wall:
    """A wall clock that is set by hand, beside a tick that is the machine's."""

    now: float = 1_795_000_000.0

    @property
    def clock(self):
        """Return it as the gateway takes it."""
        return Clock(wall=lambda: self.now)


def limited(url, **limits):
    return one_model(url, cache=None, limits=limits)


@pytest.mark.parametrize("jump", JUMPS)
async def test_a_rate_is_not_refilled_by_the_wall_clock(tmp_path, jump):
    wall = Wall()
    async with (
        ScriptedUpstream(ANSWER) as upstream,
        serving(limited(upstream.url, requests_per_minute=2), tmp_path, clock=wall.clock) as here,
    ):
        before = [(await here.chat()).status_code for _ in range(3)]
        wall.now += jump
        after = await here.chat()

    assert before == [200, 200, 429]
    assert after.status_code == 429


@pytest.mark.parametrize("jump", JUMPS)
async def test_what_was_spent_in_all_stays_spent(tmp_path, jump):
    wall = Wall()
    budget = {"usd": 0.5, "per": "total"}
    async with (
        ScriptedUpstream(Says("hi", tokens=(200_000, 200_000))) as upstream,
        serving(limited(upstream.url, budget=budget), tmp_path, clock=wall.clock) as here,
    ):
        spent = await here.chat(max_tokens=5)
        wall.now += jump
        after = await here.chat(max_tokens=5)

    assert spent.status_code == 200
    assert (after.status_code, after.json()["error"]["code"]) == (429, "insufficient_quota")


@pytest.mark.parametrize("jump", JUMPS)
async def test_an_open_breaker_stays_open(tmp_path, jump):
    wall = Wall()
    breaker = {"consecutive": 1, "min_calls": 1, "open_for": "1h"}
    failing = [answer({}, status="500 Oh")]
    async with (
        ScriptedUpstream([failing]) as upstream,
        serving(
            one_model(upstream.url, cache=None, breaker=breaker), tmp_path, clock=wall.clock
        ) as here,
    ):
        await here.chat()
        wall.now += jump
        after = await here.chat()

    assert len(upstream.requests) == 1
    assert (after.status_code, after.json()["error"]["code"]) == (503, "circuit_open")
