from __future__ import annotations

import random
from collections import Counter
from decimal import Decimal

from gateway.errors import ProviderError, ProviderUnavailable
from gateway.money.price import Price
from gateway.resilience.balance import BalancedProvider, Member
from gateway.resilience.homes import Homes
from gateway.wire import Part, ProviderCall
from policies.schema import Timeouts

CHEAPER = Price(input=Decimal(3), cached_input=Decimal("0.3"))
LONG = "Once upon a time. " * 300


class Upstream:
    def __init__(self, fleet):
        self.fleet = fleet
        self.takes_s = 0.1
        self.fails = None

    async def call(self, call):
        self.fleet.now += self.takes_s
        if self.fails is not None:
            raise self.fails
        yield Part(b"{}", text="hi")

    async def aclose(self):
        pass


class Fleet:
    """Two equal deployments, and conversations that go on."""

    def __init__(self, price=CHEAPER):
        self.now = 1000.0
        self.upstreams = {name: Upstream(self) for name in ("d0", "d1")}
        self.provider = BalancedProvider(
            [Member(name, upstream, 1.0) for name, upstream in self.upstreams.items()],
            tick=lambda: self.now,
            wall=lambda: self.now,
            draw=random.Random(3).random,
            homes=Homes(price) if price else None,
        )

    async def ask(self, *texts, tenant="a"):
        """Return who answered."""
        asked = set()
        body = {"messages": [{"role": "user", "content": text} for text in texts]}
        call = ProviderCall(body, False, False, Timeouts(), "r", asked, tenant)
        try:
            async for _ in self.provider.call(call):
                pass
        except ProviderError:
            return None
        (name,) = asked
        return name

    async def talk(self, first, turns=12):
        """Return who answered a conversation's turns, and how often."""
        said, who = [first], Counter()
        for turn in range(turns):
            who[await self.ask(*said)] += 1
            said.append(f"go on {turn}")
        return who


async def test_a_long_conversation_stays_where_its_prompt_is_cached():
    fleet = Fleet()
    talks = [await fleet.talk(f"{count}: {LONG}") for count in range(20)]

    assert all(len(who) == 1 for who in talks)
    assert len({name for who in talks for name in who}) == 2


async def test_without_a_cheaper_read_there_is_no_home():
    for price in (None, Price(input=Decimal(1), cached_input=Decimal(1))):
        talks = [await Fleet(price).talk(LONG) for _ in range(3)]

        assert any(len(who) == 2 for who in talks)


async def test_a_short_conversation_has_no_home():
    who = await Fleet().talk("hi", turns=30)

    assert len(who) == 2


async def test_a_conversation_that_has_cooled_off_is_free_to_go():
    fleet = Fleet()
    who = Counter()
    for _ in range(30):
        who[await fleet.ask(LONG)] += 1
        fleet.now += 601.0

    assert len(who) == 2


async def test_a_sick_home_is_left_and_the_new_one_kept():
    fleet = Fleet()
    home = await fleet.ask(LONG)
    fleet.upstreams[home].fails = ProviderUnavailable("down")
    while await fleet.ask(LONG, "2") is None:
        pass

    (other,) = set(fleet.upstreams) - {home}
    fleet.upstreams[home].fails = None
    assert {await fleet.ask(LONG, "2", "3") for _ in range(10)} == {other}


async def test_a_home_that_takes_seconds_longer_is_left():
    fleet = Fleet()
    home = await fleet.ask(LONG)
    fleet.upstreams[home].takes_s = 5.0
    await fleet.ask(LONG, "2")

    assert await fleet.ask(LONG, "2", "3") != home


async def test_tenants_have_homes_of_their_own():
    fleet = Fleet()
    for count in range(10):
        who = {await fleet.ask(f"{count}{LONG}", tenant=tenant) for tenant in "abcdef"}
        if len(who) == 2:
            return

    raise AssertionError("expected tenants to be sent to both deployments")
