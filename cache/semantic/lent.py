"""What several users share: opened for the first of them, closed after the last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@dataclass(slots=True)
class _Held(Generic[T]):
    value: T
    stack: AsyncExitStack
    users: int = 0


class Lent(Generic[K, T]):
    """Values by key. What `make` opens may be closed by another task than opened it."""

    def __init__(self, make: Callable[[K], AbstractAsyncContextManager[T]]) -> None:
        self._make = make
        self._held: dict[K, _Held[T]] = {}
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def borrow(self, key: K) -> AsyncIterator[T]:
        """Yield the value of a key, the same one to all who have it at a time."""
        async with self._turn:
            held = self._held.get(key)
            if held is None:
                held = self._held[key] = await self._opened(key)
            held.users += 1
        try:
            yield held.value
        finally:
            held.users -= 1
            if not held.users:
                async with self._turn:
                    await self._close_unless_used(key, held)

    async def _opened(self, key: K) -> _Held[T]:
        async with AsyncExitStack() as stack:
            value = await stack.enter_async_context(self._make(key))
            return _Held(value, stack.pop_all())

    async def _close_unless_used(self, key: K, held: _Held[T]) -> None:
        """Close what nobody has borrowed while we waited for our turn."""
        if not held.users and self._held.get(key) is held:
            del self._held[key]
            await held.stack.aclose()
