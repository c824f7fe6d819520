"""What routes have spent today behind clients' backs: in this process, or with all that share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Protocol

from cache.link import Link
from cache.types import StoreFailed

_DAY_S = 86_400
_KEPT_S = 2 * _DAY_S
_PREFIX = b"frugal:spent:"


class Spent(Protocol):
    """Counts a day's nano-dollars by route; a day begins at midnight UTC."""

    async def today(self, route: str) -> int:
        """Return what a route has spent today."""
        ...

    async def add(self, route: str, nano_usd: int) -> None:
        """Count what a call has cost."""
        ...


class SpentHere:
    """What this process has spent."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._day = -1
        self._spent: Counter[str] = Counter()

    async def today(self, route: str) -> int:
        """Return what a route has spent today."""
        return self._of_today()[route]

    async def add(self, route: str, nano_usd: int) -> None:
        """Count what a call has cost."""
        self._of_today()[route] += nano_usd

    def _of_today(self) -> Counter[str]:
        day = int(self._wall() // _DAY_S)
        if day != self._day:
            self._day = day
            self._spent.clear()
        return self._spent


class SpentTogether:
    """What all processes that share a Redis have spent.

    Calls that are under way in several processes at once may pass a cap together, by what
    they cost. Without Redis a process counts its own on top of what was known last, and
    tells the others once it is back.
    """

    def __init__(self, link: Link, wall: Callable[[], float]) -> None:
        self._link = link
        self._wall = wall
        self._known: dict[bytes, int] = {}
        self._untold: Counter[bytes] = Counter()

    async def today(self, route: str) -> int:
        """Return what a route has spent today."""
        return await self._count(self._key(route))

    async def add(self, route: str, nano_usd: int) -> None:
        """Count what a call has cost."""
        key = self._key(route)
        self._untold[key] += nano_usd
        await self._count(key)

    async def _count(self, key: bytes) -> int:
        """Tell what was not told yet, and return the sum."""
        untold = self._untold.pop(key, 0)
        try:
            reply = await self._link.call(b"INCRBY", key, b"%d" % untold)
        except StoreFailed:
            self._untold[key] += untold
            return self._known.get(key, 0) + self._untold[key]
        self._link.post(b"EXPIRE", key, b"%d" % _KEPT_S)
        # A Redis that has lost its memory knows less than we do.
        self._known[key] = max(reply if isinstance(reply, int) else 0, self._known.get(key, 0))
        return self._known[key]

    def _key(self, route: str) -> bytes:
        today = b"%s%d:" % (_PREFIX, int(self._wall() // _DAY_S))
        for key in [key for key in (*self._known, *self._untold) if not key.startswith(today)]:
            self._known.pop(key, None)
            self._untold.pop(key, None)
        return today + route.encode()
