"""Calls through a breaker: refused while it is open, counted by how they end."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

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
        try:
            async with aclosing(counted(breaker, ticket, parts, self.tick)) as answer:
                async for part in answer:
                    yield part
        finally:
            self._tell(model, breaker.state)

    def _tell(self, model: str, state: State) -> None:
        """Say once that a breaker has opened, and once that it has closed."""
        if state != "half_open" and state != self._known.get(model, "closed"):
            self._known[model] = state
            if self.told is not None:
                self.told(model, state)


async def counted(
    breaker: Breaker, ticket: Ticket, parts: AsyncGenerator[Part, None], tick: Tick
) -> AsyncGenerator[Part, None]:
    """Yield a call's parts and tell the breaker how it ended; one cut off by us tells nothing."""
    began, is_first, is_slow = tick(), True, False
    slow_s = breaker.rules.slow
    try:
        async with aclosing(parts):
            async for part in parts:
                if is_first:
                    is_first = False
                    is_slow = slow_s is not None and tick() - began > slow_s
                    if not is_slow:
                        breaker.answered(ticket)
                yield part
    except ProviderError as exc:
        if is_upstreams_fault(exc):
            breaker.fail(ticket, tick())
        raise
    else:
        (breaker.fail if is_slow else breaker.succeed)(ticket, tick())
    finally:
        breaker.drop(ticket)


def _open(model: str, wait_s: float) -> CircuitOpen:
    return CircuitOpen(
        f"model {model}: not asked, since it has failed too often of late",
        retry_after=str(max(1, math.ceil(wait_s))),
    )
