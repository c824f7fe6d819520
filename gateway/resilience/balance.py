"""Several deployments of one model behind one provider: who is asked, and who sits out.

Two deployments are drawn by weight and the better one is asked ("the power of
two choices", Mitzenmacher 2001): better is the shorter expected wait, the
recent time to a first part times the calls under way. Old measurements fade,
so that one that was slow is tried again. A deployment that fails is ejected by
a breaker of its own, for longer each time; when all are, the least loaded is
asked all the same, for a sick upstream is better than none. One whose health
check fails is not asked at all, nor one that has as many calls as it can take.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Literal, Protocol

from gateway.errors import (
    CircuitOpen,
    ModelLimited,
    ProviderError,
    ProviderRateLimited,
    ProviderTimeout,
    ProviderUnavailable,
)
from gateway.resilience.adaptive import AdaptiveLimit
from gateway.resilience.breaker import Breaker
from gateway.resilience.guard import Counting, Tick, is_upstreams_fault
from gateway.resilience.homes import Homes
from gateway.resilience.retry import seconds_in
from gateway.wire import Part, Provider, ProviderCall
from policies.resilience import BreakerRules

EJECTION = BreakerRules(consecutive=5, failures=0.5, min_calls=10, window=30.0, open_for=5.0)
"""Outlier ejection: five failures in a row, or half of ten within half a minute."""

_OVERLOAD = (ProviderRateLimited, ProviderTimeout, ProviderUnavailable)
_FADE_S = 10.0
_DREAD = 10.0
_LONGEST_REST_S = 60.0
_REST_S = 1.0
_PATIENCE_S = 2.0
"""How much longer than another the deployment may take that has the prompt cached."""
Balance = Literal["latency", "weight"]


class Watch(Protocol):
    """Who watches the health of deployments."""

    def begin(self) -> None:
        """Begin to watch."""
        ...

    async def aclose(self) -> None:
        """Watch no more."""
        ...


class Member:
    """One deployment and what is known of it."""

    def __init__(
        self, name: str, provider: Provider, weight: float, limit: AdaptiveLimit | None = None
    ) -> None:
        self.limit = limit
        self.is_down = False
        self._failed_checks = 0
        self.name = name
        self.provider = provider
        self.weight = weight
        self.breaker = Breaker(EJECTION, growth=2.0)
        self.under_way = 0
        self.rests_until = -math.inf
        self._first_s = 0.0
        self._illness = 0.0
        self._measured = -math.inf

    def is_well(self, now: float) -> bool:
        """Return whether it may be asked: neither ejected nor over its rate limit."""
        return self.breaker.would_admit(now) and now >= self.rests_until

    @property
    def is_full(self) -> bool:
        """Return whether it has as many calls under way as it can take."""
        return self.limit is not None and self.under_way >= self.limit.limit

    def checked(self, is_well: bool, failures: int, now: float) -> None:
        """Learn what a health check found; one that comes back is tried with one call first."""
        self._failed_checks = 0 if is_well else self._failed_checks + 1
        if is_well and self.is_down:
            self.breaker.expect_probe(now)
        self.is_down = self._failed_checks >= failures or (self.is_down and not is_well)

    def expected_s(self, now: float) -> float:
        """Return its recent time to a first part, fading to nothing."""
        return self._first_s * self._fade(now)

    def wait_s(self, now: float) -> float:
        """Return how long a new call would wait for its first part, in seconds."""
        # A little for every call, so that unmeasured deployments share alike.
        return (self.expected_s(now) + 0.001) * (self.under_way + 1)

    def load(self, now: float) -> float:
        """Return how long a new call would wait, longer for one that often fails."""
        illness = self._illness * self._fade(now)
        return self.wait_s(now) * (1.0 + _DREAD * illness) / self.weight

    def answered(self, first_s: float, now: float) -> None:
        """Learn a time to a first part: a worse one at once, a better one by and by."""
        if self.limit is not None:
            self.limit.answered(first_s, self.under_way)
        known = self.expected_s(now)
        first_s = first_s if first_s > known else 0.7 * known + 0.3 * first_s
        self._learn(first_s, 0.0, now)

    def failed(self, after_s: float, now: float) -> None:
        """Learn a failure; the time it took counts where it was long."""
        self._learn(max(after_s, self.expected_s(now)), 1.0, now)

    def left(self, after_s: float, now: float) -> None:
        """Learn that nothing had come by the time somebody gave up waiting."""
        if after_s > self.expected_s(now):
            self._first_s, self._illness = after_s, self._illness * self._fade(now)
            self._measured = now

    def _learn(self, first_s: float, failure: float, now: float) -> None:
        self._illness = 0.9 * self._illness * self._fade(now) + 0.1 * failure
        self._first_s = first_s
        self._measured = now

    def _fade(self, now: float) -> float:
        return math.exp((self._measured - now) / _FADE_S)


class BalancedProvider:
    """One model on several servers; satisfies `Provider`."""

    def __init__(
        self,
        members: Sequence[Member],
        *,
        tick: Tick,
        wall: Callable[[], float],
        draw: Callable[[], float],
        balance: Balance = "latency",
        homes: Homes | None = None,
        model: str = "",
    ) -> None:
        self._model = model
        self._watch: Watch | None = None
        self._members = members
        self._tick = tick
        self._wall = wall
        self._draw = draw
        self._balance = balance
        self._homes = homes

    async def call(self, call: ProviderCall) -> AsyncGenerator[Part, None]:
        """Yield the parts of one reply; see `Provider.call`."""
        began = self._tick()
        asked = call.asked if call.asked is not None else set()
        home = self._homes.of(call, began) if self._homes is not None else None
        member = self.choose(began, asked, home)
        asked.add(member.name)
        ticket = member.breaker.admit(began) or member.breaker.force()
        counting = Counting(member.breaker, ticket, self._tick)
        is_first = True
        member.under_way += 1
        try:
            async with aclosing(member.provider.call(call)) as parts:
                async for part in parts:
                    counting.goes_on()
                    if is_first:
                        is_first = False
                        now = self._tick()
                        member.answered(now - began, now)
                        if self._homes is not None:
                            self._homes.note(call, member.name, now)
                    yield part
            counting.ended()
        except ProviderError as exc:
            counting.failed(exc)
            self._learn(member, exc, began)
            exc.has_alternative = any(
                each.name not in asked and each.is_well(self._tick()) for each in self._members
            )
            raise
        except (asyncio.CancelledError, GeneratorExit):
            if is_first:
                now = self._tick()
                member.left(now - began, now)
            raise
        finally:
            counting.close()
            member.under_way -= 1

    def choose(self, now: float, asked: set[str], home: str | None = None) -> Member:
        """Return the deployment to ask: one that is well and was not asked, where there is one.

        Among those, `home` is asked unless its wait is much the longest. Raises
        CircuitOpen where all are known to be down, ModelLimited where none has room.
        """
        able = [member for member in self._members if not (member.is_down or member.is_full)]
        if not able:
            raise self._none_able()
        well = [member for member in able if member.is_well(now)]
        fresh = [member for member in well if member.name not in asked]
        if not well:
            return min(able, key=lambda member: member.load(now))
        drawn = self._draw_one(fresh or well, now)
        for member in fresh:
            if member.name == home and member.wait_s(now) <= drawn.wait_s(now) + _PATIENCE_S:
                return member
        return drawn

    @property
    def members(self) -> Sequence[Member]:
        """Return the deployments."""
        return self._members

    def watch_with(self, watch: Watch) -> None:
        """Let the deployments' health be watched, until this is closed."""
        self._watch = watch

    def begin(self) -> None:
        """Begin to watch, where somebody is to."""
        if self._watch is not None:
            self._watch.begin()

    async def aclose(self) -> None:
        """Release the connections of all."""
        if self._watch is not None:
            await self._watch.aclose()
        await asyncio.gather(*(member.provider.aclose() for member in self._members))

    def _none_able(self) -> ProviderError:
        if all(member.is_down for member in self._members):
            message = f"model {self._model}: not asked, since its health checks fail"
            return CircuitOpen(message, retry_after="1")
        return ModelLimited(
            f"model {self._model}: has as many calls as its latency allows "
            "(adaptive_concurrency); try again shortly",
            retry_after="1",
        )

    def _draw_one(self, members: Sequence[Member], now: float) -> Member:
        first = self._by_weight(members)
        others = [member for member in members if member is not first]
        if self._balance == "weight" or not others:
            return first
        return min(first, self._by_weight(others), key=lambda member: member.load(now))

    def _by_weight(self, members: Sequence[Member]) -> Member:
        point = self._draw() * sum(member.weight for member in members)
        for member in members:
            point -= member.weight
            if point < 0:
                return member
        return members[-1]

    def _learn(self, member: Member, exc: ProviderError, began: float) -> None:
        """Let a deployment that is over its rate rest."""
        now = self._tick()
        if member.limit is not None and isinstance(exc, _OVERLOAD):
            member.limit.overloaded()
        if isinstance(exc, ProviderRateLimited):
            rest_s = seconds_in(exc.retry_after, self._wall()) or _REST_S
            member.rests_until = now + min(rest_s, _LONGEST_REST_S)
        elif is_upstreams_fault(exc):
            member.failed(now - began, now)
