"""What every limit store promises, over all of them; Redis is a real one."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from msgspec.structs import replace

from cache.stores.redis import RedisLink
from gateway.access.meters import (
    Claim,
    LimitStore,
    Pace,
    Purse,
    Refused,
    Room,
    StoreAway,
    Taken,
    Unseeded,
)
from gateway.access.stores.memory import MemoryLimits
from gateway.access.stores.postgres import PostgresLimits
from gateway.access.stores.scripts import SCRIPTS
from gateway.access.stores.shared import SharedLimits
from tests.support.postgres_server import PostgresServer
from tests.support.redis_server import RedisServer

# A machine with more work than cores is late, and no server is away for that.
PATIENT = {"within_s": 60.0, "lease_s": 3600.0}
REQUESTS = Pace("key:a:requests", "key 'a'", "requests", 6)
TOKENS = Pace("key:a:tokens", "key 'a'", "tokens", 1000)
ROOM = Room("key:a:concurrent", "key 'a'", 2)
PURSE = Purse(
    "key:a:day:1", "key:a:day", ("key", "a"), "the budget of key 'a'", 1000, "refuse", True,
    0.0, float("inf"),
)  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


def shared(link: RedisLink, *, ledger: str = "one", **options: object) -> SharedLimits:
    return SharedLimits(link, ledger=ledger, tick=lambda: 1.0, wall=lambda: 1.0, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def database():
    with PostgresServer() as running:
        yield running


def in_postgres(url: str, *, ledger: str = "one", **options: object) -> PostgresLimits:
    told = {**PATIENT, **options}
    return PostgresLimits(url, ledger=ledger, tick=lambda: 1.0, wall=lambda: 1.0, **told)  # type: ignore[arg-type]


@pytest.fixture(params=["memory", "redis", "postgres"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[LimitStore]:
    if request.param == "memory":
        yield MemoryLimits(lambda: 1.0)
        return
    if request.param == "postgres":
        async with in_postgres(request.getfixturevalue("database").new_database()) as made:
            yield made
        return
    server: RedisServer = request.getfixturevalue("server")
    server.flush()
    async with RedisLink(server.url, SCRIPTS, deadline_s=60.0) as link, shared(link) as made:
        yield made


async def take(store: LimitStore, claim: Claim, *, spent: int = 0) -> Taken | Refused:
    while isinstance(result := await store.take(claim), Unseeded):
        for purse in result.purses:
            await store.seed(purse, spent)
    return result


async def test_a_burst_passes_and_the_next_is_told_how_long_to_wait(store):
    claim = Claim(((REQUESTS, 1),))
    results = [await take(store, claim) for _ in range(7)]

    assert [type(result) for result in results] == [Taken] * 6 + [Refused]
    assert results[-1].meter == REQUESTS
    assert 9 < results[-1].wait_s <= 10
    assert [result.levels[0].remaining for result in results] == [5, 4, 3, 2, 1, 0, 0]


async def test_more_than_a_minutes_worth_never_passes(store):
    result = await take(store, Claim(((TOKENS, 1001),)))

    assert result.wait_s == float("inf")


async def test_tokens_are_trued_up_both_ways(store):
    claim = Claim(((TOKENS, 900),))
    await take(store, claim)
    store.settle(claim, tokens=100, nano_usd=0)
    after_refund = await take(store, Claim(((TOKENS, 800),)))
    store.settle(Claim(((TOKENS, 800),)), tokens=2000, nano_usd=0)
    after_debt = await take(store, Claim(((TOKENS, 1),)))

    assert isinstance(after_refund, Taken)
    assert after_refund.levels[0].remaining in (100, 101)
    assert 60 < after_debt.wait_s < 70


async def test_a_room_holds_so_many_and_is_left_again(store):
    claim = Claim((), (ROOM,))
    first = [await take(store, claim) for _ in range(3)]
    store.settle(claim, tokens=0, nano_usd=0)
    again = [await take(store, claim) for _ in range(2)]

    assert [type(result) for result in (*first, *again)] == [Taken, Taken, Refused, Taken, Refused]
    assert first[2].wait_s is None


async def test_a_purse_is_asked_for_what_the_ledger_knows_before_anything_is_taken(store):
    claim = Claim(((REQUESTS, 1),), (), ((PURSE, 400),))
    unknown = await store.take(claim)
    await store.seed(PURSE, 500)
    await store.seed(PURSE, 0)  # who comes second is not believed
    first, second = await store.take(claim), await store.take(claim)

    assert unknown == Unseeded((PURSE,))
    assert first.levels[0].remaining == 5
    assert isinstance(second, Refused)


async def test_a_purse_never_gives_more_than_it_has_and_says_whether_waiting_helps(store):
    claim = Claim((), (), ((PURSE, 600),))
    first, second = await take(store, claim), await take(store, claim)
    store.settle(claim, tokens=0, nano_usd=600)
    third, small = await take(store, claim), await take(store, Claim((), (), ((PURSE, 400),)))

    assert isinstance(first, Taken)
    assert second.wait_s is None
    assert third.wait_s == float("inf")
    assert isinstance(small, Taken)


async def test_what_was_spent_before_is_told_of_each_purse(store):
    claim = Claim((), (ROOM,), ((PURSE, 100),))
    first = await take(store, claim, spent=400)
    store.settle(claim, tokens=0, nano_usd=70)
    second = await take(store, claim)

    assert [first.spent, second.spent] == [(400,), (470,)]


async def test_a_soft_purse_gives_and_says_that_it_is_over(store):
    soft = replace(PURSE, hard=False, at_limit="warn")
    results = [await take(store, Claim((), (), ((soft, 600),))) for _ in range(2)]

    assert [result.over for result in results] == [(), (soft,)]


async def test_what_one_meter_refuses_is_not_taken_from_the_others(store):
    full = Claim((), (ROOM,))
    await take(store, full)
    await take(store, full)
    whole = Claim(((REQUESTS, 1), (TOKENS, 500)), (ROOM,), ((PURSE, 900),))
    refused = await take(store, whole)
    store.settle(full, tokens=0, nano_usd=0)
    granted = await take(store, whole)

    assert refused.meter == ROOM
    assert [level.remaining for level in granted.levels] == [5, 500]


async def test_two_hundred_at_once_get_exactly_what_there_is(store):
    await take(store, Claim((), (), ((PURSE, 0),)))
    claim = Claim((), (), ((PURSE, 10),))
    results = await asyncio.gather(*(take(store, claim) for _ in range(200)))

    assert sum(isinstance(result, Taken) for result in results) == 100


# Two processes on one Redis


@pytest.fixture
async def pair(server: RedisServer) -> AsyncIterator[tuple[SharedLimits, SharedLimits]]:
    server.flush()
    async with AsyncExitStack() as stack:
        made = []
        for name in ("one", "two"):
            link = RedisLink(server.url, SCRIPTS, deadline_s=60.0)
            await stack.enter_async_context(link)
            made.append(await stack.enter_async_context(shared(link, ledger=name)))
        yield made[0], made[1]


async def test_two_processes_share_a_rate(pair):
    claim = Claim(((replace(REQUESTS, per_minute=100), 1),))
    results = await asyncio.gather(*(take(pair[i % 2], claim) for i in range(300)))

    assert sum(isinstance(result, Taken) for result in results) in (100, 101)


async def test_two_processes_share_a_purse_and_add_up_what_each_ledger_knows(pair):
    claim = Claim((), (), ((PURSE, 10),))
    await asyncio.gather(*(take(each, claim, spent=100) for each in pair))
    results = await asyncio.gather(*(take(pair[i % 2], claim, spent=100) for i in range(200)))

    assert sum(isinstance(result, Taken) for result in results) == 78


async def test_what_a_dead_process_held_counts_as_spent_and_its_rooms_are_free(pair, server):
    first, second = pair
    claim = Claim((), (ROOM,), ((PURSE, 500),))
    await take(first, claim)
    await take(first, Claim((), (ROOM,), ((PURSE, 300),)))
    first.settle(Claim((), (ROOM,), ((PURSE, 300),)), tokens=0, nano_usd=300)
    await _heard(first)
    meanwhile = await take(second, claim)
    server.say("ZREM", "{frugal}:limits:processes", first.name)
    after = await take(second, claim)
    fits = [await take(second, Claim((), (ROOM,), ((PURSE, 100),))) for _ in range(3)]

    assert isinstance(meanwhile, Refused)
    assert meanwhile.wait_s is None
    assert isinstance(after, Refused)
    assert after.wait_s == math.inf
    assert [type(each) for each in fits] == [Taken, Taken, Refused]


async def test_a_process_that_was_taken_for_dead_says_again_what_it_holds(pair, server):
    first, second = pair
    claim = Claim((), (ROOM,), ((PURSE, 600),))
    await take(first, claim)
    server.say("DEL", "{frugal}:limits:processes")
    assert isinstance(await take(first, Claim((), (ROOM,), ((PURSE, 10),))), Taken)
    refused = await take(second, claim)
    first.settle(claim, tokens=0, nano_usd=50)
    await _heard(first)
    granted = await take(second, claim)

    assert isinstance(refused, Refused)
    assert isinstance(granted, Taken)


async def test_a_redis_that_forgot_all_is_told_by_the_ledger(pair, server):
    first, _ = pair
    claim = Claim((), (), ((PURSE, 600),))
    await take(first, claim)
    first.settle(claim, tokens=0, nano_usd=600)
    server.flush()
    refused = await take(first, claim, spent=600)
    granted = await take(first, Claim((), (), ((PURSE, 400),)), spent=600)

    assert isinstance(refused, Refused)
    assert isinstance(granted, Taken)


async def test_a_take_that_was_given_up_is_held_by_nobody(pair):
    first, second = pair
    claim = Claim((), (ROOM,), ((PURSE, 1000),))
    await take(first, Claim((), (), ((PURSE, 0),)))
    task = asyncio.ensure_future(first.take(claim))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await take(first, Claim(((REQUESTS, 1),)))
    result = await take(second, claim)

    assert isinstance(result, Taken)


# Two processes on one PostgreSQL


@pytest.fixture
async def couple(database: PostgresServer) -> AsyncIterator[tuple[PostgresLimits, PostgresLimits]]:
    url = database.new_database()
    async with in_postgres(url) as first, in_postgres(url) as second:
        yield first, second


async def test_two_processes_share_a_purse_in_postgresql_and_count_one_ledger_once(couple):
    claim = Claim((), (), ((PURSE, 10),))
    await asyncio.gather(*(take(each, claim, spent=200) for each in couple))
    results = await asyncio.gather(*(take(couple[i % 2], claim, spent=200) for i in range(200)))

    assert sum(isinstance(result, Taken) for result in results) == 78


async def test_in_postgresql_two_ledgers_add_up(database):
    url = database.new_database()
    claim = Claim((), (), ((PURSE, 500),))
    async with in_postgres(url) as first, in_postgres(url, ledger="two") as second:
        await take(first, Claim((), (), ((PURSE, 0),)), spent=300)
        refused = await take(second, claim, spent=300)

    assert isinstance(refused, Refused)


async def test_what_a_dead_process_held_in_postgresql_counts_as_spent(database):
    url = database.new_database()
    claim, small = (Claim((), (), ((PURSE, amount),)) for amount in (500, 300))
    async with in_postgres(url) as second:
        async with in_postgres(url) as first:
            await take(first, claim)
            await take(first, small)
            first.settle(small, tokens=0, nano_usd=300)
            await take(first, Claim((), (), ((PURSE, 0),)))
            meanwhile = await take(second, claim)
        _say(database, url, "UPDATE budget_process SET alive_until_us = 0")
        after = await take(second, claim)
        async with in_postgres(url) as again:  # its ledger tells of it, too, and it counts once
            fits = [await take(again, Claim((), (), ((PURSE, 200),)), spent=800) for _ in "ab"]

    assert isinstance(meanwhile, Refused)
    assert isinstance(after, Refused)
    assert (meanwhile.wait_s, after.wait_s) == (None, math.inf)
    assert [type(each) for each in fits] == [Taken, Refused]


async def test_what_a_process_spent_and_could_not_tell_is_made_up_for_by_the_ledger(database):
    url = database.new_database()
    claim = Claim((), (), ((PURSE, 500),))
    async with in_postgres(url) as first:
        await take(first, claim)
        first.settle(claim, tokens=0, nano_usd=500)
    async with in_postgres(url) as again:
        refused = await take(again, claim, spent=900)
        granted = await take(again, Claim((), (), ((PURSE, 100),)), spent=900)

    assert isinstance(refused, Refused)
    assert isinstance(granted, Taken)


async def test_a_postgresql_that_forgot_all_is_told_by_the_ledger(database):
    url = database.new_database()
    claim = Claim((), (), ((PURSE, 600),))
    async with in_postgres(url) as store:
        await take(store, claim)
        store.settle(claim, tokens=0, nano_usd=600)
        await take(store, Claim((), (), ((PURSE, 0),)))
        _say(database, url, "TRUNCATE budget, budget_part, budget_process")
        refused = await take(store, claim, spent=600)
        granted = await take(store, Claim((), (), ((PURSE, 400),)), spent=600)

    assert isinstance(refused, Refused)
    assert isinstance(granted, Taken)


async def test_without_postgresql_a_hard_purse_gives_nothing_and_a_soft_one_is_told_later():
    soft = Claim((), (), ((replace(PURSE, hard=False, at_limit="warn"), 600),))
    hard = Claim((), (), ((PURSE, 100),))
    with PostgresServer() as server:
        async with PostgresLimits(
            server.new_database(), ledger="one", tick=time.monotonic, wall=time.time, **PATIENT
        ) as store:
            await take(store, Claim((), (), ((PURSE, 0),)))
            server.kill()
            with pytest.raises(StoreAway):
                await take(store, hard)
            given = await take(store, soft)
            store.settle(soft, tokens=0, nano_usd=950)
            server.start()
            while isinstance(back := await _or_away(store, hard), StoreAway):
                pass

    assert isinstance(given, Taken)
    assert isinstance(back, Refused)


async def test_a_take_in_postgresql_that_was_given_up_is_held_by_nobody(couple):
    first, second = couple
    claim = Claim((), (ROOM,), ((PURSE, 1000),))
    await take(first, Claim((), (), ((PURSE, 0),)))
    task = asyncio.ensure_future(first.take(claim))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    for _ in range(2):
        await take(first, Claim((), (), ((PURSE, 0),)))
    result = await take(second, claim)

    assert isinstance(result, Taken)


async def test_the_dead_of_long_ago_are_swept_and_their_spending_stays(database):
    url = database.new_database()
    claim = Claim((), (), ((PURSE, 600),))
    now = 1.0
    async with PostgresLimits(
        url, ledger="one", tick=lambda: now, wall=lambda: 1.0, **PATIENT
    ) as store:
        async with in_postgres(url) as dead:
            await take(dead, claim)
            dead.settle(claim, tokens=0, nano_usd=600)
        _say(database, url, "UPDATE budget_process SET alive_until_us = 0")
        now = 1000.0
        await take(store, Claim((), (), ((PURSE, 0),)))
        await take(store, Claim((), (), ((PURSE, 0),)))
        parts = _say(database, url, "SELECT process, spent_nano_usd FROM budget_part ORDER BY 1")
        refused = await take(store, claim)

    assert parts[0] == ("one/", 600)
    assert [name for name, _ in parts] == ["one/", store.name]
    assert isinstance(refused, Refused)


async def _heard(store):
    """Return once what was settled has arrived: what is asked now comes after it."""
    await take(store, Claim(((TOKENS, 0),)))


async def _or_away(store, claim):
    try:
        return await take(store, claim)
    except StoreAway as exc:
        return exc


def _say(server: PostgresServer, url: str, sql: str):
    return server.say(sql, url.partition("@/")[2].partition("?")[0])
