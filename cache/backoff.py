"""How long to leave a service alone that has failed."""

from __future__ import annotations


class Backoff:
    """Waits that double, from `first_s` to `most_s`, until the service has been steady.

    One that comes back only to fail again is not steady: its waits go on growing.
    """

    def __init__(
        self, first_s: float = 0.025, most_s: float = 5.0, *, steady_after_s: float = 10.0
    ) -> None:
        self.first_s = first_s
        self.most_s = most_s
        self.steady_after_s = steady_after_s
        self._failures = 0

    def wait_after(self, up_for_s: float) -> float:
        """Return how long to wait after a failure that ended so many seconds of service."""
        if up_for_s >= self.steady_after_s:
            self._failures = 0
        wait = min(self.most_s, self.first_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return wait
