"""Which deadline holds in an exchange, and what is said once it has passed."""

from __future__ import annotations

from gateway.errors import ProviderTimeout
from gateway.upstream.types import ENDING_S, Deadlines


class Timed:
    """An exchange as its deadlines see it: begun, started, ending."""

    __slots__ = ("_began", "_limits", "has_started", "is_ending", "label")

    def __init__(self, label: str, limits: Deadlines, began: float) -> None:
        self.label = label
        self.has_started = False
        self.is_ending = False
        self._limits = limits
        self._began = began

    def deadline(self, now: float) -> float:
        """Return when a wait that starts now must end."""
        limits, began = self._limits, self._began
        if self.is_ending:
            at = now + ENDING_S
        elif self.has_started:
            at = now + limits.idle_s
        else:
            at = began + limits.first_byte_s
        return min(at, began + limits.total_s)

    def passed(self, now: float) -> ProviderTimeout:
        """Return the error of the deadline that has passed."""
        limits = self._limits
        if now >= self._began + limits.total_s:
            what = f"was not done within {limits.total_s:g} s (timeouts.total)"
        elif self.has_started:
            what = f"sent nothing for {limits.idle_s:g} s (timeouts.idle)"
        else:
            what = (
                f"did not begin to answer within {limits.first_byte_s:g} s (timeouts.first_token)"
            )
        return ProviderTimeout(f"{self.label} {what}")
