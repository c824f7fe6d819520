"""Another process's answer, as it grows there."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from cache.messages import Pieces, State
from cache.stores.shared import SharedStore
from cache.types import MOST_BEHIND, FellBehind, LeaderFailed, StoreFailed

T = TypeVar("T")

_PATIENCE = 1  # looks at a lease that is gone, before its leader counts as dead


class Follow(Generic[T]):
    """The pieces of an answer that another process makes; an iterator that is closed after use.

    Ends when the answer is whole (`is_whole`), or when its leader is gone and
    nothing was read. Raises LeaderFailed when something was, and FellBehind where too
    much waits to be read. With `waits_for_all` nothing can be read before the answer
    is whole, however long it is.
    """

    def __init__(
        self,
        key: bytes,
        token: bytes,
        store: SharedStore,
        ask: Callable[[bytes, int], None],
        load: Callable[[bytes], T],
        look_every_s: float,
        grace_s: float,
        let_go: Callable[[Follow[T]], None],
    ) -> None:
        self.key = key
        self.token = token
        self._store = store
        self._ask = ask
        self._load = load
        self._look_every_s = look_every_s
        self._grace_s = grace_s
        self._let_go = let_go
        self.waits_for_all = False
        self._pieces: deque[tuple[T, int]] = deque()
        self._behind = 0
        self._is_left_behind = False
        self._have = 0
        self._state = State.GROWING
        self._has_given = False
        self._waiter: asyncio.Future[None] | None = None
        self._misses = 0
        self._lost_for_s = 0.0

    @property
    def is_whole(self) -> bool:
        """Return whether all of the answer was received and read."""
        return self._state is State.WHOLE and not self._pieces

    def take(self, message: Pieces) -> None:
        """Receive a message of the leader."""
        self._misses = 0
        if message.first > self._have:
            self._ask(self.token, self._have)  # one was lost on the way
            return
        for data in message.pieces[self._have - message.first :]:
            try:
                self._pieces.append((self._load(data), len(data)))
            except ValueError:
                self._end(State.FAILED)
                return
            self._have += 1
            self._behind += len(data)
        if self._behind > MOST_BEHIND and not self.waits_for_all:
            self._pieces.clear()
            self._is_left_behind = True
            self.close()
        if message.state is State.WHOLE and not self._have:
            self._end(State.GONE)  # an answer without pieces is none
        elif message.state is not State.GROWING:
            self._end(message.state)
        self._wake()

    def lose(self) -> None:
        """Learn that the link is down: with nothing in hand, the answer is soon made here."""
        if not self._has_given and (self.waits_for_all or not self._pieces):
            self._end(State.GONE)

    def close(self) -> None:
        """Follow no longer."""
        self._let_go(self)

    def __aiter__(self) -> Follow[T]:
        return self

    async def __anext__(self) -> T:
        while not self._pieces or (self.waits_for_all and self._state is not State.WHOLE):
            if self._is_left_behind:
                raise FellBehind(MOST_BEHIND)
            if self._state is State.WHOLE:
                raise StopAsyncIteration
            if self._state is not State.GROWING:
                if self._has_given:
                    raise LeaderFailed(None)
                raise StopAsyncIteration
            if not await self._hears_something():
                await self._look()
        self._has_given = True
        piece, size = self._pieces.popleft()
        self._behind -= size
        return piece

    async def _hears_something(self) -> bool:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(self._look_every_s, self._wake)
        asked_at, had = loop.time(), self._have
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None
        is_news = self._have > had or self._state is not State.GROWING
        return is_news or loop.time() - asked_at < self._look_every_s / 2

    async def _look(self) -> None:
        """Find out whether the leader lives, and ask it for what may have been lost."""
        try:
            held = await self._store.holder(self.key)
        except StoreFailed:
            self._lost_for_s += self._look_every_s
            self.lose()
            if self._lost_for_s > self._grace_s:
                self._end(State.GONE)
            return
        self._lost_for_s = 0.0
        self._misses = 0 if held == self.token else self._misses + 1
        if self._misses > _PATIENCE:
            self._end(State.GONE)
        else:
            self._ask(self.token, self._have)

    def _end(self, state: State) -> None:
        if self._state is State.GROWING:
            self._state = state
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
