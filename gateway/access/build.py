"""Admission as a policy asks for it; none where nothing is limited."""

from __future__ import annotations

import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING

from gateway.access.accounts import Accounts, has_limits
from gateway.access.admission import Admission
from gateway.access.meters import LimitStore
from gateway.access.spent import LedgerSpending
from gateway.access.stores.memory import MemoryLimits
from gateway.access.worst_case import WorstCase
from gateway.money.location import locate
from gateway.money.prices import PriceBook, capabilities_of
from gateway.settings import ALONE, Team
from policies.schema import Policy

if TYPE_CHECKING:
    from gateway.entry import Clock


def admission_of(
    policy: Policy,
    prices: PriceBook,
    clock: Clock,
    ledger_url: str,
    limits: LimitStore,
    *,
    team: Team = ALONE,
    for_keys: bool = False,
) -> Admission | None:
    """Build the admission of a policy over a store that outlives it.

    Without Redis, each of several processes grants its part of every limit.
    `for_keys`: keys of the store may have limits, even where the policy has none.
    """
    if not (for_keys or has_limits(policy)):
        return None
    capabilities = {name: capabilities_of(model, name) for name, model in policy.models.items()}
    limits.follow(policy.limits)
    is_shared = policy.storage.redis is not None
    share = 1.0 if is_shared else 1.0 / team.workers
    # Memory begins empty with each window; Redis may forget one that has long begun.
    since = float("inf") if is_shared else clock.wall()
    return Admission(
        Accounts(policy, share=share),
        limits,
        WorstCase(prices, capabilities),
        capabilities,
        clock,
        LedgerSpending(ledger_url, since=since, team=ALONE if is_shared else team),
        policy.limits.queue,
    )


@asynccontextmanager
async def limit_store(policy: Policy, clock: Clock, ledger_url: str) -> AsyncIterator[LimitStore]:
    """Yield where a process keeps its limits: in Redis where the policy names one.

    One that has none yet may have some after a reload.
    """
    if policy.storage.redis is None:
        yield MemoryLimits(clock.tick)
        return
    from cache.stores.redis import RedisLink
    from gateway.access.stores.scripts import SCRIPTS
    from gateway.access.stores.shared import SharedLimits

    link = RedisLink(policy.storage.redis.get_secret_value(), SCRIPTS)
    store = SharedLimits(
        link,
        ledger=_name_of(ledger_url),
        tick=clock.tick,
        wall=clock.wall,
        without_redis=policy.limits.without_redis,
        share=policy.limits.local_share,
    )
    async with link, store:
        yield store


def _name_of(ledger_url: str) -> str:
    """Return what tells this ledger from those of other machines."""
    where = f"{platform.node()}:{locate(ledger_url).path.absolute()}"
    return blake2b(where.encode(), digest_size=8).hexdigest()
