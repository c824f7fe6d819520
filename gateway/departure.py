"""Notice that a client has left, and give up what was only for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

WHEN_GONE = "frugal.when_gone"
"""The scope extension by which our own server tells at once, without a task that waits."""

_LOOK_AGAIN_S = 0.25
Tell = Callable[[Callable[[], None] | None], None]
"""Says what to do when the client leaves; None takes that back."""
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class ClientGone(Exception):
    """The client left before its answer was complete."""


class Shared(Protocol):
    """An answer that others may be waiting for as well."""

    @property
    def is_shared(self) -> bool:
        """Return whether they do."""
        ...


class Watch:
    """Cancel the request's task when its client leaves, once nobody else waits for its answer.

    Leaving the block translates that cancellation to `ClientGone`. Our own
    server tells (`tell`); on another a task waits for `http.disconnect`.
    """

    def __init__(
        self, answer: Shared, *, tell: Tell | None = None, receive: Receive | None = None
    ) -> None:
        self._answer = answer
        self._tell = tell
        self._receive = receive
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._waiter: asyncio.Task[None] | None = None
        self._has_cancelled = False

    def __enter__(self) -> None:
        if self._tell is not None:
            self._tell(self._gone)
        elif self._receive is not None:
            self._waiter = asyncio.create_task(self._wait(self._receive))

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if self._tell is not None:
            self._tell(None)
        if self._waiter is not None:
            self._waiter.cancel()
        if self._has_cancelled and isinstance(exc, asyncio.CancelledError):
            assert self._task is not None
            self._task.uncancel()
            raise ClientGone from exc

    def _gone(self) -> None:
        if self._answer.is_shared:
            self._waiter = asyncio.create_task(self._wait_alone())
        else:
            self._cancel()

    async def _wait(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        await self._wait_alone()

    async def _wait_alone(self) -> None:
        while self._answer.is_shared:  # noqa: ASYNC110 - nobody says when the last follower leaves
            await asyncio.sleep(_LOOK_AGAIN_S)
        self._cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._has_cancelled = True
            self._task.cancel()
