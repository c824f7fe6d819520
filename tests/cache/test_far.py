"""The exact cache of several processes: each has its own links to one real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from cache.exact import ExactCache, Seat
from cache.far import Far
from cache.fingerprint import fingerprint
from cache.freshness import Freshness
from cache.scope import Scope
from cache.types import MOST_BEHIND, CachedReply, FellBehind, LeaderFailed, StoreFailed
from tests.support.far import process
from tests.support.redis_server import RedisServer

KEY = fingerprint("acme", "auto", "1", {"messages": []})
Processes = list[ExactCache[bytes]]


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(Path(tmp_path_factory.mktemp("redis"))) as server:
        yield server


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    shared_server.flush()
    return shared_server


@pytest.fixture
async def processes(server: RedisServer) -> AsyncIterator[Processes]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(process(server)) for _ in range(3)]


def reply(*parts: bytes, created_at: float = 0.0) -> CachedReply:
    return CachedReply(
        parts, len(parts) > 1, "large", {"output": 2}, created_at, "large:served", route="auto"
    )


def taken(cache: ExactCache[bytes], key: bytes = KEY, room: int = 10_000) -> Seat[bytes]:
    return cache.seat(key, Freshness(1e12), max_entry=room)


async def seated(cache: ExactCache[bytes], key: bytes = KEY, room: int = 10_000) -> Seat[bytes]:
    seat = taken(cache, key, room).__enter__()
    if seat.may_look_further:
        await seat.look_further()
    return seat


def leave(seat: Seat[bytes], error: BaseException | None = None) -> None:
    seat.__exit__(type(error) if error else None, error, None)


def far_of(cache: ExactCache[bytes]) -> Far[bytes]:
    assert cache.far is not None
    return cache.far


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 - a server tells nobody
            await asyncio.sleep(0.005)


async def read(seat: Seat[bytes]) -> list[bytes]:
    async with asyncio.timeout(20):
        return [piece async for piece in seat.follow()]


async def test_what_one_process_keeps_is_a_hit_in_the_others(processes: Processes) -> None:
    one, two, three = processes
    seat = await seated(one)
    assert seat.is_leader
    seat.publish(b"a")
    seat.keep(reply(b"a"))
    leave(seat)

    for other in (two, three):
        seat = await seated(other)
        assert seat.hit == reply(b"a")
        leave(seat)
    assert taken(two).hit == reply(b"a"), "now in its own memory, too"


async def test_one_process_leads_and_the_others_stream_along(processes: Processes) -> None:
    one, two, three = processes
    leader = await seated(one)
    leader.publish(b"early")
    followers = [await seated(two), await seated(three)]
    assert all(seat.is_follower and not seat.is_leader for seat in followers)

    pieces = [seat.follow() for seat in followers]
    assert [await anext(each) for each in pieces] == [b"early", b"early"]
    assert leader.has_followers
    leader.publish(b"late")
    leader.keep(reply(b"early", b"late"))
    leave(leader)

    assert [[piece async for piece in each] for each in pieces] == [[b"late"]] * 2
    for seat in followers:
        assert not seat.was_promoted
        leave(seat)
    assert [cache.stats().led for cache in processes] == [1, 0, 0]


async def test_other_processes_have_it_all_while_the_leaders_client_reads_nothing(
    processes: Processes,
) -> None:
    one, two, three = processes
    leader = await seated(one)
    led = leader.paced(_publishing(leader, b"a", b"b", b"c"), len)
    assert await anext(led) == b"a"
    followers = [await seated(two), await seated(three)]

    assert [await read(seat) for seat in followers] == [[b"a", b"b", b"c"]] * 2
    for seat in followers:
        leave(seat)
    assert [piece async for piece in led] == [b"b", b"c"]
    await led.aclose()
    leave(leader)


async def test_a_follower_elsewhere_too_far_behind_is_let_go_of(processes: Processes) -> None:
    one, two, _ = processes
    leader, slow = await seated(one, room=100_000_000), await seated(two)
    pieces = slow.follow()
    await until(lambda: leader.has_followers)
    for _ in range(12):
        leader.publish(b"x" * (MOST_BEHIND // 4))
    await until(lambda: not leader.has_followers)
    leave(leader)

    with pytest.raises(FellBehind):
        await anext(pieces)
    await pieces.aclose()
    leave(slow)


async def _publishing(seat: Seat[bytes], *pieces: bytes) -> AsyncGenerator[bytes, None]:
    for piece in pieces:
        seat.publish(piece)
        yield piece
    seat.keep(reply(*pieces))


async def test_a_follower_gives_the_answer_to_those_who_follow_it_in_its_process(
    processes: Processes,
) -> None:
    one, two, _ = processes
    leader = await seated(one)
    follower = await seated(two)
    local = taken(two).__enter__()
    both = asyncio.gather(read(follower), read(local))
    await until(lambda: leader.has_followers)
    leader.publish(b"a")
    leader.publish(b"b")
    leader.keep(reply(b"a", b"b"))
    leave(leader)

    assert await both == [[b"a", b"b"]] * 2


async def test_a_hit_elsewhere_serves_all_who_wait_for_it_here(processes: Processes) -> None:
    one, two, _ = processes
    leader = await seated(one)
    leader.keep(reply(b"a", b"b"))
    leave(leader)
    first = taken(two).__enter__()
    second = taken(two).__enter__()
    assert second.is_follower
    both = asyncio.gather(first.look_further(), read(second))
    _, pieces = await both

    assert first.hit == reply(b"a", b"b")
    assert pieces == [b"a", b"b"]


async def test_the_next_takes_over_from_a_leader_that_fails_elsewhere(
    processes: Processes,
) -> None:
    one, two, _ = processes
    leader = await seated(one)
    follower = await seated(two)
    reading = asyncio.ensure_future(read(follower))
    await until(lambda: leader.has_followers)
    leave(leader, ConnectionError())

    assert await reading == []
    assert follower.was_promoted
    assert follower.may_look_further
    await follower.look_further()
    assert follower.is_leader
    assert not follower.is_follower


async def test_a_reader_amid_the_answer_learns_that_its_leader_elsewhere_failed(
    processes: Processes,
) -> None:
    one, two, _ = processes
    leader = await seated(one)
    follower = await seated(two)
    pieces = follower.follow()
    leader.publish(b"a")
    assert await anext(pieces) == b"a"
    leave(leader, ConnectionError())

    with pytest.raises(LeaderFailed):
        await anext(pieces)


async def test_one_that_needs_the_whole_answer_leads_when_a_leader_elsewhere_fails_amid_it(
    processes: Processes,
) -> None:
    one, two, _ = processes
    leader = await seated(one)
    follower = await seated(two)
    reading = asyncio.ensure_future(anext(follower.follow(whole=True), None))
    leader.publish(b"a")
    await until(lambda: leader.has_followers)
    leave(leader, ConnectionError())

    assert await reading is None
    assert follower.was_promoted


async def test_a_dead_leader_is_replaced_once_its_lease_has_lapsed(server: RedisServer) -> None:
    async with AsyncExitStack() as stack:
        two = await stack.enter_async_context(process(server))
        dead = AsyncExitStack()
        one = await dead.enter_async_context(process(server))
        leader = await seated(one)
        assert leader.is_leader
        follower = await seated(two)
        await dead.aclose()  # it neither renews nor releases what it holds

        assert await read(follower) == []
        assert follower.was_promoted
        await follower.look_further()
        assert follower.is_leader


async def test_a_living_leader_keeps_its_lease_for_as_long_as_it_takes(
    processes: Processes, server: RedisServer
) -> None:
    one, two, _ = processes
    leader = await seated(one)
    follower = await seated(two)
    renewed = server.say("INFO", "commandstats")
    async with asyncio.timeout(20):
        while renewed.count(b"cmdstat_pexpire:calls=") == 0 or b"pexpire:calls=1," in renewed:
            await asyncio.sleep(0.05)
            renewed = server.say("INFO", "commandstats")
    reading = asyncio.ensure_future(read(follower))
    await until(lambda: leader.has_followers)
    leader.publish(b"a")
    leader.keep(reply(b"a"))
    leave(leader)

    assert await reading == [b"a"]


async def test_followers_survive_a_server_that_forgets_everything(
    processes: Processes, server: RedisServer
) -> None:
    one, two, _ = processes
    leader = await seated(one)
    follower = await seated(two)
    pieces = follower.follow()
    leader.publish(b"a")
    assert await anext(pieces) == b"a"
    server.flush()
    leader.publish(b"b")
    leader.keep(reply(b"a", b"b"))
    leave(leader)

    assert [piece async for piece in pieces] == [b"b"]


async def test_a_reader_amid_the_answer_waits_for_a_server_that_comes_back(
    tmp_path: Path,
) -> None:
    with RedisServer(tmp_path) as server:
        async with process(server) as one, process(server) as two:
            leader = await seated(one)
            follower = await seated(two)
            pieces = follower.follow()
            leader.publish(b"a")
            assert await anext(pieces) == b"a"
            server.kill()
            await until(lambda: not far_of(one).is_up and not far_of(two).is_up)
            leader.publish(b"b")
            leader.keep(reply(b"a", b"b"))
            leave(leader)
            server.start()

            assert [piece async for piece in pieces] == [b"b"]


async def test_with_nothing_in_hand_nobody_waits_for_a_server_that_died(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with process(server) as one, process(server) as two:
            leader = await seated(one)
            follower = await seated(two)
            reading = asyncio.ensure_future(read(follower))
            server.kill()

            assert await reading == []
            assert follower.was_promoted
            await follower.look_further()
            assert follower.is_leader
            leave(leader)


async def test_an_answer_that_outgrows_its_room_goes_on_for_those_who_follow_and_for_no_others(
    processes: Processes,
) -> None:
    one, two, three = processes
    leader = await seated(one, room=5)
    follower = await seated(two, room=100)
    reading = asyncio.ensure_future(read(follower))
    await until(lambda: leader.has_followers)
    leader.publish(b"abc")
    leader.publish(b"too long")
    async with asyncio.timeout(20):
        while await far_of(one).store.holder(KEY) is not None:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.005)
    late = await seated(three, room=100)
    assert late.is_leader, "it makes its own"
    leader.publish(b"and on")
    leader.keep(reply(b"abc", b"too long", b"and on"))
    leave(leader)

    assert await reading == [b"abc", b"too long", b"and on"]
    assert await far_of(one).store.get(KEY) is None


async def test_a_piece_that_cannot_be_read_is_as_bad_as_a_failed_leader(
    processes: Processes,
) -> None:
    one, two, _ = processes
    leader = await seated(one)
    follower = await seated(two)
    reading = asyncio.ensure_future(read(follower))
    await until(lambda: leader.has_followers)
    leader.publish(b"broken")

    assert await reading == []
    assert follower.was_promoted


async def test_foreign_messages_are_passed_over(processes: Processes, server: RedisServer) -> None:
    one, two, _ = processes
    leader = await seated(one)
    follower = await seated(two)
    for channel in server.say("PUBSUB", "CHANNELS", "frugal:p:*").split(b"\r\n"):
        if channel.startswith(b"frugal:"):
            server.say("PUBLISH", channel, b"\xc1 no message")
    reading = asyncio.ensure_future(read(follower))
    await until(lambda: leader.has_followers)
    leader.publish(b"a")
    leader.keep(reply(b"a"))
    leave(leader)

    assert await reading == [b"a"]


async def test_a_leader_learns_when_nobody_elsewhere_follows_any_more(
    processes: Processes,
) -> None:
    one, two, _ = processes
    leader = await seated(one)
    follower = await seated(two)
    await until(lambda: leader.has_followers)
    leave(follower, asyncio.CancelledError())

    await until(lambda: not leader.has_followers)


async def test_a_leader_that_leaves_with_nothing_said_has_not_answered(
    processes: Processes,
) -> None:
    one, two, _ = processes
    leader = await seated(one)
    follower = await seated(two)
    reading = asyncio.ensure_future(read(follower))
    await until(lambda: leader.has_followers)
    leave(leader)

    assert await reading == []
    assert follower.was_promoted


async def test_one_promoted_here_may_follow_elsewhere_and_is_served(processes: Processes) -> None:
    one, two, _ = processes
    first = taken(two).__enter__()
    second = taken(two).__enter__()
    leader = await seated(one)
    leave(first, ConnectionError())
    assert second.was_promoted
    await second.look_further()
    assert second.is_follower
    reading = asyncio.ensure_future(read(second))
    await until(lambda: leader.has_followers)
    leader.publish(b"a")
    leader.keep(reply(b"a"))
    leave(leader)

    assert await reading == [b"a"]
    assert not second.was_promoted


async def test_after_three_leaders_that_failed_a_request_makes_its_own_answer(
    processes: Processes,
) -> None:
    one, two, _ = processes
    follower = taken(two).__enter__()
    for _ in range(3):
        leader = await seated(one)
        await follower.look_further()
        assert follower.is_follower
        reading = asyncio.ensure_future(read(follower))
        await until(lambda leader=leader: leader.has_followers)
        leave(leader, ConnectionError())
        assert await reading == []
    leader = await seated(one)
    await follower.look_further()

    assert follower.is_leader
    leave(leader)


async def test_invalidated_entries_of_many_pages_are_all_found(processes: Processes) -> None:
    one, two, _ = processes
    for number in range(350):
        key = fingerprint("acme", "auto", "1", {"n": number})
        tags = tuple(f"{'long' * 100}{n}" for n in range(number % 5))
        kept = CachedReply((b"a",), False, "m", {}, 0.0, "", route="auto", tags=tags)
        await far_of(one).store.put(key, kept, 60)

    shared = fingerprint("", "other", "1", {}, corpus="faq")
    await far_of(one).store.put(shared, CachedReply((b"a",), False, "m", {}, 0.0, ""), 60)

    assert (await two.invalidate(Scope(corpus="faq"), dry_run=True)).entries == 1
    assert (await two.invalidate(Scope(tenant="acme"), dry_run=True)).entries == 350
    assert (await two.invalidate(Scope(tag="long" * 100 + "3"))).entries == 70
    assert (await two.invalidate(Scope(tenant="other"))).entries == 0
    assert (await two.invalidate(Scope(route="auto"))).entries == 280


# Invalidation


async def test_what_is_invalidated_in_one_process_is_gone_in_all(processes: Processes) -> None:
    one, two, three = processes
    for cache in processes:
        seat = await seated(cache)
        if seat.is_leader:
            seat.keep(reply(b"a"))
        leave(seat)
    assert all(taken(cache).hit for cache in processes)

    assert (await one.invalidate(Scope(route="auto"), dry_run=True)).entries == 1
    assert all(taken(cache).hit for cache in processes)
    assert (await one.invalidate(Scope(route="auto"))).entries == 1
    await until(lambda: not any(taken(cache).hit for cache in (two, three)))
    assert (await seated(two)).is_leader


async def test_an_answer_begun_before_an_invalidation_is_not_kept_after_it(
    processes: Processes,
) -> None:
    one, two, _ = processes
    leader = await seated(one)
    await two.invalidate(Scope(tenant="acme"))
    leader.keep(reply(b"old"))
    leave(leader)

    await until(lambda: not taken(one).hit)
    seat = await seated(two)
    assert seat.hit is None
    assert seat.is_leader


async def test_nobody_follows_an_answer_begun_before_an_invalidation(
    processes: Processes,
) -> None:
    one, two, three = processes
    await seated(one)
    await three.invalidate(Scope())

    seat = await seated(two)
    assert seat.hit is None
    assert not seat.is_follower


async def test_an_invalidation_out_of_reach_is_told_later(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with process(server) as one, process(server) as two:
            for cache in (one, two):
                seat = await seated(cache)
                if seat.is_leader:
                    seat.keep(reply(b"a"))
                leave(seat)
            server.kill()
            await until(lambda: not far_of(one).is_up)
            with pytest.raises(StoreFailed):
                await one.invalidate(Scope(route="auto"))
            assert taken(one).hit is None
            assert far_of(one).pending == 1
            server.start()
            await until(lambda: far_of(one).pending == 0)
            await until(lambda: taken(two).hit is None)


async def test_a_server_out_of_reach_leaves_each_process_to_itself(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    async with process(server) as one, process(server) as two:
        seats = [await seated(one), await seated(two)]
        assert all(seat.is_leader for seat in seats)
        seats[0].keep(reply(b"a"))
        leave(seats[0])

        assert taken(one).hit == reply(b"a")
        assert taken(two).hit is None


# Freshness


async def test_an_entry_too_old_for_the_request_is_made_anew(processes: Processes) -> None:
    one, two, _ = processes
    seat = await seated(one)
    seat.keep(reply(b"old", created_at=0.0))
    leave(seat)
    picky = two.seat(KEY, Freshness(60), max_entry=10_000).__enter__()
    await picky.look_further()

    assert picky.hit is None
    assert picky.is_leader
    picky.keep(reply(b"new", created_at=1e12))
    leave(picky)
    assert (await seated(processes[2])).hit == reply(b"new", created_at=1e12)


async def test_a_seat_that_skips_takes_no_kept_answer(processes: Processes) -> None:
    one, two, _ = processes
    seat = await seated(one)
    seat.keep(reply(b"a"))
    leave(seat)
    skipping = two.seat(KEY, Freshness(1e12), max_entry=10_000, skips=True).__enter__()
    await skipping.look_further()

    assert skipping.hit is None
    assert skipping.is_leader


async def test_tenants_share_neither_entries_nor_answers_under_way(processes: Processes) -> None:
    one, two, _ = processes
    body = {"messages": [{"role": "user", "content": "hi"}]}
    ours, theirs = (fingerprint(tenant, "auto", "1", body) for tenant in ("acme", "other"))
    leader = await seated(one, ours)
    leader.publish(b"secret")

    other = await seated(two, theirs)
    assert other.is_leader
    leader.keep(reply(b"secret"))
    leave(leader)
    leave(other)
    assert (await seated(two, theirs)).hit is None
