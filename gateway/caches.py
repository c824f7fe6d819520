"""Build the caches that a policy asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from operator import attrgetter

from cache.exact import ExactCache
from cache.far import Far
from cache.stores.memory import MemoryStore
from cache.stores.scripts import SCRIPTS
from cache.stores.shared import SharedStore
from gateway.entry import Clock
from gateway.released import Released
from gateway.travel import ReleasedCodec
from policies.schema import Policy


@asynccontextmanager
async def exact_cache(policy: Policy, clock: Clock) -> AsyncIterator[ExactCache[Released]]:
    """Yield the exact cache: in this process's memory, and in Redis where the policy names one."""
    memory = MemoryStore(clock=clock.tick)
    if policy.storage.redis is None:
        yield ExactCache(memory, size_of=attrgetter("size"), wall=clock.wall)
        return
    from cache.stores.redis import RedisLink

    link = RedisLink(policy.storage.redis.get_secret_value(), SCRIPTS)
    far = Far(SharedStore(link, wall=clock.wall), ReleasedCodec(), wall=clock.wall)
    async with link, far:
        yield ExactCache(memory, size_of=attrgetter("size"), far=far, wall=clock.wall)
