"""The right to make one answer for all processes, and the duty to share it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from cache.messages import Pieces, State, Want
from cache.single_flight import Stirred

T = TypeVar("T")
Send = Callable[[bytes, Pieces], None]

_GATHER_S = 0.02  # pieces that come this close together travel together


class Lease(Generic[T]):
    """An answer that this process makes for all. `stamp` is the epoch in which it began.

    Past `room` bytes it admits no more followers, and no longer holds what those
    it has were sent; `let_go` is called then. `pace` is stirred when a follower has
    all there is, or leaves.
    """

    __slots__ = ("_dump", "_first", "_followers", "_has_begun", "_let_go", "_pieces", "_room",
                 "_send", "_sent", "_state", "_timer", "key", "pace", "stamp", "token")  # fmt: skip

    def __init__(
        self,
        key: bytes,
        token: bytes,
        stamp: int,
        room: int,
        send: Send,
        dump: Callable[[T], bytes],
        let_go: Callable[[Lease[T]], None],
    ) -> None:
        self.key = key
        self.token = token
        self.stamp = stamp
        self._room = room
        self._send = send
        self._dump = dump
        self._let_go = let_go
        self._pieces: list[T] = []
        self._first = 0  # the number of the first piece that is held
        self._sent = 0
        self._followers: set[bytes] = set()
        self._has_begun = False
        self._state = State.GROWING
        self._timer: asyncio.TimerHandle | None = None
        self.pace: Stirred | None = None

    @property
    def has_begun(self) -> bool:
        """Return whether any piece was published."""
        return self._has_begun

    @property
    def has_followers(self) -> bool:
        """Return whether another process takes part."""
        return bool(self._followers)

    @property
    def is_open(self) -> bool:
        """Return whether newcomers are admitted: the answer has not outgrown its room."""
        return self._room >= 0

    def publish(self, piece: T, size: int) -> None:
        """Take the next piece, of so many bytes."""
        self._has_begun = True
        if self.is_open:
            self._room -= size
            if not self.is_open:
                self._let_go(self)
        if self.is_open or self._followers:
            self._pieces.append(piece)
        if self._followers and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GATHER_S, self._flush)

    def end(self, state: State) -> None:
        """Say how it has ended."""
        self._state = state
        self._flush()

    def answer(self, want: Want) -> None:
        """Send a follower what it has not; one that follows no longer is forgotten."""
        self._answer(want)
        if self.pace is not None:
            self.pace.stir()

    def _answer(self, want: Want) -> None:
        if want.have < 0:
            self._followers.discard(want.channel)
            return
        self._flush()
        is_known = want.channel in self._followers
        if want.have < self._first or not (self.is_open or is_known):
            self._send(want.channel, Pieces(self.token, want.have, [], State.GONE))
            return
        self._followers.add(want.channel)
        pieces = [self._dump(piece) for piece in self._pieces[want.have - self._first :]]
        self._send(want.channel, Pieces(self.token, want.have, pieces, self._state))

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        end = self._first + len(self._pieces)
        if self._followers:
            pieces = [self._dump(piece) for piece in self._pieces[self._sent - self._first :]]
            for channel in self._followers:
                self._send(channel, Pieces(self.token, self._sent, pieces, self._state))
        self._sent = end
        if not self.is_open:
            self._pieces.clear()
            self._first = end
