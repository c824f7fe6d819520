from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from cache.semantic.lent import Lent


@pytest.fixture
def log():
    return []


@pytest.fixture
def lent(log):
    @asynccontextmanager
    async def make(key):
        log.append(f"open {key}")
        await asyncio.sleep(0)
        if key == "broken":
            raise OSError("cannot be had")
        yield [key]
        log.append(f"close {key}")

    return Lent(make)


async def test_all_who_borrow_at_a_time_get_the_same_and_the_last_one_closes_it(lent, log):
    async with lent.borrow("a") as one:
        async with lent.borrow("a") as other:
            assert one is other
        assert log == ["open a"]

    assert log == ["open a", "close a"]


async def test_those_who_come_together_open_it_once(lent, log):
    async def use():
        async with lent.borrow("a") as value:
            await asyncio.sleep(0)
            return value

    one, other = await asyncio.gather(use(), use())

    assert one is other
    assert log == ["open a", "close a"]


async def test_what_was_closed_is_opened_anew(lent, log):
    async with lent.borrow("a") as one:
        pass
    async with lent.borrow("a") as other:
        assert one is not other

    assert log == ["open a", "close a"] * 2


async def test_what_cannot_be_opened_is_tried_again_by_the_next(lent, log):
    for _ in range(2):
        with pytest.raises(OSError, match="cannot be had"):
            async with lent.borrow("broken"):
                pass

    assert log == ["open broken"] * 2
