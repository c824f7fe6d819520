"""A circuit breaker as a pure state machine; the time is always an argument.

```
closed ──(too many failures)──► open ──(time is up: one probe)──► half-open
  ▲                              ▲                                 │     │
  └──────────────────────────────┼──────(the probe answers)────────┼─────┘
                                 └──────(the probe fails)──────────┘
```

Who wants to call asks for a ticket and hands it back with what became of the
call. A ticket from before the breaker last changed says nothing about now, so
its result is ignored: a late failure neither prolongs nor shortens an opening.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from policies.resilience import BreakerRules

State = Literal["closed", "open", "half_open"]
SLOTS = 10
_LONGEST = 20.0


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to make one call; `era` tells which state of the breaker gave it."""

    era: int
    is_probe: bool = False
    is_forced: bool = False


class Window:
    """Calls and failures of the last `length_s` seconds, to a tenth of that."""

    __slots__ = ("_slot_s", "_slots", "calls", "failures")

    def __init__(self, length_s: float) -> None:
        self._slot_s = length_s / SLOTS
        self._slots: deque[list[int]] = deque()  # [slot number, calls, failures]
        self.calls = 0
        self.failures = 0

    def add(self, now: float, *, failed: bool) -> None:
        """Count one call."""
        self._forget(now)
        number = int(now / self._slot_s)
        if not self._slots or self._slots[-1][0] < number:
            self._slots.append([number, 0, 0])
        self._slots[-1][1] += 1
        self._slots[-1][2] += failed
        self.calls += 1
        self.failures += failed

    def clear(self) -> None:
        """Forget everything."""
        self._slots.clear()
        self.calls = self.failures = 0

    def _forget(self, now: float) -> None:
        oldest = int(now / self._slot_s) - SLOTS
        while self._slots and self._slots[0][0] <= oldest:
            _, calls, failures = self._slots.popleft()
            self.calls -= calls
            self.failures -= failures


class Breaker:
    """The state of one upstream.

    Each failed probe makes the next opening `growth` times as long, up to
    twenty times the first.
    """

    def __init__(self, rules: BreakerRules, *, growth: float = 1.0) -> None:
        self._rules = rules
        self._growth = growth
        self._window = Window(rules.window)
        self._state: State = "closed"
        self._era = 0
        self._in_a_row = 0
        self._open_until = 0.0
        self._open_for = rules.open_for
        self._has_probe = False
        self._ticket = Ticket(self._era)

    @property
    def rules(self) -> BreakerRules:
        """Return what it was made with."""
        return self._rules

    @property
    def state(self) -> State:
        """Return the state; one that is open stays so until somebody asks for a ticket."""
        return self._state

    def would_admit(self, now: float) -> bool:
        """Return whether `admit` would give a ticket."""
        if self._state == "open":
            return now >= self._open_until
        return self._state == "closed" or not self._has_probe

    def wait_s(self, now: float) -> float:
        """Return how long it stays open, in seconds."""
        return max(0.0, self._open_until - now) if self._state == "open" else 0.0

    def admit(self, now: float) -> Ticket | None:
        """Return the right to call, or None while open or while a probe is under way."""
        if self._state == "closed":
            return self._ticket
        if not self.would_admit(now):
            return None
        if self._state == "open":
            self._enter("half_open")
        self._has_probe = True
        return Ticket(self._era, is_probe=True)

    def force(self) -> Ticket:
        """Return the right to call whatever the state: there is nobody else to ask."""
        return Ticket(self._era, is_forced=True)

    def expect_probe(self, now: float) -> None:
        """Let one call through as a probe, and others once it has answered."""
        self._open_until = now
        self._enter("open")

    def answered(self, ticket: Ticket) -> None:
        """Take note that a reply has begun: for a probe, that is enough to close."""
        if ticket.era != self._era or self._state == "closed":
            return
        if ticket.is_probe or ticket.is_forced:
            self._open_for = self._rules.open_for
            self._enter("closed")

    def succeed(self, ticket: Ticket, now: float) -> None:
        """Count a call that ended well."""
        if self._state != "closed":
            self.answered(ticket)
        elif ticket.era == self._era:
            self._in_a_row = 0
            self._window.add(now, failed=False)

    def fail(self, ticket: Ticket, now: float) -> None:
        """Count a call that the upstream failed."""
        if ticket.era != self._era:
            return
        if self._state == "half_open" and ticket.is_probe:
            longest = self._rules.open_for * _LONGEST
            self._open_for = min(self._open_for * self._growth, longest)
            self._open(now)
        elif self._state == "closed":
            self._in_a_row += 1
            self._window.add(now, failed=True)
            if self._is_too_much():
                self._open(now)

    def drop(self, ticket: Ticket) -> None:
        """Give a ticket back that says nothing: the client left, or the request was at fault."""
        if ticket.is_probe and ticket.era == self._era:
            self._has_probe = False

    def _is_too_much(self) -> bool:
        rules, window = self._rules, self._window
        if self._in_a_row >= rules.consecutive:
            return True
        share = window.failures / window.calls
        return window.calls >= rules.min_calls and share >= rules.failures

    def _open(self, now: float) -> None:
        self._open_until = now + self._open_for
        self._enter("open")

    def _enter(self, state: State) -> None:
        self._state = state
        self._era += 1
        self._ticket = Ticket(self._era)
        self._has_probe = False
        self._in_a_row = 0
        self._window.clear()
