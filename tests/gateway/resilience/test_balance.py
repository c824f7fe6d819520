from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator

import pytest

from gateway.errors import ProviderError, ProviderRateLimited, ProviderRejected, ProviderUnavailable
from gateway.resilience.balance import Balance, BalancedProvider, Member
from gateway.wire import Part, ProviderCall
from policies.schema import Timeouts

PART = Part(b"{}", text="hi")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def tick(self) -> float:
        return self.now


class Upstream:
    """A provider that takes its time on a clock of the test's, and fails as it is told."""

    def __init__(self, clock: Clock, *, takes_s: float = 0.1) -> None:
        self.clock = clock
        self.takes_s = takes_s
        self.fails: ProviderError | None = None
        self.calls = 0
        self.is_closed = False

    async def call(self, call: ProviderCall) -> AsyncGenerator[Part, None]:
        self.calls += 1
        self.clock.now += self.takes_s
        if self.fails is not None:
            raise self.fails
        yield PART

    async def aclose(self) -> None:
        self.is_closed = True


class Fleet:
    """Upstreams behind one balanced provider."""

    def __init__(self, *weights: float, balance: Balance = "latency") -> None:
        self.clock = Clock()
        self.upstreams = [Upstream(self.clock) for _ in weights]
        self.members = [
            Member(f"d{i}", upstream, weight)
            for i, (upstream, weight) in enumerate(zip(self.upstreams, weights, strict=True))
        ]
        self.provider = BalancedProvider(
            self.members,
            tick=self.clock.tick,
            wall=self.clock.tick,
            draw=random.Random(7).random,
            balance=balance,
        )

    async def ask(self, asked: set[str] | None = None) -> ProviderError | None:
        call = ProviderCall({}, False, False, Timeouts(), "r", asked)
        try:
            assert [part async for part in self.provider.call(call)] == [PART]
        except ProviderError as exc:
            return exc
        return None

    async def share(self, count: int) -> list[float]:
        before = [upstream.calls for upstream in self.upstreams]
        for _ in range(count):
            await self.ask()
        return [(u.calls - b) / count for u, b in zip(self.upstreams, before, strict=True)]


async def test_weights_alone_decide_where_that_is_asked_for() -> None:
    fleet = Fleet(3, 1, balance="weight")
    fleet.upstreams[0].takes_s = 2.0

    first, _ = await fleet.share(400)

    assert 0.7 < first < 0.8


async def test_the_quicker_deployment_gets_nearly_all_and_a_slow_one_is_tried_again() -> None:
    fleet = Fleet(1, 1)
    fleet.upstreams[0].takes_s = 1.0
    _, quick = await fleet.share(500)
    assert quick > 0.9

    fleet.upstreams[0].takes_s = 0.01
    well_again, _ = await fleet.share(1000)
    assert well_again > 0.5


async def test_calls_under_way_count_against_a_deployment() -> None:
    fleet = Fleet(1, 1)
    await fleet.share(20)
    fleet.members[0].under_way = 10

    assert await fleet.share(20) == [0.0, 1.0]


async def test_a_deployment_that_fails_is_ejected_for_longer_each_time() -> None:
    fleet = Fleet(1, 1, balance="weight")
    fleet.upstreams[0].fails = ProviderUnavailable("down")
    await fleet.share(40)
    assert fleet.members[0].breaker.state == "open"

    calls = []
    for _ in range(3):
        before = fleet.upstreams[0].calls
        fleet.clock.now += 5.0
        await fleet.share(20)
        calls.append(fleet.upstreams[0].calls - before)
    assert calls[0] == 1
    assert sum(calls) < 3


async def test_one_that_fails_now_and_then_gets_less() -> None:
    fleet = Fleet(1, 1)
    dice = random.Random(1)
    for _ in range(200):
        fleet.upstreams[0].fails = ProviderUnavailable("x") if dice.random() < 0.3 else None
        await fleet.ask()

    assert fleet.upstreams[0].calls < 60


async def test_the_last_one_is_asked_however_ill_it_is() -> None:
    fleet = Fleet(1, 1)
    for upstream in fleet.upstreams:
        upstream.fails = ProviderUnavailable("down")
        upstream.takes_s = 0.0
    await fleet.share(30)
    assert all(member.breaker.state == "open" for member in fleet.members)

    assert await fleet.share(10)
    assert sum(u.calls for u in fleet.upstreams) == 40
    for upstream in fleet.upstreams:
        upstream.fails = None
    assert await fleet.ask() is None
    assert any(member.breaker.state == "closed" for member in fleet.members)


async def test_a_refused_request_ejects_nobody() -> None:
    fleet = Fleet(1, 1)
    for upstream in fleet.upstreams:
        upstream.fails = ProviderRejected("your fault", status=400)
    await fleet.share(50)

    assert {member.breaker.state for member in fleet.members} == {"closed"}


async def test_one_over_its_rate_rests_as_long_as_it_asks_for() -> None:
    fleet = Fleet(1, 1, balance="weight")
    fleet.upstreams[0].fails = ProviderRateLimited("slow down", retry_after="30")
    await fleet.share(10)
    assert fleet.upstreams[0].calls == 1

    fleet.clock.now += 30
    await fleet.share(10)
    assert fleet.upstreams[0].calls == 2


async def test_a_repeated_request_goes_to_a_deployment_that_it_was_not_sent_to() -> None:
    fleet = Fleet(1, 1, 1)
    for upstream in fleet.upstreams:
        upstream.fails = ProviderUnavailable("x")
    asked: set[str] = set()

    told = [exc.has_alternative for _ in range(3) if (exc := await fleet.ask(asked))]

    assert Counter(u.calls for u in fleet.upstreams) == {1: 3}
    assert told == [True, True, False]
    assert asked == {"d0", "d1", "d2"}


async def test_one_who_is_left_before_the_first_part_is_known_to_be_slow() -> None:
    fleet = Fleet(1, 1)

    class Silent(Upstream):
        async def call(self, call: ProviderCall) -> AsyncGenerator[Part, None]:
            self.clock.now += 3.0
            reached.set()
            await asyncio.Event().wait()
            yield PART

    reached = asyncio.Event()
    fleet.members[0].provider = Silent(fleet.clock)
    fleet.members[1].under_way = 50
    waiting = asyncio.create_task(fleet.ask())
    await reached.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert fleet.members[0].expected_s(fleet.clock.now) == 3.0
    assert [member.under_way for member in fleet.members] == [0, 50]


async def test_closing_closes_all() -> None:
    fleet = Fleet(1, 1)

    await fleet.provider.aclose()

    assert all(upstream.is_closed for upstream in fleet.upstreams)
