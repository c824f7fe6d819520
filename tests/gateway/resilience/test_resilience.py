from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.access.keys import ANONYMOUS
from gateway.attempt import Attempt
from gateway.clock import Clock
from gateway.entry import Entry
from gateway.errors import ProviderRateLimited, ProviderUnavailable
from gateway.request import parse_chat
from gateway.resilience.resilience import Resilience, terms_of
from gateway.wire import Part
from policies.schema import Route
from tests.support.gateway_app import asking

DOWN = ProviderUnavailable("down")


class Time:
    """A clock that moves by hand and when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def tick(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def clock(time: Time) -> Clock:
    return Clock(wall=time.tick, tick=time.tick)


@pytest.fixture
def resilience(time: Time, clock: Clock) -> Resilience:
    return Resilience(clock, draw=lambda: 0.5, sleep=time.sleep)


def _entry(clock: Clock, **route: Any) -> Entry:
    request = parse_chat(json.dumps(asking()).encode(), {}, "req_1")
    whole = Route.model_validate({"model": "large", **route})
    return Entry(request, ANONYMOUS, "auto", whole, clock)


def _failed(entry: Entry) -> Attempt:
    attempt = entry.attempt("large")
    attempt.fail(DOWN)
    return attempt


async def test_a_retry_waits_for_what_the_upstream_asks_and_half_its_jitter(
    resilience: Resilience, clock: Clock, time: Time
) -> None:
    entry = _entry(clock, retries={"base": 1})

    busy = ProviderRateLimited("slow down", retry_after="3")
    assert await resilience.try_again(_failed(entry), entry, busy)
    assert time.slept == [3.5]


async def test_a_wait_beyond_the_total_deadline_is_not_begun(
    resilience: Resilience, clock: Clock, time: Time
) -> None:
    entry = _entry(clock, retries={"base": 1}, timeouts={"total": 10})
    attempt = _failed(entry)
    time.now += 9.5

    assert not await resilience.try_again(attempt, entry, DOWN)
    assert time.slept == []


async def test_a_repeated_attempt_has_the_deadlines_that_the_first_one_left(
    clock: Clock, time: Time
) -> None:
    entry = _entry(clock, retries={}, timeouts={"total": 60, "first_token": 45, "idle": 20})
    first = _failed(entry)
    assert terms_of(first, entry)[0] is entry.route.timeouts
    first.is_superseded = True
    time.now += 40.0

    timeouts, asked = terms_of(entry.attempt("large"), entry)
    assert (timeouts.total, timeouts.first_token, timeouts.idle) == (20.0, 20.0, 20.0)
    assert timeouts.connect == entry.route.timeouts.connect
    assert asked is entry.asked("large")


async def test_an_attempt_that_has_begun_is_not_repeated(
    resilience: Resilience, clock: Clock
) -> None:
    entry = _entry(clock, retries={})
    attempt = entry.attempt("large")
    attempt.see(Part(b"{}"))
    attempt.fail(DOWN)

    assert not await resilience.try_again(attempt, entry, DOWN)


async def test_a_route_without_rules_is_left_alone(resilience: Resilience, clock: Clock) -> None:
    entry = _entry(clock)
    attempt = _failed(entry)

    assert not await resilience.try_again(attempt, entry, DOWN)
    assert not resilience.may_hedge(entry)
    assert terms_of(attempt, entry) == (entry.route.timeouts, None)


async def test_hedges_and_retries_share_one_budget_and_a_request_has_one_hedge(
    resilience: Resilience, clock: Clock
) -> None:
    rules = {"budget": 1.0, "per_second": 0}
    guarded = {"hedge": {"after": 1, **rules, "budget": 0.0}, "retries": rules}
    entry = _entry(clock, **guarded)
    resilience.count(entry)

    assert resilience.may_hedge(entry)
    assert not await resilience.try_again(_failed(entry), entry, DOWN)
    resilience.count(entry)
    entry.attempt("large", purpose="hedge")
    assert not resilience.may_hedge(entry)
