"""Build the caches that a policy asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Any

from cache.exact import ExactCache
from cache.far import Far
from cache.scope import Scope, Tally
from cache.stores.memory import MemoryStore
from cache.stores.scripts import SCRIPTS
from cache.stores.shared import SharedStore
from cache.types import StoreFailed
from gateway.clock import Clock
from gateway.released import Released
from gateway.travel import ReleasedCodec
from policies.schema import Policy

REPEATS_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Caches:
    """The caches of one process, and what they are made of. `shared` is None without Redis.

    `repeats` holds answers for those who send a request again under its `idempotency-key`.
    """

    exact: ExactCache[Released]
    repeats: ExactCache[Released]
    memory: MemoryStore
    shared: SharedStore | None = None

    @property
    def pending(self) -> int:
        """Return how many invalidations other processes will be told once Redis is back."""
        return self.exact.far.pending if self.exact.far is not None else 0

    async def invalidate(self, scope: Scope, *, dry_run: bool) -> Invalidated:
        """Remove a scope's answers from every process that shares them; a dry run only counts."""
        try:
            found = await self.exact.invalidate(scope, dry_run=dry_run)
        except StoreFailed as exc:
            return Invalidated(None, dry_run, str(exc))
        return Invalidated(found, dry_run, None)

    async def report(self) -> dict[str, Any]:
        """Return what was counted here and, where Redis can be asked, by all processes."""
        memory = self.memory
        report: dict[str, Any] = {
            "process": {**asdict(self.exact.stats()), "under_way": self.exact.under_way},
            "memory": {
                "entries": len(memory),
                "bytes": memory.size,
                "max_bytes": memory.max_bytes,
                "evicted": memory.evicted,
            },
            "shared": None,
        }
        if self.exact.far is not None and self.shared is not None:
            report["shared"] = await _shared(self.exact.far, self.shared)
        return report


@dataclass(frozen=True, slots=True)
class Invalidated:
    """What an invalidation found; None where Redis was out of reach."""

    found: Tally | None
    is_dry_run: bool
    trouble: str | None


async def _shared(far: Far[Released], store: SharedStore) -> dict[str, Any]:
    link = store.link
    report: dict[str, Any] = {
        "is_up": link.is_up,
        "trouble": None if link.is_up else link.trouble,
        "failures": link.failures,
        "refusals": link.refusals,
        "hits": far.hits,
        "led": far.led,
        "followed": far.followed,
        "corrupt": store.corrupt,
        "pending_invalidations": far.pending,
        "processes": None,
        "all_processes": None,
    }
    try:
        report["processes"], report["all_processes"] = await far.totals()
    except StoreFailed as exc:
        report["trouble"] = str(exc)
    return report


@asynccontextmanager
async def caches_of(policy: Policy, clock: Clock) -> AsyncIterator[Caches]:
    """Yield the caches: in this process's memory, and in Redis where the policy names one."""
    memory = MemoryStore(clock=clock.tick)
    repeats = MemoryStore(REPEATS_BYTES, clock=clock.tick)
    size_of = attrgetter("size")
    if policy.storage.redis is None:
        exact: ExactCache[Released] = ExactCache(memory, size_of=size_of, wall=clock.wall)
        again: ExactCache[Released] = ExactCache(repeats, size_of=size_of, wall=clock.wall)
        yield Caches(exact, again, memory)
        return
    from cache.stores.redis import RedisLink

    url, within_s = policy.storage.redis.get_secret_value(), policy.storage.redis_within
    link = RedisLink(url, SCRIPTS, deadline_s=within_s)
    shared = SharedStore(link, wall=clock.wall)
    far = Far(shared, ReleasedCodec(), wall=clock.wall)
    async with link, far:
        again = ExactCache(repeats, size_of=size_of, far=far, wall=clock.wall)
        # The last one is who hears of invalidations, which are none of a repetition's business.
        exact = ExactCache(memory, size_of=size_of, far=far, wall=clock.wall)
        yield Caches(exact, again, memory, shared)
