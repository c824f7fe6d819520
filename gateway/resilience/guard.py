"""Calls through a breaker: refused while it is open, counted by how they end."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable

from gateway.errors import (
    CircuitOpen,
    ProviderError,
    ProviderProtocolError,
    ProviderTimeout,
    ProviderUnavailable,
)
from gateway.resilience.breaker import Breaker, State, Ticket
from gateway.wire import Part
from policies.resilience import BreakerRules

Tick = Callable[[], float]
News = Callable[[str, str], None]
"""Hears a model's name, and the state that its breaker has come to."""
_WORSE: tuple[State, ...] = ("closed", "half_open", "open")
_THEIR_FAULT = (ProviderTimeout, ProviderUnavailable, ProviderProtocolError)


def is_upstreams_fault(exc: ProviderError) -> bool:
    """Return whether a failure says that the upstream is ill.

    A refusal (4xx) says something of the request, of our credentials or of our
    rate; an open circuit says nothing that is not known already.
    """
    return isinstance(exc, _THEIR_FAULT) and not isinstance(exc, CircuitOpen)


class Breakers:
    """The breakers of one process, by model; they outlive a reload of the policy.

    Routes with equal rules share a model's breaker.
    """

    def __init__(self, tick: Tick) -> None:
        self.tick = tick
        self.told: News | None = None
        self._known: dict[str, State] = {}
        self._breakers: dict[tuple[str, BreakerRules], Breaker] = {}

    def of(self, model: str, rules: BreakerRules) -> Breaker:
        """Return the breaker of a model under some rules."""
        key = (model, rules)
        if (found := self._breakers.get(key)) is None:
            found = self._breakers[key] = Breaker(rules)
        return found

    def states(self) -> dict[str, State]:
        """Return the worst state that each model's breakers are in."""
        worst: dict[str, State] = {}
        for (model, _), breaker in self._breakers.items():
            worst[model] = max(worst.get(model, "closed"), breaker.state, key=_WORSE.index)
        return worst

    def guard(
        self, model: str, rules: BreakerRules, parts: AsyncGenerator[Part, None]
    ) -> AsyncGenerator[Part, None]:
        """Yield a call's parts, or raise CircuitOpen before it is made."""
        return self._through(self.of(model, rules), model, parts)

    async def _through(
        self, breaker: Breaker, model: str, parts: AsyncGenerator[Part, None]
    ) -> AsyncGenerator[Part, None]:
        ticket = breaker.admit(self.tick())
        if ticket is None:
            raise _open(model, breaker.wait_s(self.tick()))
        call = Counting(breaker, ticket, self.tick)
        try:
            try:
                async for part in parts:
                    call.goes_on()
                    yield part
            finally:
                await parts.aclose()
            call.ended()
        except ProviderError as exc:
            call.failed(exc)
            raise
        finally:
            call.close()
            self._tell(model, breaker.state)

    def _tell(self, model: str, state: State) -> None:
        """Say once that a breaker has opened, and once that it has closed."""
        if state != "half_open" and state != self._known.get(model, "closed"):
            self._known[model] = state
            if self.told is not None:
                self.told(model, state)


class Counting:
    """One call as its breaker sees it; one that is cut off by us tells it nothing."""

    __slots__ = ("_began", "_breaker", "_has_begun", "_is_slow", "_tick", "_ticket")

    def __init__(self, breaker: Breaker, ticket: Ticket, tick: Tick) -> None:
        self._breaker = breaker
        self._ticket = ticket
        self._tick = tick
        self._began = tick()
        self._has_begun = self._is_slow = False

    def goes_on(self) -> None:
        """Take note of a part: the first says whether the answer was slow to begin."""
        if self._has_begun:
            return
        self._has_begun = True
        slow_s = self._breaker.rules.slow
        self._is_slow = slow_s is not None and self._tick() - self._began > slow_s
        if not self._is_slow:
            self._breaker.answered(self._ticket)

    def ended(self) -> None:
        """Count a call that ended well, if it did not begin too late."""
        count = self._breaker.fail if self._is_slow else self._breaker.succeed
        count(self._ticket, self._tick())

    def failed(self, exc: ProviderError) -> None:
        """Count a failure, if it was the upstream's."""
        if is_upstreams_fault(exc):
            self._breaker.fail(self._ticket, self._tick())

    def close(self) -> None:
        """Give the ticket back, however the call ended."""
        self._breaker.drop(self._ticket)


def _open(model: str, wait_s: float) -> CircuitOpen:
    return CircuitOpen(
        f"model {model}: not asked, since it has failed too often of late",
        retry_after=str(max(1, math.ceil(wait_s))),
    )
