from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from cache.single_flight import Member, SingleFlight
from cache.types import LeaderFailed

KEY = b"k"
ROOM = 100


class Upstream(Exception):
    """What a leader fails of."""


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def read(member: Member[str]) -> list[str]:
    return [item async for item in member]


async def read_and_leave(member: Member[str]) -> list[str]:
    try:
        return await read(member)
    finally:
        if not member.is_leader:
            member.leave()


@pytest.fixture
def flights() -> SingleFlight[str]:
    return SingleFlight()


Join = Callable[[], Member[str]]


@pytest.fixture
def join(flights: SingleFlight[str]) -> Join:
    return lambda: flights.join(KEY, ROOM)


def test_the_first_leads_and_the_next_follow(join: Join) -> None:
    leader, follower = join(), join()

    assert (leader.is_leader, follower.is_leader) == (True, False)
    assert leader.has_followers
    assert not follower.has_followers


def test_other_keys_fly_apart(flights: SingleFlight[str]) -> None:
    assert flights.join(b"a", ROOM).is_leader
    assert flights.join(b"b", ROOM).is_leader
    assert len(flights) == 2


async def test_followers_read_from_the_beginning_and_then_live(join: Join) -> None:
    leader, early = join(), join()
    reading = asyncio.create_task(read(early))
    leader.publish("a", 1)
    late = join()
    await settle()
    leader.publish("b", 1)
    leader.land()

    assert await reading == ["a", "b"]
    assert await read(late) == ["a", "b"]


async def test_each_item_arrives_when_it_is_published(join: Join) -> None:
    leader, follower = join(), join()
    for item in ("a", "b", "c"):
        reading = asyncio.ensure_future(anext(follower))
        await settle()
        leader.publish(item, 1)

        assert await reading == item


async def test_leaving_without_an_error_lands_what_was_published(
    flights: SingleFlight[str], join: Join
) -> None:
    leader, follower = join(), join()
    leader.publish("a", 1)
    leader.leave()

    assert await read(follower) == ["a"]
    assert len(flights) == 0


async def test_those_who_come_after_the_landing_lead_anew(join: Join) -> None:
    join().land()

    assert join().is_leader


async def test_a_leader_that_fails_before_its_first_item_is_followed_by_exactly_one(
    join: Join,
) -> None:
    leader, *followers = [join() for _ in range(5)]
    reading = [asyncio.create_task(read(f)) for f in followers]
    await settle()
    leader.leave(Upstream("down"))
    await settle()

    assert [f.is_leader for f in followers] == [True, False, False, False]
    assert followers[0].was_promoted
    assert reading[0].result() == []
    followers[0].publish("a", 1)
    followers[0].leave()
    assert await asyncio.gather(*reading[1:]) == [["a"]] * 3


async def test_a_leader_that_gave_nothing_is_replaced_even_without_an_error(join: Join) -> None:
    leader, follower = join(), join()
    leader.leave()

    assert follower.is_leader


async def test_when_the_chosen_one_leaves_the_next_is_chosen(join: Join) -> None:
    leader, chosen, last = join(), join(), join()
    leader.leave(asyncio.CancelledError())
    chosen.leave(asyncio.CancelledError())

    assert last.is_leader
    last.publish("a", 1)


async def test_a_newcomer_follows_the_chosen_one(join: Join) -> None:
    leader, chosen = join(), join()
    leader.leave(Upstream())

    assert chosen.is_leader
    assert not join().is_leader


async def test_one_that_received_something_is_told_of_the_failure(join: Join) -> None:
    leader, follower = join(), join()
    leader.publish("a", 1)
    assert await anext(follower) == "a"
    leader.publish("b", 1)
    error = Upstream("reset")
    leader.leave(error)

    assert await anext(follower) == "b"
    with pytest.raises(LeaderFailed, match="failed: reset") as caught:
        await anext(follower)
    assert caught.value.error is error


async def test_one_that_received_nothing_starts_over_after_a_failure_amid_the_answer(
    join: Join,
) -> None:
    leader, reader, fresh, also_fresh = join(), join(), join(), join()
    leader.publish("a", 1)
    await anext(reader)
    leader.leave(Upstream())

    assert fresh.is_leader
    fresh.publish("b", 1)
    fresh.leave()
    assert await read(also_fresh) == ["b"]


async def test_one_that_waits_for_all_starts_over_after_a_failure_amid_the_answer(
    join: Join,
) -> None:
    leader, patient, next_patient = join(), join(), join()
    patient.waits_for_all = next_patient.waits_for_all = True
    reading = [asyncio.create_task(read(m)) for m in (patient, next_patient)]
    leader.publish("a", 1)
    await settle()
    leader.leave(Upstream())
    await settle()

    assert patient.is_leader
    patient.publish("b", 1)
    await settle()
    assert not reading[1].done()
    patient.publish("c", 1)
    patient.leave()
    assert await asyncio.gather(*reading) == [[], ["b", "c"]]


async def test_after_three_failures_one_that_waits_for_all_gets_no_broken_answer(
    join: Join,
) -> None:
    members = [join() for _ in range(4)]
    members[3].waits_for_all = True
    reading = asyncio.create_task(read(members[3]))
    for leader in members[:3]:
        leader.publish("a", 1)
        await settle()
        leader.leave(Upstream())

    with pytest.raises(LeaderFailed):
        await reading


async def test_a_client_that_leaves_amid_the_answer_is_named_as_such(join: Join) -> None:
    leader, follower = join(), join()
    leader.publish("a", 1)
    await anext(follower)
    leader.leave(asyncio.CancelledError())

    with pytest.raises(LeaderFailed, match="was given up"):
        await anext(follower)


async def test_the_error_of_the_third_leader_in_a_row_goes_to_all(
    flights: SingleFlight[str], join: Join
) -> None:
    members = [join() for _ in range(6)]
    for count, leader in enumerate(members[:3]):
        leader.leave(Upstream(str(count)))

    for member in members[3:]:
        with pytest.raises(LeaderFailed, match="failed: 2"):
            await anext(member)
    assert len(flights) == 0
    assert join().is_leader


async def test_clients_that_leave_do_not_count_as_failures(join: Join) -> None:
    members = [join() for _ in range(20)]
    for leader in members[:-1]:
        leader.leave(asyncio.CancelledError())

    assert members[-1].is_leader


async def test_followers_that_leave_do_not_disturb_others(join: Join) -> None:
    leader, gone, stays = join(), join(), join()
    leaving = asyncio.create_task(read_and_leave(gone))
    staying = asyncio.create_task(read(stays))
    await settle()
    leaving.cancel()
    await settle()
    assert leader.has_followers
    leader.publish("a", 1)
    leader.land()

    assert await staying == ["a"]
    assert leaving.cancelled()


async def test_a_leader_knows_when_its_last_follower_has_left(join: Join) -> None:
    leader, follower = join(), join()
    follower.leave()

    assert not leader.has_followers


async def test_a_follower_cancelled_as_it_is_chosen_passes_the_lead_on(join: Join) -> None:
    leader, chosen, last = join(), join(), join()

    async def follow_then_lead() -> None:
        try:
            await read(chosen)
            await asyncio.Event().wait()
        except BaseException as exc:
            chosen.leave(exc)
            raise

    following = asyncio.create_task(follow_then_lead())
    await settle()
    leader.leave(Upstream())
    following.cancel()
    await settle()

    assert last.is_leader


async def test_past_its_room_a_flight_goes_on_without_newcomers(
    flights: SingleFlight[str], join: Join
) -> None:
    leader, follower = join(), join()
    leader.publish("a" * ROOM, ROOM)
    assert not join().is_leader
    leader.publish("b", 1)

    assert not leader.is_open
    newcomer = join()
    assert newcomer.is_leader
    leader.land()
    assert await read(follower) == ["a" * ROOM, "b"]
    assert not join().is_leader
    newcomer.land()
    assert len(flights) == 0


async def test_one_who_takes_over_has_the_room_of_its_forerunner(join: Join) -> None:
    leader, chosen = join(), join()
    leader.publish("a", ROOM)
    leader.leave(Upstream())
    last = join()
    chosen.leave(Upstream())
    last.publish("b", ROOM)

    assert last.is_open


async def test_what_nobody_needs_any_more_is_freed(flights: SingleFlight[bytes]) -> None:
    class Item(bytes):
        """Bytes that can be counted."""

        alive = 0

        def __init__(self, *_: object) -> None:
            Item.alive += 1

        def __del__(self) -> None:
            Item.alive -= 1

    leader, follower = flights.join(KEY, 3), flights.join(KEY, 3)
    for _ in range(50):
        leader.publish(Item(b"x"), 1)
        await anext(follower)

    # The last link read stays until its reader moves on.
    assert Item.alive <= 1


async def test_a_very_long_answer_is_let_go_of_at_once(join: Join) -> None:
    leader, follower = join(), join()
    for _ in range(200_000):
        leader.publish("x", 0)
    follower.leave()
    leader.leave()

    assert join().is_leader


async def test_only_a_leader_publishes_and_only_before_the_landing(join: Join) -> None:
    leader, follower = join(), join()
    with pytest.raises(RuntimeError, match="only the leader"):
        follower.publish("a", 1)
    leader.land()

    with pytest.raises(RuntimeError, match="only the leader"):
        leader.publish("a", 1)


async def test_leaving_twice_changes_nothing(join: Join) -> None:
    leader, follower = join(), join()
    leader.publish("a", 1)
    leader.land()
    leader.leave(Upstream())
    leader.leave()

    assert await read(follower) == ["a"]
    follower.leave()
    follower.leave()


async def test_a_herd_is_answered_by_one_call(join: Join) -> None:
    calls = 0

    async def upstream() -> AsyncIterator[str]:
        nonlocal calls
        calls += 1
        for item in "abc":
            await asyncio.sleep(0)
            yield item

    async def request() -> str:
        member = join()
        if not member.is_leader:
            return "".join(await read_and_leave(member))
        told = ""
        async for item in upstream():
            member.publish(item, 1)
            told += item
        member.leave()
        return told

    waiting: list[Awaitable[str]] = [request() for _ in range(500)]
    assert set(await asyncio.gather(*waiting)) == {"abc"}
    assert calls == 1
