"""May they: rates, concurrency and budgets of a request, taken before it and settled after it."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.access.accounts import Accounts, Meters
from gateway.access.gcra import Level
from gateway.access.meters import (
    Claim,
    LimitStore,
    Pace,
    Purse,
    Refused,
    Settler,
    StoreAway,
    Taken,
    Unseeded,
    tightest,
)
from gateway.access.spent import Spending, nothing_spent
from gateway.access.worst_case import WorstCase, expected_tokens, models_of
from gateway.errors import (
    BudgetExceeded,
    GatewayError,
    LimitsUnavailable,
    ModelLimited,
    RateLimited,
)
from gateway.money.errors import LedgerError
from gateway.money.price import shown_usd
from gateway.money.prices import PriceBook
from gateway.wire import Part
from router.eligibility import why_unable
from router.types import Capabilities

if TYPE_CHECKING:
    from gateway.entry import Attempt, Clock, Entry

_NO_RETRY = {"x-should-retry": "false"}
"""What OpenAI's clients look for before they try again."""
_MOST_WARNED = 10_000
_log = logging.getLogger(__name__)


class Permit:
    """What one request has taken. `cheapest` is the only model it may call, where that is set."""

    def __init__(self, store: LimitStore) -> None:
        self.cheapest: str | None = None
        self.levels: list[tuple[Pace, Level]] = []
        self._store = store
        self._entrance: Claim | None = None
        self._work: Claim | None = None
        self._settlers: tuple[Settler, Settler] = (store, store)

    @property
    def has_entered(self) -> bool:
        """Return whether the request counts as one under way."""
        return self._entrance is not None

    @property
    def may_work(self) -> bool:
        """Return whether tokens and money were set aside for it."""
        return self._work is not None

    def note(self, entrance: Claim | None, work: Claim | None, taken: Taken, whole: Claim) -> None:
        """Keep what was taken, to give it back."""
        of_entrance, of_work = self._settlers
        settler = taken.settler or self._store
        if entrance is not None:
            self._entrance, of_entrance = entrance, settler
        if work is not None:
            self._work, of_work = work, settler
        self._settlers = of_entrance, of_work
        # A store that is away knows no levels.
        self.levels += [
            (pace, at) for (pace, _), at in zip(whole.paces, taken.levels, strict=False)
        ]

    def close(self, *, tokens: int, nano_usd: int) -> None:
        """Settle with what the request came to."""
        first, second = self._settlers
        if first is second:
            claims = [(first, _both(self._entrance, self._work))]
        else:
            claims = [(first, self._entrance or Claim()), (second, self._work or Claim())]
        for settler, claim in claims:
            settler.settle(claim, tokens=tokens, nano_usd=nano_usd)
        self._entrance = self._work = None

    def headers(self) -> dict[str, str]:
        """Return `x-ratelimit-*` as OpenAI names them, of the tightest limits."""
        return rate_headers(self.levels)


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
    ) -> None:
        self._spending = spending
        self._accounts = accounts
        self._store = store
        self._worst = worst
        self._capabilities = capabilities
        self._clock = clock
        self._warned: set[str] = set()

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
        tags = entry.caller.tags | entry.request.tags
        meters = self._accounts.of(entry.caller, tags, entry.route_name, entry.route)
        if meters.is_empty:
            return
        if permit is None:
            permit = Permit(self._store)
        entrance = None if permit.has_entered else _entrance(meters)
        work = None if is_free else self._work(entry, meters)
        result = await self._take(permit, entrance, work)
        if isinstance(result, Refused) and _is_of(result, "cheapest"):
            work, result = await self._take_cheapest(entry, permit, meters, entrance, result)
        if isinstance(result, Refused):
            raise _told(result, _both(entrance, work))
        self._warn(result)
        entry.permit = permit

    async def metered(
        self, parts: AsyncGenerator[Part, None], attempt: Attempt, entry: Entry
    ) -> AsyncGenerator[Part, None]:
        """Make a call within its model's own limits. Raises ModelLimited before the first part."""
        meters = self._accounts.of_model(attempt.model)
        async with aclosing(parts):
            claim = _call(entry, meters) if meters else Claim()
            result = await self._ask(claim)
            if isinstance(result, Refused):
                refusal = _told(result, claim)
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

    async def aclose(self) -> None:
        """Let go of the store."""
        await self._store.aclose()

    async def _take(
        self, permit: Permit, entrance: Claim | None, work: Claim | None
    ) -> Taken | Refused:
        whole = _both(entrance, work)
        result = await self._ask(whole)
        if isinstance(result, Taken):
            permit.note(entrance, work, result, whole)
        return result

    async def _ask(self, claim: Claim) -> Taken | Refused:
        try:
            while isinstance(result := await self._store.take(claim), Unseeded):
                for purse in result.purses:
                    await self._store.seed(purse, await self._spending(purse))
        except (StoreAway, LedgerError) as exc:
            raise LimitsUnavailable(
                "limits cannot be checked just now; try again shortly", retry_after="1"
            ) from exc
        return result

    def _work(self, entry: Entry, meters: Meters) -> Claim:
        paces: tuple[tuple[Pace, int], ...] = ()
        if meters.tokens:
            tokens_in, tokens_out = expected_tokens(entry.request, entry.facts)
            paces = tuple((pace, _reserve(pace, tokens_in, tokens_out)) for pace in meters.tokens)
        if not meters.accounts:
            return Claim(paces)
        nano = self._worst.nano_usd(entry.request, entry.route, models_of(entry.route, entry.facts))
        now = self._clock.wall()
        return Claim(paces, (), tuple((account.purse(now), nano) for account in meters.accounts))

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
        return work, await self._take(permit, entrance, work)

    def _cheapest_able(self, entry: Entry) -> str | None:
        for model in entry.route.tiers:
            known = self._capabilities.get(model)
            if known is None or why_unable(known, entry.facts) is None:
                return model
        return None

    def _warn(self, taken: Taken) -> None:
        for purse in taken.over:
            if purse.at_limit == "warn" and purse.id not in self._warned:
                if len(self._warned) >= _MOST_WARNED:
                    self._warned.clear()
                self._warned.add(purse.id)
                _log.warning("%s: is used up; requests go on", purse.whose)


def _entrance(meters: Meters) -> Claim:
    return Claim(tuple([(pace, 1) for pace in meters.requests]), meters.rooms)


def _call(entry: Entry, meters: Meters) -> Claim:
    tokens_in, tokens_out = expected_tokens(entry.request, entry.facts)
    paces = [(pace, 1) for pace in meters.requests]
    paces += [(pace, _reserve(pace, tokens_in, tokens_out)) for pace in meters.tokens]
    return Claim(tuple(paces), meters.rooms)


def _reserve(pace: Pace, tokens_in: int, tokens_out: int) -> int:
    """Return what to reserve: an answer is no longer than allowed only in the worst case."""
    return tokens_in + min(tokens_out, max(0, pace.per_minute - tokens_in))


def _both(first: Claim | None, second: Claim | None) -> Claim:
    if first is None or second is None:
        return first or second or Claim()
    return Claim(first.paces + second.paces, first.rooms, second.purses)


def _is_of(refused: Refused, at_limit: str) -> bool:
    return isinstance(refused.meter, Purse) and refused.meter.at_limit == at_limit


def _told(refused: Refused, claim: Claim) -> GatewayError:
    """Return what the client is told."""
    error = _refusal(refused, claim)
    paces = [pace for pace, _ in claim.paces]
    levels = list(zip(paces, refused.levels, strict=False))
    error.headers = {**error.headers, **rate_headers(levels)}
    return error


def _refusal(refused: Refused, claim: Claim) -> GatewayError:
    meter = refused.meter
    if isinstance(meter, Purse):
        return _out_of_money(meter, refused.wait_s, claim)
    if isinstance(meter, Pace):
        return _too_fast(meter, refused.wait_s or 0.0)
    return RateLimited(
        f"the limit of {meter.whose} is reached: {meter.size} requests at once; "
        "wait for one to end",
        retry_after="1",
    )


def _too_fast(pace: Pace, wait_s: float) -> GatewayError:
    said = f"the limit of {pace.whose} is reached: {pace.per_minute} {pace.unit} per minute"
    if math.isinf(wait_s):
        error = RateLimited(f"{said}, and this request needs more than that; shorten its prompt")
        error.headers = _NO_RETRY
        return error
    return RateLimited(f"{said}; try again in {shown_wait(wait_s)}", retry_after=_seconds(wait_s))


def _out_of_money(purse: Purse, wait_s: float | None, claim: Claim) -> GatewayError:
    amount = next(amount for asked, amount in claim.purses if asked.id == purse.id)
    needs = f"this request may cost up to {shown_usd(amount)}"
    if wait_s is None:
        return BudgetExceeded(
            f"{purse.whose}: {needs}, and requests under way hold the rest; try again shortly, "
            "or send a smaller max_tokens",
            retry_after="1",
        )
    error = BudgetExceeded(
        f"{purse.whose}: {needs}, and less than that is left; send a smaller max_tokens, "
        "wait for the next window, or ask for a larger budget"
    )
    error.headers = _NO_RETRY
    return error


def _seconds(wait_s: float) -> str:
    return str(max(1, math.ceil(wait_s)))


def rate_headers(levels: Sequence[tuple[Pace, Level]]) -> dict[str, str]:
    """Return `x-ratelimit-*` of the tightest limit of each unit."""
    headers: dict[str, str] = {}
    for unit in ("requests", "tokens"):
        if (level := tightest(levels, unit)) is not None:
            headers[f"x-ratelimit-limit-{unit}"] = str(level.limit)
            headers[f"x-ratelimit-remaining-{unit}"] = str(level.remaining)
            headers[f"x-ratelimit-reset-{unit}"] = shown_wait(level.reset_s)
    return headers


def shown_wait(seconds: float) -> str:
    """Write a duration as OpenAI does: 88ms, 1s, 6m0s, 1h0m0s."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole}s"
    hours, rest = divmod(whole, 3600)
    minutes, secs = divmod(rest, 60)
    return f"{hours}h{minutes}m{secs}s" if hours else f"{minutes}m{secs}s"
