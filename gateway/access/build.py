"""Admission as a policy asks for it; none where nothing is limited."""

from __future__ import annotations

import platform
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.access.accounts import Accounts, has_limits
from gateway.access.admission import Admission
from gateway.access.meters import LimitStore
from gateway.access.spent import LedgerSpending
from gateway.access.stores.memory import MemoryLimits
from gateway.access.worst_case import WorstCase
from gateway.money.location import is_postgres, locate
from gateway.money.prices import PriceBook, capabilities_of
from gateway.settings import ALONE, Team
from policies.schema import Policy

if TYPE_CHECKING:
    from gateway.alerts import Told
    from gateway.clock import Clock


def admission_of(
    policy: Policy,
    prices: PriceBook,
    clock: Clock,
    ledger_url: str,
    limits: LimitStore,
    *,
    team: Team = ALONE,
    alerts: Told | None = None,
    for_keys: bool = False,
    spool_url: str | None = None,
) -> Admission | None:
    """Build the admission of a policy over a store that outlives it.

    Without Redis, each of several processes grants its part of every limit,
    except that PostgreSQL may keep the budgets. `spool_url` is what stands
    before a ledger in PostgreSQL.
    `for_keys`: keys of the store may have limits, even where the policy has none.
    """
    if not (for_keys or has_limits(policy)):
        return None
    capabilities = {name: capabilities_of(model, name) for name, model in policy.models.items()}
    limits.follow(policy.limits)
    has_redis = policy.storage.redis is not None
    is_shared = has_redis or policy.storage.limits is not None
    part = 1.0 / team.workers
    # Memory begins empty with each window; others may forget one that has long begun.
    since = float("inf") if is_shared else clock.wall()
    return Admission(
        Accounts(policy, share=1.0 if has_redis else part, of_budgets=1.0 if is_shared else part),
        limits,
        WorstCase(prices, capabilities),
        capabilities,
        clock,
        LedgerSpending(
            ledger_url,
            since=since,
            team=ALONE if is_shared else team,
            spool_url=spool_url,
            abandoned_at_most=policy.limits.abandoned == "most",
        ),
        policy.limits.queue,
        alerts,
    )


@asynccontextmanager
async def limit_store(policy: Policy, clock: Clock, ledger_url: str) -> AsyncIterator[LimitStore]:
    """Yield where a process keeps its limits: in Redis or PostgreSQL where the policy names one.

    One that has none yet may have some after a reload.
    """
    if policy.storage.limits is not None:
        from gateway.access.stores.postgres import PostgresLimits

        async with PostgresLimits(
            policy.storage.limits, ledger=_name_of(ledger_url), tick=clock.tick, wall=clock.wall
        ) as budgets:
            yield budgets
        return
    if policy.storage.redis is None:
        yield MemoryLimits(clock.tick)
        return
    from cache.stores.redis import RedisLink
    from gateway.access.stores.scripts import SCRIPTS
    from gateway.access.stores.shared import SharedLimits

    url, within_s = policy.storage.redis.get_secret_value(), policy.storage.redis_within
    link = RedisLink(url, SCRIPTS, deadline_s=within_s)
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
    """Return what tells this ledger from others: one in PostgreSQL is that of all machines."""
    if is_postgres(ledger_url):
        return f"postgresql {urlsplit(ledger_url).path.strip('/')}"
    where = f"{platform.node()}:{locate(ledger_url).path.absolute()}"
    return blake2b(where.encode(), digest_size=8).hexdigest()
