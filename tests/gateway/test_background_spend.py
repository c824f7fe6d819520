"""What is spent behind clients' backs is counted by day, alone or together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.stores.redis import RedisLink
from cache.stores.scripts import SCRIPTS
from gateway.background_spend import SpentHere, SpentTogether
from tests.support.redis_server import RedisServer

DAY_S = 86_400


@pytest.fixture
def now() -> list[float]:
    return [10.5 * DAY_S]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(Path(tmp_path_factory.mktemp("redis"))) as server:
        yield server


def link_to(server: RedisServer) -> RedisLink:
    return RedisLink(server.url, SCRIPTS, deadline_s=5.0)


async def test_a_process_counts_its_own_until_midnight(now):
    spent = SpentHere(lambda: now[0])
    await spent.add("auto", 5)
    await spent.add("auto", 2)

    assert (await spent.today("auto"), await spent.today("other")) == (7, 0)
    now[0] = 11 * DAY_S - 1
    assert await spent.today("auto") == 7
    now[0] = 11 * DAY_S
    assert await spent.today("auto") == 0


async def test_processes_that_share_redis_count_together_until_midnight(server, now):
    server.flush()
    async with link_to(server) as one_link, link_to(server) as other_link:
        one, other = (SpentTogether(link, lambda: now[0]) for link in (one_link, other_link))
        await one.add("auto", 5)
        await other.add("auto", 2)

        assert [await each.today("auto") for each in (one, other)] == [7, 7]
        assert await one.today("other") == 0
        ttl = await one_link.call(b"TTL", b"frugal:spent:10:auto")
        assert 0 < ttl <= 2 * DAY_S
        now[0] = 11 * DAY_S
        assert [await each.today("auto") for each in (one, other)] == [0, 0]


async def test_without_redis_a_process_goes_on_from_what_it_knew_and_tells_it_later(server, now):
    server.flush()
    async with link_to(server) as link, link_to(server) as other_link:
        spent = SpentTogether(link, lambda: now[0])
        await SpentTogether(other_link, lambda: now[0]).add("auto", 5)
        assert await spent.today("auto") == 5
        server.kill()
        await spent.add("auto", 2)
        await spent.add("auto", 1)

        assert await spent.today("auto") == 8
        server.start()
        async with link_to(server) as again:
            spent._link = again
            assert await spent.today("auto") == 5, "as known before, by a Redis that forgot it"
            assert await again.call(b"GET", b"frugal:spent:10:auto") == b"3"
            await spent.add("auto", 6)

            assert await spent.today("auto") == 9, "each was told once"
