from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from gateway.attempt import Attempt
from gateway.clock import Clock
from gateway.errors import ProviderTimeout, ProviderUnavailable
from gateway.resilience.hedge import Runner, race
from gateway.wire import Part

PART, MORE = Part(b"1", text="one"), Part(b"2", text="two")
AT_ONCE, LATER = 0.001, 3600.0


class Call:
    """A call that answers, fails or stands still as it is told."""

    def __init__(self, name: str) -> None:
        self.attempt = Attempt(name, "serve", "tier", Clock())
        self.go = asyncio.Event()
        self.error: Exception | None = None
        self.is_closed = False
        self.runner = Runner(self.attempt, self._parts())

    async def _parts(self) -> AsyncGenerator[Part, None]:
        try:
            await self.go.wait()
            if self.error is not None:
                raise self.error
            yield PART
            yield MORE
        finally:
            self.is_closed = True

    def answer(self) -> None:
        self.go.set()

    def fail(self, error: Exception) -> None:
        self.error = error
        self.go.set()


async def _all(runner: Runner) -> list[Part]:
    return [part async for part in runner.parts()]


async def test_a_lead_that_begins_in_time_has_no_rival() -> None:
    lead = Call("lead")
    lead.answer()

    def rival() -> Runner | None:
        raise AssertionError("nobody was slow")

    assert await _all(await race(lead.runner, LATER, rival)) == [PART, MORE]
    assert not lead.attempt.is_outrun


async def test_a_rival_that_begins_first_wins_and_the_lead_is_ended() -> None:
    lead, other = Call("lead"), Call("other")
    lead.attempt.has_been_served = True
    other.answer()

    winner = await race(lead.runner, AT_ONCE, lambda: other.runner)

    assert winner is other.runner
    assert lead.is_closed
    assert lead.attempt.is_outrun
    assert not lead.attempt.has_been_served
    assert await _all(winner) == [PART, MORE]


async def test_the_lead_may_still_win_after_a_rival_was_asked() -> None:
    lead, other = Call("lead"), Call("other")

    def rival() -> Runner:
        lead.answer()
        return other.runner

    assert await race(lead.runner, AT_ONCE, rival) is lead.runner
    await lead.runner.stop()
    assert other.is_closed


async def test_where_the_budget_has_no_rival_the_lead_is_waited_for() -> None:
    lead = Call("lead")

    def rival() -> None:
        lead.answer()

    assert await race(lead.runner, AT_ONCE, rival) is lead.runner
    await lead.runner.stop()


async def test_a_lead_that_fails_leaves_the_answer_to_its_rival() -> None:
    lead, other = Call("lead"), Call("other")

    def rival() -> Runner:
        lead.fail(ProviderUnavailable("down"))
        asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, other.answer)
        return other.runner

    assert await race(lead.runner, AT_ONCE, rival) is other.runner
    await other.runner.stop()
    assert lead.attempt.error == "unavailable"
    assert not lead.attempt.is_outrun


async def test_when_both_fail_the_lead_says_why() -> None:
    lead, other = Call("lead"), Call("other")

    def rival() -> Runner:
        other.fail(ProviderTimeout("slow"))
        lead.fail(ProviderUnavailable("down"))
        return other.runner

    with pytest.raises(ProviderUnavailable, match="down"):
        await race(lead.runner, AT_ONCE, rival)
    assert [c.attempt.error for c in (lead, other)] == ["unavailable", "timeout"]


async def test_who_leaves_ends_both() -> None:
    lead, other = Call("lead"), Call("other")
    has_rival = asyncio.Event()

    def rival() -> Runner:
        has_rival.set()
        return other.runner

    racing = asyncio.create_task(race(lead.runner, AT_ONCE, rival))
    await has_rival.wait()
    racing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await racing

    assert lead.is_closed
    assert not lead.attempt.is_outrun
    assert other.attempt.error is None
