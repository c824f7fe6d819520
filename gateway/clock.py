"""Where time comes from."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Where time comes from: `wall` in seconds since the epoch, `tick` monotonic seconds."""

    wall: Callable[[], float] = time.time
    tick: Callable[[], float] = time.perf_counter
