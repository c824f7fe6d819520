"""Totals as they grow, sent to open pages; so many may listen, and one look serves them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from gateway.errors import GatewayError
from gateway.reporting.shapes import Totals

MOST = 20
LASTS_S = 600.0
"""How long a page listens before it must ask again, and its key is looked at again."""
_FRESH_S = 1.0
Look = Callable[[], Totals]


class LiveFull(Exception):
    """As many listen as may."""


@dataclass(slots=True)
class Listeners:
    """Who listens in one process. Looks that are asked for at one time are one look.

    All of them are let go once `over` is set.
    """

    count: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    seen: dict[str, tuple[float, str]] = field(default_factory=dict)

    async def event(self, name: str, look: Look) -> str:
        """Return what is sent now; a failure is told as an event of its own."""
        async with self.turn:
            now = asyncio.get_running_loop().time()
            at, told = self.seen.get(name, (0.0, ""))
            if told and now - at < _FRESH_S:
                return told
            try:
                totals = await asyncio.to_thread(look)
                told = f"event: totals\ndata: {totals.model_dump_json()}\n\n"
            except GatewayError as exc:
                told = f"event: trouble\ndata: {exc.code or exc.type}\n\n"
            self.seen = {name: (now, told), **self.seen}
            while len(self.seen) > MOST:
                self.seen.popitem()
            return told


def events(listeners: Listeners, name: str, look: Look, every_s: float) -> AsyncIterator[str]:
    """Return an event at once and then every few seconds. Raises LiveFull."""
    if listeners.count >= MOST:
        raise LiveFull(f"{MOST} pages listen already; close one, or reload from time to time")
    return _events(listeners, name, look, every_s)


async def _events(
    listeners: Listeners, name: str, look: Look, every_s: float
) -> AsyncIterator[str]:
    listeners.count += 1
    try:
        yield "retry: 5000\n\n"
        for _ in range(max(1, int(LASTS_S / max(every_s, 1.0)))):
            if listeners.over.is_set():
                return
            yield await listeners.event(name, look)
            with suppress(TimeoutError):
                await asyncio.wait_for(listeners.over.wait(), every_s)
    finally:
        listeners.count -= 1
