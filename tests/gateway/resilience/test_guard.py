from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from gateway.errors import (
    CircuitOpen,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from gateway.resilience.guard import Breakers
from gateway.wire import Part
from policies.resilience import BreakerRules

RULES = BreakerRules(consecutive=1, open_for=5.0, slow=2.0)
PART = Part(b"{}")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def tick(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breakers(clock: Clock) -> Breakers:
    return Breakers(clock.tick)


async def _call(
    clock: Clock, *, takes_s: float = 0.0, fails: ProviderError | None = None
) -> AsyncGenerator[Part, None]:
    clock.now += takes_s
    if fails is not None:
        raise fails
    yield PART
    yield PART


async def _parts(parts: AsyncGenerator[Part, None]) -> list[Part]:
    return [part async for part in parts]


@pytest.mark.parametrize(
    ("exc", "state"),
    [
        (ProviderUnavailable("x"), "open"),
        (ProviderTimeout("x"), "open"),
        (ProviderRejected("x", status=400), "closed"),
        (ProviderRateLimited("x"), "closed"),
        (ProviderError("x", code="upstream_credentials"), "closed"),
    ],
)
async def test_only_an_ill_upstream_opens_the_breaker(
    clock: Clock, breakers: Breakers, exc: ProviderError, state: str
) -> None:
    with pytest.raises(type(exc)):
        await _parts(breakers.guard("m", RULES, _call(clock, fails=exc)))

    assert breakers.of("m", RULES).state == state


async def test_an_open_breaker_makes_no_call_and_says_how_long(
    clock: Clock, breakers: Breakers
) -> None:
    with pytest.raises(ProviderUnavailable):
        await _parts(breakers.guard("m", RULES, _call(clock, fails=ProviderUnavailable("x"))))
    clock.now = 1.5

    with pytest.raises(CircuitOpen) as caught:
        await _parts(breakers.guard("m", RULES, _call(clock, takes_s=100.0)))
    assert clock.now == 1.5
    assert caught.value.retry_after == "4"
    assert (caught.value.word, caught.value.status) == ("circuit_open", 503)


async def test_a_reply_that_begins_late_counts_as_a_failure_and_is_served(
    clock: Clock, breakers: Breakers
) -> None:
    assert await _parts(breakers.guard("m", RULES, _call(clock, takes_s=2.5))) == [PART, PART]

    assert breakers.of("m", RULES).state == "open"


async def test_a_reply_that_is_left_counts_as_nothing_and_frees_the_probe(
    clock: Clock, breakers: Breakers
) -> None:
    with pytest.raises(ProviderUnavailable):
        await _parts(breakers.guard("m", RULES, _call(clock, fails=ProviderUnavailable("x"))))
    clock.now = 5.0
    reached = asyncio.Event()

    async def silent() -> AsyncGenerator[Part, None]:
        reached.set()
        await asyncio.Event().wait()
        yield PART

    probing = asyncio.create_task(_parts(breakers.guard("m", RULES, silent())))
    await reached.wait()
    with pytest.raises(CircuitOpen):
        await _parts(breakers.guard("m", RULES, _call(clock)))
    probing.cancel()
    await asyncio.wait((probing,))

    assert await _parts(breakers.guard("m", RULES, _call(clock))) == [PART, PART]
    assert breakers.of("m", RULES).state == "closed"


async def test_routes_with_equal_rules_share_a_models_breaker(breakers: Breakers) -> None:
    assert breakers.of("m", RULES) is breakers.of("m", RULES.model_copy())
    assert breakers.of("m", RULES) is not breakers.of("other", RULES)
    assert breakers.of("m", RULES) is not breakers.of("m", BreakerRules())
