from __future__ import annotations

import asyncio

import numpy as np
import pytest

from cache.semantic.embedder import EmbedderError
from cache.semantic.service import MOST_WAITING, Busy, EmbeddingService
from tests.support.semantic import Lettered


async def test_a_vector_comes_from_the_worker_thread():
    letters = Lettered()
    async with EmbeddingService(lambda: letters) as service:
        row = await service.vector("abc")

    assert row.shape == (32,)
    assert letters.threads == {"embedder_0"}


async def test_texts_that_wait_are_handed_over_together_and_equal_ones_once():
    letters = Lettered()
    letters.may_go.clear()
    async with EmbeddingService(lambda: letters, batch=3) as service:
        tasks = [asyncio.create_task(service.vector(t)) for t in ("a", "b", "b", "a", "c", "d")]
        await asyncio.sleep(0)
        letters.may_go.set()
        rows = await asyncio.gather(*tasks)

    assert sorted(text for call in letters.calls for text in call) == ["a", "b", "c", "d"]
    assert max(map(len, letters.calls)) <= 3
    assert np.array_equal(rows[0], rows[3])


async def test_one_that_leaves_does_not_take_the_vector_from_another():
    letters = Lettered()
    letters.may_go.clear()
    async with EmbeddingService(lambda: letters) as service:
        leaver = asyncio.create_task(service.vector("a"))
        other = asyncio.create_task(service.vector("a"))
        await asyncio.sleep(0)
        leaver.cancel()
        letters.may_go.set()

        assert (await other).max() == 1
        assert leaver.cancelled()


async def test_too_many_waiting_are_told_so():
    letters = Lettered()
    letters.may_go.clear()
    async with EmbeddingService(lambda: letters) as service:
        tasks = [asyncio.create_task(service.vector("first"))]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(service.vector(f"a{n}")) for n in range(MOST_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await service.vector("one too many")
        letters.may_go.set()

        assert len(await asyncio.gather(*tasks)) == MOST_WAITING + 1


async def test_a_failure_reaches_all_who_asked_and_nobody_later():
    async with EmbeddingService(Lettered) as service:
        with pytest.raises(ValueError, match="cannot read this"):
            await service.vector("fail")

        assert (await service.vector("b")).max() == 1


async def test_a_model_that_cannot_be_had_is_told_at_the_start():
    def load() -> Lettered:
        raise EmbedderError("not there")

    with pytest.raises(EmbedderError, match="not there"):
        async with EmbeddingService(load):
            pass
