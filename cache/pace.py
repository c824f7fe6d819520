"""An answer whose first reader may stand still: others, who wait for it, go on without it.

A leader makes its answer as its client reads it. While that client reads nothing,
somebody who follows would wait in vain; then a task draws on the answer in the
leader's place, one piece for each time that somebody waits, so that it grows at the
pace of the fastest reader. The leader finds what it has missed in a queue.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import AsyncGeneratorType
from typing import Generic, Protocol, TypeVar

from cache.types import MOST_BEHIND, FellBehind

P = TypeVar("P")


class Crowd(Protocol):
    """Who else reads the answer."""

    @property
    def is_awaited(self) -> bool:
        """Return whether anybody waits for the next piece."""
        ...

    @property
    def has_followers(self) -> bool:
        """Return whether anybody else reads it at all."""
        ...

    def finish(self, error: BaseException | None) -> None:
        """Learn that the answer has ended, while its leader still reads."""
        ...


class Paced(Generic[P]):
    """The answer as its leader reads it: an iterator that is closed after use.

    Until `stir` finds the leader away and somebody waiting, it is its source and
    costs nothing more. Raises FellBehind once more than `most` bytes wait for the
    leader; not before those who follow have the whole answer, or have left.
    """

    __slots__ = ("_behind", "_crowd", "_error", "_is_over", "_missed", "_most", "_news", "_reader",
                 "_size_of", "_source", "_task")  # fmt: skip

    def __init__(
        self,
        source: AsyncGenerator[P, None],
        crowd: Crowd,
        size_of: Callable[[P], int],
        most: int = MOST_BEHIND,
    ) -> None:
        self._source = source
        self._crowd = crowd
        self._size_of = size_of
        self._most = most
        self._task: asyncio.Task[None] | None = None

    def __aiter__(self) -> Paced[P]:
        return self

    def __anext__(self) -> Awaitable[P]:
        return self._source.__anext__() if self._task is None else self._next()

    def aclose(self) -> Awaitable[None]:
        """Give the answer up."""
        return self._source.aclose() if self._task is None else self._stop()

    def stir(self) -> None:
        """Look whether the answer has to go on without its leader."""
        if self._task is not None:
            self._news.set()
        elif self._is_left_alone() and self._crowd.is_awaited:
            self._go_on()

    def _go_on(self) -> None:
        self._missed: deque[P] = deque()
        self._behind = 0
        self._is_over = False
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._news: asyncio.Event = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def _is_left_alone(self) -> bool:
        """Return whether the source stands at a piece that it has given."""
        source = self._source
        assert isinstance(source, AsyncGeneratorType), "only those tell whether they run"
        return not source.ag_running and source.ag_frame is not None

    async def _run(self) -> None:
        try:
            while await self._is_wanted():
                self._put(await anext(self._source))
        except StopAsyncIteration:
            self._crowd.finish(None)
        except Exception as exc:
            self._error = exc
            self._crowd.finish(exc)
        self._is_over = True
        self._wake()

    async def _is_wanted(self) -> bool:
        """Wait until somebody waits; return False where nobody will."""
        while not self._crowd.is_awaited:
            if self._has_fallen_behind:
                if not self._crowd.has_followers:
                    return False
            elif self._reader is not None:
                return True
            self._news.clear()
            await self._news.wait()
        return True

    @property
    def _has_fallen_behind(self) -> bool:
        return self._behind > self._most

    def _put(self, piece: P) -> None:
        if not self._has_fallen_behind:
            self._behind += self._size_of(piece)
            self._missed.append(piece)
            if self._has_fallen_behind:
                self._missed.clear()
            else:
                self._wake()

    async def _next(self) -> P:
        while not self._missed:
            if not self._is_over:
                await self._more()
            elif self._has_fallen_behind:
                raise FellBehind(self._most)
            elif self._error is not None:
                raise self._error
            else:
                raise StopAsyncIteration
        piece = self._missed.popleft()
        self._behind -= self._size_of(piece)
        return piece

    async def _more(self) -> None:
        self._reader = asyncio.get_running_loop().create_future()
        self._news.set()
        try:
            await self._reader
        finally:
            self._reader = None

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def _stop(self) -> None:
        assert self._task is not None, "only what runs is stopped"
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._source.aclose()
