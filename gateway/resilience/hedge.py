"""Ask once more when the first token is slow, and take whichever answer begins first.

After Dean and Barroso, "The Tail at Scale" (2013): a second call only after
most first calls would have begun, so that few are made and the tail is cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from gateway.attempt import Attempt
from gateway.errors import ProviderError
from gateway.wire import Part


async def opening(parts: AsyncGenerator[Part, None]) -> list[Part]:
    """Return the first part, and the second too where the first is a role and nothing more.

    Engines send a role before they have read the prompt: a failure in between
    need not be the client's.
    """
    first = await anext(parts, None)
    if first is None:
        return []
    if first.text or first.tool_calls or first.finish_reason or first.usage:
        return [first]
    second = await anext(parts, None)
    return [first] if second is None else [first, second]


class Runner:
    """One call under way, whose opening is awaited from the start."""

    def __init__(self, attempt: Attempt, parts: AsyncGenerator[Part, None]) -> None:
        self.attempt = attempt
        self.first = asyncio.create_task(opening(parts))
        self._parts = parts

    async def parts(self) -> AsyncGenerator[Part, None]:
        """Yield all parts, those awaited first."""
        async with aclosing(self._parts) as parts:
            for part in await self.first:
                yield part
            async for part in parts:
                yield part

    async def stop(self) -> None:
        """End the call behind it."""
        self.first.cancel()
        await asyncio.wait((self.first,))
        if not self.first.cancelled():
            self.first.exception()  # seen by now, or of no interest any more
        await self._parts.aclose()


async def race(lead: Runner, after_s: float, rival: Callable[[], Runner | None]) -> Runner:
    """Return whose answer began first; the other one is ended.

    A `rival` is asked for once the lead has been silent for `after_s` seconds.
    Raises the lead's ProviderError where nobody began.
    """
    runners = [lead]
    winner: Runner | None = None
    try:
        await asyncio.wait((lead.first,), timeout=after_s)
        if not lead.first.done() and (other := rival()) is not None:
            runners.append(other)
        winner = await _first_to_begin(runners)
        return winner
    finally:
        for runner in runners:
            if runner is not winner:
                await runner.stop()
                if winner is not None:
                    runner.attempt.lose()


async def _first_to_begin(runners: list[Runner]) -> Runner:
    left = list(runners)
    while True:
        await asyncio.wait([each.first for each in left], return_when=asyncio.FIRST_COMPLETED)
        runner = next(each for each in left if each.first.done())
        exc = runner.first.exception()
        if exc is None:
            return runner
        left.remove(runner)
        if not isinstance(exc, ProviderError):
            raise exc
        runner.attempt.fail(exc)
        if not left:
            raise runners[0].attempt.failure or exc
