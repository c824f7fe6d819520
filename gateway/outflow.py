"""Whether a client reads what it is sent, told from what is left to send."""

from __future__ import annotations

import math

LEAST_READ = 32 * 1024
"""Bytes that a client has to take in its time, if it does not take all that there is."""


class Outflow:
    """What waits to be sent on one connection, as it is looked at now and then.

    A client is stuck that has taken neither all nor `LEAST_READ` bytes for `within_s`
    seconds. So a trickle ends, too: an answer of n bytes is held for at most
    `within_s` x (n / LEAST_READ + 1).
    """

    __slots__ = ("_since", "_waiting", "_within_s")

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._waiting = 0
        self._since = math.inf

    def went_on(self) -> None:
        """Learn that so much was taken that the writer, who had to wait, may go on."""
        self._since = math.inf

    def is_stuck(self, waiting: int, now: float) -> bool:
        """Return whether the client has stopped reading; `waiting` bytes are left to send."""
        if not waiting:
            self._since = math.inf
        elif self._since == math.inf or waiting <= self._waiting - LEAST_READ:
            self._since, self._waiting = now, waiting
        return now - self._since >= self._within_s
