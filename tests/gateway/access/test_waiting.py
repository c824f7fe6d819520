"""How long requests wait for a limit is counted by what came of it."""

from __future__ import annotations

import asyncio

import pytest

from gateway.access.meters import Claim, Refused, Room, Taken
from gateway.access.waiting import WaitingRoom
from policies.limits import QueueRules

ROOM = Room("room", "the limit of requests at once", 1)
CLAIM = Claim(rooms=(ROOM,))


class Store:
    """One place, and nobody is let in before it is free."""

    def __init__(self) -> None:
        self.free = False
        self.asked = asyncio.Event()

    async def ask(self, _):
        self.asked.set()
        if not self.free:
            return Refused(ROOM, None)
        self.free = False
        return Taken()

    def settle(self, claim, *, tokens, nano_usd):
        self.free = True


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def room(store):
    return WaitingRoom(QueueRules(max_waiting=1, max_wait=30), store.ask, store)


async def _until_one_waits(room):
    while not len(room):  # noqa: ASYNC110 - a turn of the loop each
        await asyncio.sleep(0)


async def test_who_comes_in_at_once_has_not_waited(room, store):
    store.free = True
    assert isinstance(await room.take(CLAIM, "a", "normal"), Taken)

    assert room.waits.cumulative() == {}


async def test_waits_are_told_by_how_they_ended(room, store):
    admitted = asyncio.create_task(room.take(CLAIM, "a", "normal"))
    await _until_one_waits(room)
    refused = await room.take(CLAIM, "a", "normal")  # nobody else may wait
    store.free = True
    room.tell()
    assert isinstance(await admitted, Taken)
    assert isinstance(refused, Refused)
    gone = asyncio.create_task(room.take(CLAIM, "a", "normal"))
    await _until_one_waits(room)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)

    counts = {outcome: line[-1] for (outcome,), line in room.waits.cumulative().items()}
    assert counts == {"admitted": 1, "refused": 1, "gone": 1}
    assert len(room) == 0
