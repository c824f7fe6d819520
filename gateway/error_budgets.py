"""Who finds out that the semantic cache has spent an error budget, so that somebody is told.

Audits are counted where the cache stands, which may be another process: so this looks from
time to time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

from cache.semantic.decision_budget import ErrorBudget
from cache.types import StoreFailed

LOOK_EVERY_S = 30.0
_log = logging.getLogger(__name__)

Tell = Callable[[str, str, ErrorBudget], None]
"""Hears route, tenant and error budget of one that stopped, or serves again."""
Read = Callable[[], Awaitable[Iterable[tuple[str, str, ErrorBudget]]]]
"""Returns tenant, route and error budget of all that were audited. Raises StoreFailed."""


class ErrorBudgets:
    """Decides which budgets are news. How they stand at the first look is none: they are kept."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._known: dict[tuple[str, str], tuple[bool, int]] | None = None

    def look(self, budgets: Iterable[tuple[str, str, ErrorBudget]]) -> None:
        """Compare tenants, routes and their budgets with those of the look before."""
        now = {(route, tenant): budget for tenant, route, budget in budgets}
        if self._known is not None:
            for place, budget in now.items():
                if self._known.get(place, (True, 0)) != (budget.is_serving, budget.stops):
                    self._tell(*place, budget)
        self._known = {place: (each.is_serving, each.stops) for place, each in now.items()}


@asynccontextmanager
async def watched(
    read: Read, tell: Tell, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> AsyncIterator[None]:
    """Look while the block is entered; what cannot be read just now is looked at later."""
    task = asyncio.create_task(_watch(read, ErrorBudgets(tell), sleep))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _watch(
    read: Read, budgets: ErrorBudgets, sleep: Callable[[float], Awaitable[None]]
) -> None:
    while True:
        try:
            budgets.look(await read())
        except StoreFailed as exc:
            _log.warning("error budgets cannot be read just now: %s", exc)
        await sleep(LOOK_EVERY_S)
