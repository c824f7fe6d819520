"""Many requests, a third of them left early: nothing of one that has ended stays."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from collections.abc import Callable

from local_engine.core import Sequence
from local_engine.engine import Engine, Generation, _Command
from local_engine.lanes import Lane
from local_engine.loader import LoadedModel
from local_engine.pages import PageTable
from local_engine.tokenizer import TextStream
from local_engine.types import EngineLimits
from tests.local_engine.support import ask, drained, eventually, prompt_of

Load = Callable[[str], LoadedModel]

REQUESTS = 240
AT_ONCE = 16
PAGES = 48
PAGE_BYTES = 16 * 2 * 3 * 32 * 4
OF_A_REQUEST = (Sequence, Lane, PageTable, TextStream, Generation, _Command)


def held() -> Counter[type]:
    """Count what belongs to requests and is still referred to."""
    gc.collect()
    return Counter(type(o) for o in gc.get_objects() if type(o) in OF_A_REQUEST)


async def one(engine: Engine, n: int, turns: asyncio.Semaphore) -> bool:
    """Run a request, every third one only to its first tokens; tell whether it was left."""
    chance = random.Random(n)
    prompt = prompt_of(n % 7, 32) + prompt_of(n, chance.randint(1, 40))
    count = 24 if n % 3 == 0 else chance.randint(1, 12)
    async with turns, engine.submit(ask(f"e{n}", prompt, count, tenant=str(n % 2))) as generation:
        if n % 3 == 0:
            await generation.take()
            return generation.finish is None
        await drained(generation)
        return False


async def test_nothing_stays_of_requests_that_have_ended(loaded: Load) -> None:
    limits = EngineLimits(max_batch=8, kv_bytes=PAGES * PAGE_BYTES)
    turns = asyncio.Semaphore(AT_ONCE)
    async with Engine(loaded("llama"), limits) as engine:
        before = held()
        left = await asyncio.gather(*(one(engine, n, turns) for n in range(REQUESTS)))
        await eventually(lambda: engine.stats().pages_used == 0)
        stats = engine.stats()
        pool = engine._core._lanes.pool
        names = len(pool._found)
        after = held()

    assert sum(left) > REQUESTS // 4
    assert stats.finished + stats.cancelled == REQUESTS
    assert stats.pages == PAGES
    assert names == len(pool._keys) == stats.pages_kept <= PAGES
    assert engine._open == engine._core._sequences == engine._core._lane_of == {}
    # The engine's thread may still hold what its last step was about.
    assert sum((after - before).values()) <= 2 * AT_ONCE
