"""One request does the work, equal ones that come meanwhile share it as it grows.

The first to ask for a key leads a *flight*: it publishes the answer item by item.
Those who come later follow: each reads from the first item on, at its own pace,
and then live. Everything happens on one event loop, between awaits, so there is
nothing to lock; no tasks are made.

A flight ends in one of two ways. It lands: the answer is whole. Or its leader
leaves before that. Then a follower that has received something can only be told
so; those that have received nothing start over, one of them leading. After
`max_failures` leaders in a row have failed of an error (a client that leaves is
none), the error goes to all, rather than keeping them waiting in line for more.

Who reads so slowly that more than `MOST_BEHIND` bytes wait for it, is left behind.
"""

from __future__ import annotations

import asyncio
from typing import Generic, Protocol, TypeVar

from cache.types import MOST_BEHIND, FellBehind, LeaderFailed

T = TypeVar("T")


class Stirred(Protocol):
    """Looks whether an answer has to go on without its leader."""

    def stir(self) -> None:
        """Look now."""
        ...


class _Link(Generic[T]):
    """One item and the way to the next; without `next` it is the empty end of the chain.

    A chain, so that what every reader has passed is freed without any bookkeeping.
    `room` is what the flight had left before the item.
    """

    __slots__ = ("item", "next", "room")

    item: T

    def __init__(self, room: int) -> None:
        self.room = room
        self.next: _Link[T] | None = None


class _Flight(Generic[T]):
    """An answer under way. `head` is None once newcomers can no longer be admitted.

    `pace` is stirred when a follower begins to wait, or leaves.
    """

    __slots__ = ("error", "failures", "followers", "has_begun", "has_landed", "head", "is_over",
                 "key", "pace", "room", "tail")  # fmt: skip

    def __init__(self, key: bytes, room: int, failures: int = 0) -> None:
        self.key = key
        self.room = room
        self.failures = failures
        self.tail: _Link[T] = _Link(room)
        self.head: _Link[T] | None = self.tail
        self.followers: dict[Member[T], None] = {}
        self.has_begun = False
        self.is_over = False
        self.has_landed = False
        self.error: BaseException | None = None
        self.pace: Stirred | None = None

    def wake(self) -> None:
        for follower in self.followers:
            follower.wake()


class SingleFlight(Generic[T]):
    """The flights under way, by key."""

    def __init__(self, *, max_failures: int = 3) -> None:
        self._open: dict[bytes, _Flight[T]] = {}
        self._max_failures = max_failures

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, key: bytes) -> bool:
        return key in self._open

    def join(self, key: bytes, room: int) -> Member[T]:
        """Follow the flight of this key, or lead a new one that holds `room` bytes for newcomers.

        Whoever joins must `leave`.
        """
        flight = self._open.get(key)
        if flight is None:
            return Member(self, self._start(key, room, 0), room, is_leader=True)
        member = Member(self, flight, room, is_leader=False)
        flight.followers[member] = None
        return member

    def _start(self, key: bytes, room: int, failures: int) -> _Flight[T]:
        flight = self._open[key] = _Flight(key, room, failures)
        return flight

    def close(self, flight: _Flight[T]) -> None:
        """Admit nobody any more."""
        if flight.head is not None:
            flight.head = None
            del self._open[flight.key]

    def close_all(self) -> None:
        """Admit nobody to the flights under way."""
        for flight in list(self._open.values()):
            self.close(flight)

    def land(self, flight: _Flight[T]) -> None:
        """End a flight whose answer is whole."""
        self.close(flight)
        flight.is_over = flight.has_landed = True
        flight.pace = None
        flight.wake()

    def crash(self, flight: _Flight[T], room: int, error: BaseException | None) -> None:
        """End a flight whose leader is gone; those with nothing in hand start over."""
        self.close(flight)
        flight.is_over = True
        flight.pace = None
        flight.error = error
        failures = flight.failures + isinstance(error, Exception)
        if failures < self._max_failures:
            for follower in [f for f in flight.followers if not f.has_received]:
                del flight.followers[follower]
                self._rebook(follower, flight.key, room, failures)
        flight.wake()

    def _rebook(self, member: Member[T], key: bytes, room: int, failures: int) -> None:
        flight = self._open.get(key)
        if flight is None:
            member.promote(self._start(key, room, failures))
        else:
            flight.followers[member] = None
            member.board(flight)


class Member(Generic[T]):
    """One request's place in a flight; as an iterator, what its leader publishes.

    With `waits_for_all` nothing is read before the flight has landed: whoever
    can only use a whole answer then loses nothing when the leader fails amid it.
    """

    __slots__ = ("_cursor", "_flight", "_flights", "_room", "_waiter", "has_received",
                 "is_leader", "is_left_behind", "waits_for_all", "was_promoted")  # fmt: skip

    def __init__(
        self, flights: SingleFlight[T], flight: _Flight[T], room: int, *, is_leader: bool
    ) -> None:
        self._flights = flights
        self._flight = flight
        self._room = room
        self._cursor = None if is_leader else flight.head
        self._waiter: asyncio.Future[None] | None = None
        self.is_leader = is_leader
        self.was_promoted = False
        self.has_received = False
        self.waits_for_all = False
        self.is_left_behind = False

    @property
    def has_followers(self) -> bool:
        """Return whether others read what this one publishes."""
        return self.is_leader and bool(self._flight.followers)

    @property
    def is_awaited(self) -> bool:
        """Return whether somebody waits for this one to publish."""
        return self.is_leader and any(each.is_waiting for each in self._flight.followers)

    @property
    def is_waiting(self) -> bool:
        """Return whether this one waits for something to read."""
        return self._waiter is not None and not self._waiter.done()

    def stirs(self, pace: Stirred) -> None:
        """Have it look, until the flight is over, whenever a follower begins to wait or leaves."""
        self._flight.pace = pace

    @property
    def is_open(self) -> bool:
        """Return whether the flight still admits newcomers: it has not outgrown its room."""
        return self._flight.head is not None

    def publish(self, item: T, size: int) -> None:
        """Give the next item, of so many bytes, to all who follow."""
        flight = self._flight
        if not self.is_leader or flight.is_over:
            raise RuntimeError("only the leader of a flight under way publishes")
        end = flight.tail
        end.item = item
        flight.room -= size
        end.next = flight.tail = _Link(flight.room)
        flight.has_begun = True
        if flight.room < 0:
            self._flights.close(flight)
        if flight.followers:
            for follower in flight.followers:
                follower.be_told(end)

    def land(self) -> None:
        """Say that the answer is whole."""
        if self.is_leader and not self._flight.is_over:
            self._flights.land(self._flight)

    def leave(self, error: BaseException | None = None) -> None:
        """Give the place up. A leader that has published and meets no error has landed."""
        flight = self._flight
        self._cursor = None
        if not self.is_leader:
            flight.followers.pop(self, None)
            if flight.pace is not None:
                flight.pace.stir()
        elif not flight.is_over:
            if error is None and flight.has_begun:
                self._flights.land(flight)
            else:
                self._flights.crash(flight, self._room, error)

    def promote(self, flight: _Flight[T]) -> None:
        """Lead this flight from now on."""
        self._flight = flight
        self._cursor = None
        self.is_leader = self.was_promoted = True
        self.wake()

    def board(self, flight: _Flight[T]) -> None:
        """Follow this flight from its beginning."""
        self._flight = flight
        self._cursor = flight.head

    def be_told(self, item: _Link[T]) -> None:
        """Learn of an item; one for whom too much waits already gets no more of it."""
        cursor = self._cursor
        if cursor is not None and not self.waits_for_all:
            self.is_left_behind = cursor.room - item.room > MOST_BEHIND
            if self.is_left_behind:
                self._cursor = None
        self.wake()

    def wake(self) -> None:
        """Let a reader that waits look again."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def aclose(self) -> None:
        """Read no further."""
        self._cursor = None

    def __aiter__(self) -> Member[T]:
        return self

    async def __anext__(self) -> T:
        while (item := self._take()) is None:
            self._waiter = asyncio.get_running_loop().create_future()
            if (pace := self._flight.pace) is not None:
                pace.stir()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return item[0]

    def _take(self) -> tuple[T] | None:
        """Return the next item, None while there is none; raise at the end of the flight."""
        link = self._cursor
        if self.is_left_behind:
            raise FellBehind(MOST_BEHIND)
        if self.is_leader or link is None:
            raise StopAsyncIteration
        flight = self._flight
        if link.next is not None and (flight.has_landed or not self.waits_for_all):
            self._cursor = link.next
            self.has_received = True
            return (link.item,)
        if not flight.is_over:
            return None
        if not flight.has_landed:
            # Not chained: the error belongs to its leader, and all followers share it.
            raise LeaderFailed(flight.error)
        raise StopAsyncIteration
