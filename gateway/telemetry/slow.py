"""What takes longer to find out than a scrape should: looked up from time to time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.reporting.budgets import Standing, standing
from gateway.reporting.quality import Bundled, certificates
from gateway.reporting.reserved import reserved
from gateway.reporting.shapes import Certificate
from gateway.reporting.window import day_of

if TYPE_CHECKING:
    from gateway.app import Running

FRESH_S = 30.0


@dataclass(frozen=True, slots=True)
class Slow:
    """Every budget, fullest first, and each route's certificate."""

    budgets: Sequence[Standing]
    certificates: Mapping[str, Certificate]


def look_up(running: Running, bundled: Bundled) -> Slow:
    """Return how budgets and certificates stand now. Raises LedgerError."""
    url, policy, now_s = running.ledger_url, running.policy, running.wall()
    shared = policy.storage.limits
    held = reserved(running.limits, shared, workers=running.workers, now_s=now_s)
    return Slow(
        standing(url, policy, running.keys.callers(), now_s=now_s, held=held),
        certificates(url, policy, bundled, today=day_of(now_s)),
    )


class Fresh:
    """Keeps what was found for a while; several threads that ask at once look once."""

    def __init__(self, look: Callable[[], Slow], tick: Callable[[], float]) -> None:
        self._look = look
        self._tick = tick
        self._lock = threading.Lock()
        self._kept: tuple[float, Slow] | None = None

    def __call__(self) -> Slow:
        """Return what was found at most `FRESH_S` ago. Raises LedgerError."""
        with self._lock:
            if self._kept is None or self._tick() - self._kept[0] >= FRESH_S:
                self._kept = self._tick(), self._look()
            return self._kept[1]
