"""Turn requests away while the event loop lags, those of the lowest priority first.

What counts is the lag that stood for a while, the least of several looks: a
moment's work is no overload (after CoDel; Nichols and Jacobson 2012).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from gateway.errors import Overloaded
from policies.limits import Priority, ShedRules

LOOK_EVERY_S = 0.05
LOOKS = 4
_TIMES: dict[Priority, float] = {"low": 1.0, "normal": 2.0, "high": 4.0}
"""Of the lag that the policy names, by priority."""


class Shedding:
    """Who is turned away at the present lag; pure."""

    def __init__(self, rules: ShedRules) -> None:
        self._least = {priority: rules.lag * times for priority, times in _TIMES.items()}
        self._looks: deque[float] = deque(maxlen=LOOKS)
        self._standing_s = 0.0

    @property
    def standing_s(self) -> float:
        """Return the lag that has stood for a while, in seconds."""
        return self._standing_s

    def saw(self, lag_s: float) -> None:
        """Learn how late the loop was just now."""
        self._looks.append(lag_s)
        self._standing_s = min(self._looks) if len(self._looks) == LOOKS else 0.0

    def turns_away(self, priority: Priority) -> bool:
        """Return whether requests of a priority are not taken."""
        return self._standing_s >= self._least[priority]

    def check(self, priority: Priority) -> None:
        """Raise Overloaded for a request that is not taken."""
        if self._standing_s and self.turns_away(priority):
            raise Overloaded(
                f"the gateway is overloaded, and takes no requests of priority {priority} "
                "just now; try again shortly",
                retry_after="1",
            )


@asynccontextmanager
async def shedding_of(rules: ShedRules | None) -> AsyncIterator[Shedding | None]:
    """Yield who sheds load, watching the loop; None where the policy sheds none."""
    if rules is None:
        yield None
        return
    shedding = Shedding(rules)
    task = asyncio.create_task(_watch(shedding.saw))
    try:
        yield shedding
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _watch(saw: Callable[[float], None]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LOOK_EVERY_S
        await asyncio.sleep(LOOK_EVERY_S)
        saw(max(0.0, loop.time() - due))
