"""A leader whose reader stands still: those who follow go on, within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from cache.exact import ExactCache, Seat
from cache.freshness import Freshness
from cache.pace import Paced
from cache.stores.memory import MemoryStore
from cache.types import MOST_BEHIND, CachedReply, FellBehind, LeaderFailed

ROOM = 100_000_000
BIG = b"x" * (MOST_BEHIND // 4)


class Upstream(Exception):
    """What an answer fails of."""


class Model:
    """Gives pieces one by one, and counts how many it was asked for."""

    def __init__(self, pieces: Sequence[bytes], error: Exception | None = None) -> None:
        self.given = 0
        self.is_closed = False
        self._pieces = pieces
        self._error = error

    async def lead(self, seat: Seat[bytes]) -> AsyncGenerator[bytes, None]:
        try:
            for piece in self._pieces:
                await asyncio.sleep(0)
                self.given += 1
                seat.publish(piece)
                yield piece
            if self._error is not None:
                raise self._error
            seat.keep(CachedReply(tuple(self._pieces), True, "large", {}, 0.0, "large:served"))
        finally:
            self.is_closed = True


@pytest.fixture
def cache() -> ExactCache[bytes]:
    return ExactCache(MemoryStore(max_bytes=ROOM), size_of=len)


def take(cache: ExactCache[bytes]) -> Seat[bytes]:
    return cache.seat(b"k" * 32, Freshness(1e12), max_entry=ROOM).__enter__()


def leave(seat: Seat[bytes], error: BaseException | None = None) -> None:
    seat.__exit__(type(error) if error else None, error, None)


def led(model: Model, seat: Seat[bytes]) -> Paced[bytes]:
    return seat.paced(model.lead(seat), len)


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(50):
        await asyncio.sleep(0)


async def read(seat: Seat[bytes]) -> list[bytes]:
    try:
        return [piece async for piece in seat.follow()]
    finally:
        leave(seat)


async def rest(pieces: Paced[bytes], seat: Seat[bytes]) -> list[bytes]:
    told = [piece async for piece in pieces]
    await pieces.aclose()
    leave(seat)
    return told


async def test_alone_a_leader_is_read_no_faster_than_it_reads(cache: ExactCache[bytes]) -> None:
    model = Model([b"a", b"b", b"c"])
    seat = take(cache)
    pieces = led(model, seat)
    assert await anext(pieces) == b"a"
    await settle()

    assert model.given == 1
    assert await rest(pieces, seat) == [b"b", b"c"]


async def test_followers_have_it_all_while_the_leader_reads_nothing(
    cache: ExactCache[bytes],
) -> None:
    model = Model([b"a", b"b", b"c"])
    leader = take(cache)
    pieces = led(model, leader)
    assert await anext(pieces) == b"a"
    followers = [asyncio.create_task(read(take(cache))) for _ in range(3)]

    assert await asyncio.gather(*followers) == [[b"a", b"b", b"c"]] * 3
    assert take(cache).hit is not None, "it was kept by then"
    assert await rest(pieces, leader) == [b"b", b"c"]


async def test_it_goes_at_the_pace_of_the_fastest(cache: ExactCache[bytes]) -> None:
    model = Model([b"a", b"b", b"c", b"d"])
    leader = take(cache)
    pieces = led(model, leader)
    await anext(pieces)
    follower = take(cache)
    follows = follower.follow()
    told = [await anext(follows), await anext(follows)]
    await settle()

    assert told == [b"a", b"b"]
    assert model.given == 2, "nobody has asked for more"
    assert [await anext(pieces) for _ in range(2)] == [b"b", b"c"]
    assert await rest(pieces, leader) == [b"d"]
    assert [piece async for piece in follows] == [b"c", b"d"]
    leave(follower)


async def test_an_error_reaches_followers_at_once_and_the_leader_in_its_turn(
    cache: ExactCache[bytes],
) -> None:
    error = Upstream("reset")
    leader = take(cache)
    pieces = led(Model([b"a", b"b"], error), leader)
    await anext(pieces)
    with pytest.raises(LeaderFailed) as caught:
        await read(take(cache))

    assert caught.value.error is error
    assert await anext(pieces) == b"b"
    with pytest.raises(Upstream):
        await anext(pieces)
    await pieces.aclose()
    leave(leader, error)


async def test_a_leader_too_far_behind_is_told_once_its_followers_have_all(
    cache: ExactCache[bytes],
) -> None:
    model = Model([BIG] * 12)
    leader = take(cache)
    pieces = led(model, leader)
    await anext(pieces)
    assert await read(take(cache)) == [BIG] * 12

    with pytest.raises(FellBehind, match="read it faster"):
        await anext(pieces)
    await pieces.aclose()
    leave(leader)
    assert take(cache).hit is not None


async def test_a_leader_too_far_behind_ends_the_answer_that_nobody_else_reads(
    cache: ExactCache[bytes],
) -> None:
    model = Model([BIG] * 12)
    leader = take(cache)
    pieces = led(model, leader)
    await anext(pieces)
    follower = take(cache)
    follows = follower.follow()
    for _ in range(8):
        await anext(follows)
    waiting = asyncio.ensure_future(anext(pieces))
    await settle()
    assert not waiting.done()
    leave(follower)

    with pytest.raises(FellBehind):
        await waiting
    await pieces.aclose()
    leave(leader, FellBehind(1))
    assert model.is_closed
    assert model.given < 12


async def test_a_follower_too_far_behind_is_told_and_no_other(cache: ExactCache[bytes]) -> None:
    leader = take(cache)
    slow = take(cache)
    follows = slow.follow()
    pieces = led(Model([BIG] * 12), leader)
    quick = asyncio.create_task(read(take(cache)))

    assert len(await rest(pieces, leader)) == 12
    assert await quick == [BIG] * 12
    with pytest.raises(FellBehind):
        await anext(follows)
    leave(slow)


async def test_one_that_asks_for_the_whole_answer_waits_for_it_however_long_it_is(
    cache: ExactCache[bytes],
) -> None:
    leader = take(cache)
    patient = take(cache)
    whole = patient.follow(whole=True)
    assert len(await rest(led(Model([BIG] * 12), leader), leader)) == 12

    assert len([piece async for piece in whole]) == 12
    leave(patient)


async def test_who_leaves_amid_it_stops_the_work_done_in_its_place(
    cache: ExactCache[bytes],
) -> None:
    model = Model([b"a", b"b", b"c"])
    leader = take(cache)
    pieces = led(model, leader)
    await anext(pieces)
    follower = take(cache)
    follows = follower.follow()
    await anext(follows)
    await anext(follows)
    await pieces.aclose()
    leave(leader, asyncio.CancelledError())

    assert model.is_closed
    with pytest.raises(LeaderFailed, match="given up"):
        await anext(follows)
    leave(follower)
