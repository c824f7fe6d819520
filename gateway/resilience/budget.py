"""One budget for all retries of a process, so that a brown-out is not answered with a flood."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

WINDOW_S = 10


class RetryBudget:
    """Over the last ten seconds, retries ≤ Σ share of each request + a floor per second.

    `share` and floor are the caller's: routes may differ, the count of retries
    is one. The window moves in whole seconds.
    """

    def __init__(self, tick: Callable[[], float]) -> None:
        self._tick = tick
        self._slots: deque[list[float]] = deque()  # [second, credit of requests, retries]
        self._credit = 0.0
        self._retries = 0.0

    def deposit(self, share: float) -> None:
        """Count one request, which earns this share of a retry."""
        self._slot()[1] += share
        self._credit += share

    def withdraw(self, per_second: float) -> bool:
        """Take one retry if there is one left; `per_second` is the floor."""
        slot = self._slot()
        if self._retries + 1 > self._credit + per_second * WINDOW_S + 1e-9:
            return False
        slot[2] += 1
        self._retries += 1
        return True

    def _slot(self) -> list[float]:
        second = int(self._tick())
        slots = self._slots
        while slots and slots[0][0] <= second - WINDOW_S:
            _, credit, retries = slots.popleft()
            self._credit = self._credit - credit if slots else 0.0
            self._retries -= retries
        if not slots or slots[-1][0] < second:
            slots.append([second, 0.0, 0])
        return slots[-1]
