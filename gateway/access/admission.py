"""May they: rates, concurrency and budgets of a request, taken before it and settled after it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, TypeGuard

from msgspec.structs import replace

from gateway.access.accounts import Accounts, Meters
from gateway.access.meters import (
    Claim,
    LimitStore,
    NearStore,
    Pace,
    Purse,
    Refused,
    StoreAway,
    Taken,
    Unseeded,
)
from gateway.access.permit import Permit, both
from gateway.access.refusals import told
from gateway.access.spent import Spending, nothing_spent
from gateway.access.waiting import WaitingRoom
from gateway.access.worst_case import WorstCase, expected_tokens
from gateway.errors import (
    LimitsUnavailable,
    ModelLimited,
)
from gateway.money.errors import LedgerError
from gateway.money.prices import PriceBook
from gateway.wire import Part
from policies.limits import QueueRules
from router.eligibility import why_unable
from router.types import Capabilities

if TYPE_CHECKING:
    from gateway.alerts import Told
    from gateway.attempt import Attempt
    from gateway.clock import Clock
    from gateway.entry import Entry

_MOST_WARNED = 10_000
_log = logging.getLogger(__name__)


class Admission:
    """The limits of one policy at work."""

    def __init__(
        self,
        accounts: Accounts,
        store: LimitStore,
        worst: WorstCase,
        capabilities: Mapping[str, Capabilities],
        clock: Clock,
        spending: Spending = nothing_spent,
        queue: QueueRules | None = None,
        alerts: Told | None = None,
    ) -> None:
        self._alerts = alerts
        self.waiting = WaitingRoom(queue, self._ask, store) if queue is not None else None
        self._spending = spending
        self._accounts = accounts
        self._store = store
        self._near = store if queue is None and isinstance(store, NearStore) else None
        self._worst = worst
        self._capabilities = capabilities
        self._clock = clock
        self._warned: set[str] = set()
        self._roomy: dict[int, Meters] = {}
        self._seeding: dict[str, asyncio.Task[None]] = {}

    @property
    def is_immediate(self) -> bool:
        """Return whether what is free is let in, or refused, without waiting for anybody."""
        return self.waiting is None and self._store.is_immediate

    def use_prices(self, prices: PriceBook) -> None:
        """Bound what comes from now on by other prices."""
        self._worst = WorstCase(prices, self._capabilities)

    async def admit(self, entry: Entry, *, is_free: bool = False) -> None:
        """Let a request in, and unless it is free set aside what it may use.

        Raises RateLimited, BudgetExceeded or LimitsUnavailable; nothing is
        taken then. Who is in already only takes what is still lacking.
        """
        permit = entry.permit
        if permit is not None and (is_free or permit.may_work):
            return
        meters = self._meters(entry)
        if meters.is_empty:
            return
        if permit is None:
            permit = Permit(self._store, self.waiting.tell if self.waiting else None)
        entrance = None if permit.has_entered else meters.entrance
        work = None if is_free else self._work(entry, meters)
        result = self._take_now(permit, entrance, work)
        if result is None:
            result = await self._take(entry, permit, entrance, work)
        if _is_refused_by(result, "cheapest"):
            work, result = await self._take_cheapest(entry, permit, meters, entrance, result)
        self._let_in(entry, permit, entrance, work, result)

    def admit_now(self, entry: Entry) -> bool:
        """Admit a request that is new here, without waiting; return whether that was possible.

        If not, nothing is taken. Raises RateLimited or BudgetExceeded.
        """
        meters = self._meters(entry)
        if meters.is_empty:
            return True
        if self._near is None:
            return False
        permit, work = Permit(self._store), self._work(entry, meters)
        result = self._take_now(permit, meters.entrance, work)
        if result is None or _is_refused_by(result, "cheapest"):
            return False
        self._let_in(entry, permit, meters.entrance, work, result)
        return True

    async def admit_ahead(self, entry: Entry) -> bool:
        """Admit a request that is new here, though others may have its answer already.

        Return whether that was done; if not, nothing is taken. To be asked only where
        it `has_plenty`. Raises LimitsUnavailable.
        """
        meters = self._meters(entry)
        permit, work = Permit(self._store), self._work(entry, meters)
        whole = both(meters.entrance, work)
        result = await self._ask(whole)
        if isinstance(result, Refused):
            self._roomy.pop(id(meters), None)
            return False
        permit.note(meters.entrance, work, result, whole)
        self._let_in(entry, permit, meters.entrance, work, result)
        return True

    def has_plenty(self, entry: Entry) -> bool:
        """Return whether nobody queues, and a tenth of every limit was left when last seen.

        What is set aside for a moment keeps nobody out then.
        """
        meters = self._meters(entry)
        return self.waiting is None and self._roomy.get(id(meters)) is meters

    def _look_at_what_is_left(self, meters: Meters, work: Claim, result: Taken) -> None:
        """Remember whether a tenth of every limit was left."""
        has_plenty = all(level.remaining * 10 > level.limit for level in result.levels) and all(
            (spent + nano) * 10 < purse.nano_usd * 9
            for (purse, nano), spent in zip(work.purses, result.spent, strict=False)
        )
        if has_plenty:
            self._roomy[id(meters)] = meters
        else:
            self._roomy.pop(id(meters), None)

    def _meters(self, entry: Entry) -> Meters:
        tags = entry.caller.tags | entry.request.tags
        return self._accounts.of(entry.caller, tags, entry.route_name, entry.route)

    def _let_in(
        self,
        entry: Entry,
        permit: Permit,
        entrance: Claim | None,
        work: Claim | None,
        result: Taken | Refused,
    ) -> None:
        if isinstance(result, Refused):
            raise told(result, both(entrance, work))
        if result.over:
            self._warn(result)
        if self._alerts is not None and work is not None:
            for (purse, _), nano in zip(work.purses, result.spent, strict=False):
                self._alerts.spent(purse, nano)
        if self._near is None and work is not None:
            self._look_at_what_is_left(self._meters(entry), work, result)
        entry.permit = permit

    async def cover(self, entry: Entry, most_nano: int) -> None:
        """Set aside what calls that nobody foresaw may cost beyond what is set aside already.

        Raises ModelLimited where a budget has no more.
        """
        permit = entry.permit
        if permit is None or permit.set_aside is None or most_nano <= permit.set_aside:
            return
        claim = permit.more(most_nano - permit.set_aside)
        try:
            result = await self._ask(claim)
        except LimitsUnavailable as exc:
            raise ModelLimited(exc.message, retry_after=exc.retry_after) from exc
        if isinstance(result, Refused):
            raise ModelLimited(f"no money for another call: {told(result, claim).message}")
        permit.note_more(claim, result)

    async def metered(
        self, parts: AsyncGenerator[Part, None], attempt: Attempt, entry: Entry
    ) -> AsyncGenerator[Part, None]:
        """Make a call within its model's own limits. Raises ModelLimited before the first part."""
        meters = self._accounts.of_model(attempt.model)
        async with aclosing(parts):
            claim = _call(entry, meters) if meters else Claim()
            result = await self._ask(claim)
            if isinstance(result, Refused):
                refusal = told(result, claim)
                raise ModelLimited(refusal.message, retry_after=refusal.retry_after)
            tokens = 0
            try:
                async for part in parts:
                    tokens = part.usage.total if part.usage is not None else tokens
                    yield part
            finally:
                (result.settler or self._store).settle(claim, tokens=tokens, nano_usd=0)

    def limits_model(self, name: str) -> bool:
        """Return whether calls of a model are limited."""
        return self._accounts.of_model(name) is not None

    async def _take(
        self, entry: Entry, permit: Permit, entrance: Claim | None, work: Claim | None
    ) -> Taken | Refused:
        whole = both(entrance, work)
        if self.waiting is None or not (whole.paces or whole.rooms):
            result = await self._ask(whole)
        else:
            priority = self._accounts.priority(entry.caller, entry.route)
            result = await self.waiting.take(whole, entry.caller.tenant, priority)
        return self._noted(result, permit, entrance, work, whole)

    def _take_now(
        self, permit: Permit, entrance: Claim | None, work: Claim | None
    ) -> Taken | Refused | None:
        """Take what this process alone keeps; None where others, or the ledger, must be asked."""
        if self._near is None:
            return None
        whole = both(entrance, work)
        result = self._near.take_now(whole)
        if isinstance(result, Unseeded):
            return None
        return self._noted(result, permit, entrance, work, whole)

    def _noted(
        self,
        result: Taken | Refused,
        permit: Permit,
        entrance: Claim | None,
        work: Claim | None,
        whole: Claim,
    ) -> Taken | Refused:
        """Keep what was taken, and tell of a budget that is used up."""
        if isinstance(result, Taken):
            permit.note(entrance, work, result, whole)
        elif self._alerts is not None and isinstance(result.meter, Purse) and result.wait_s:
            self._alerts.used_up(result.meter)  # it is not that requests under way hold the rest
        return result

    async def _ask(self, claim: Claim) -> Taken | Refused:
        try:
            while isinstance(result := await self._store.take(claim), Unseeded):
                for purse in result.purses:
                    await self._seed(purse)
        except (StoreAway, LedgerError) as exc:
            raise LimitsUnavailable(
                "limits cannot be checked just now; try again shortly", retry_after="1"
            ) from exc
        return result

    async def _seed(self, purse: Purse) -> None:
        """Ask the ledger once, however many wait for its answer."""
        task = self._seeding.get(purse.id)
        if task is None:
            task = self._seeding[purse.id] = asyncio.create_task(self._seed_now(purse))
            task.add_done_callback(partial(self._seeded, purse.id))
        await asyncio.shield(task)

    async def _seed_now(self, purse: Purse) -> None:
        await self._store.seed(purse, await self._spending(purse))

    def _seeded(self, purse_id: str, task: asyncio.Task[None]) -> None:
        del self._seeding[purse_id]
        if not task.cancelled():
            task.exception()  # those who waited have heard of it

    def _work(self, entry: Entry, meters: Meters) -> Claim:
        paces: tuple[tuple[Pace, int], ...] = ()
        if meters.tokens:
            tokens_in, tokens_out = expected_tokens(entry.request, entry.facts)
            paces = tuple([(pace, _reserve(pace, tokens_in, tokens_out)) for pace in meters.tokens])
        if not meters.accounts:
            return Claim(paces)
        nano = self._worst.of(entry.request, entry.route, entry.facts)
        if entry.request.max_nano_usd is not None:
            nano = min(nano, entry.request.max_nano_usd)  # what could pass it is left out
        now = self._clock.wall()
        return Claim(paces, (), tuple([(account.purse(now), nano) for account in meters.accounts]))

    async def _take_cheapest(
        self,
        entry: Entry,
        permit: Permit,
        meters: Meters,
        entrance: Claim | None,
        refused: Refused,
    ) -> tuple[Claim | None, Taken | Refused]:
        """Try again with the cheapest tier that is able; what it costs is counted, not bounded."""
        model = self._cheapest_able(entry)
        if model is None:
            return None, refused
        nano = self._worst.nano_usd(entry.request, entry.route, [model])
        work = self._work(entry, meters)
        purses = tuple(
            (purse if purse.at_limit == "refuse" else replace(purse, hard=False), nano)
            for purse, _ in work.purses
        )
        work = Claim(work.paces, (), purses)
        permit.cheapest = model
        return work, await self._take(entry, permit, entrance, work)

    def _cheapest_able(self, entry: Entry) -> str | None:
        for model in entry.route.tiers:
            known = self._capabilities.get(model)
            if known is None or why_unable(known, entry.facts) is None:
                return model
        return None

    def _warn(self, taken: Taken) -> None:
        for purse in taken.over:
            if self._alerts is not None:
                self._alerts.used_up(purse)
            if purse.at_limit == "warn" and purse.id not in self._warned:
                if len(self._warned) >= _MOST_WARNED:
                    self._warned.clear()
                self._warned.add(purse.id)
                _log.warning("%s: is used up; requests go on", purse.whose)


def _call(entry: Entry, meters: Meters) -> Claim:
    tokens_in, tokens_out = expected_tokens(entry.request, entry.facts)
    paces = [(pace, 1) for pace in meters.requests]
    paces += [(pace, _reserve(pace, tokens_in, tokens_out)) for pace in meters.tokens]
    return Claim(tuple(paces), meters.rooms)


def _reserve(pace: Pace, tokens_in: int, tokens_out: int) -> int:
    """Return what to reserve: an answer is no longer than allowed only in the worst case."""
    most = pace.per_minute
    if tokens_in + tokens_out <= most:
        return tokens_in + tokens_out
    return max(tokens_in, most)


def _is_refused_by(result: Taken | Refused, at_limit: str) -> TypeGuard[Refused]:
    if not isinstance(result, Refused) or not isinstance(result.meter, Purse):
        return False
    return result.meter.at_limit == at_limit
