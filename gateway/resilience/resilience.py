"""What of a process outlives its policies: breakers, and the budget of retries."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable

from gateway.attempt import Attempt
from gateway.clock import Clock
from gateway.entry import Entry
from gateway.errors import ProviderError
from gateway.resilience.breaker import State
from gateway.resilience.budget import RetryBudget
from gateway.resilience.guard import Breakers, News
from gateway.resilience.retry import wait_before
from gateway.wire import Part
from policies.resilience import RetryRules
from policies.schema import Timeouts

_LEAST_S = 0.001


class Resilience:
    """Applies a route's `breaker`, `retries` and `hedge`; one that names none is left alone."""

    def __init__(
        self,
        clock: Clock,
        *,
        draw: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._draw = draw
        self._sleep = sleep
        self._breakers = Breakers(clock.tick)
        self._budget = RetryBudget(clock.tick)

    def breakers(self) -> dict[str, State]:
        """Return the worst state that the breakers of each model are in, of those ever used."""
        return self._breakers.states()

    def tell(self, news: News | None) -> None:
        """Tell of breakers that open or close from now on."""
        self._breakers.told = news

    def count(self, entry: Entry) -> None:
        """Let a request that is about to call a model earn its share of a retry or hedge."""
        route = entry.route
        if route.retries is not None:
            self._budget.deposit(route.retries.budget)
        if route.hedge is not None:
            self._budget.deposit(route.hedge.budget)

    def may_hedge(self, entry: Entry) -> bool:
        """Return whether this request, which has none yet, may have a hedge; take it if so."""
        rules = entry.route.hedge
        if rules is None or any(attempt.purpose == "hedge" for attempt in entry.attempts):
            return False
        return self._budget.withdraw(rules.per_second)

    def guarded(
        self, parts: AsyncGenerator[Part, None], attempt: Attempt, entry: Entry
    ) -> AsyncGenerator[Part, None]:
        """Yield a call's parts through the model's breaker, if the route has one."""
        rules = entry.route.breaker
        return parts if rules is None else self._breakers.guard(attempt.model, rules, parts)

    async def try_again(self, attempt: Attempt, entry: Entry, exc: ProviderError) -> bool:
        """Return whether to ask the same model again, after waiting as long as it takes.

        Never once a part has come, nor beyond the route's total deadline.
        """
        rules = entry.route.retries
        if rules is None or attempt.has_begun:
            return False
        wait_s = self._wait_s(rules, attempt, entry, exc)
        if wait_s is None or not self._budget.withdraw(rules.per_second):
            return False
        if wait_s > 0:
            await self._sleep(wait_s)
        return True

    def _wait_s(
        self, rules: RetryRules, attempt: Attempt, entry: Entry, exc: ProviderError
    ) -> float | None:
        failed = len(entry.superseded(attempt.model)) + 1
        wait_s = wait_before(rules, exc, failed=failed, wall=self._clock.wall(), draw=self._draw)
        if wait_s is None or wait_s >= left_s(attempt, entry):
            return None
        return wait_s


def left_s(attempt: Attempt, entry: Entry) -> float:
    """Return what is left of the route's total deadline since the model was first asked."""
    first = next(iter(entry.superseded(attempt.model)), attempt)
    return entry.route.timeouts.total - first.age_s


def terms_of(attempt: Attempt, entry: Entry) -> tuple[Timeouts, set[str] | None]:
    """Return the deadlines of an attempt, and the deployments that were asked before it."""
    timeouts = entry.route.timeouts
    if entry.route.retries is None and entry.route.hedge is None:
        return timeouts, None
    return _remaining(timeouts, attempt, entry), entry.asked(attempt.model)


def _remaining(timeouts: Timeouts, attempt: Attempt, entry: Entry) -> Timeouts:
    """Return the deadlines of an attempt: a repeated one has what the others left."""
    if len(entry.attempts) == 1 or not entry.superseded(attempt.model):
        return timeouts
    left = max(left_s(attempt, entry), _LEAST_S)
    return Timeouts(
        connect=min(timeouts.connect, left),
        first_token=min(timeouts.first_token, left),
        idle=timeouts.idle,
        total=left,
    )
