"""Live totals: one look for all who listen, so many of them, and an end."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import LedgerUnavailable
from gateway.reporting.live import MOST, Listeners, LiveFull, events


class _Totals:
    def __init__(self, requests):
        self.requests = requests

    def model_dump_json(self):
        return f'{{"requests":{self.requests}}}'


async def test_all_who_listen_share_a_look_and_are_let_go_together():
    listeners, looks = Listeners(), []

    def look():
        looks.append(1)
        if len(looks) == 1:
            listeners.over.set()
        return _Totals(len(looks))

    async def listen():
        return [event async for event in events(listeners, "24h", look, 60.0)]

    async with asyncio.timeout(10):
        heard = await asyncio.gather(listen(), listen())

    assert heard[0] == ["retry: 5000\n\n", 'event: totals\ndata: {"requests":1}\n\n']
    assert len(looks) == 1
    assert listeners.count == 0


async def test_trouble_is_told_and_ends_nothing():
    listeners = Listeners()

    def look():
        raise LedgerUnavailable("gone")

    stream = events(listeners, "24h", look, 0.0)
    heard = [await anext(stream) for _ in range(3)]
    await stream.aclose()

    assert heard[1] == heard[2] == "event: trouble\ndata: ledger_unavailable\n\n"
    assert listeners.count == 0


async def test_no_more_may_listen_than_that():
    listeners = Listeners(count=MOST)
    with pytest.raises(LiveFull, match="20 pages"):
        events(listeners, "24h", lambda: None, 1.0)
