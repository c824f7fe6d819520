"""How many answers a tenant may have kept, so that nobody fills what others share."""

from __future__ import annotations

from collections import Counter

_MINUTE_S = 60.0


class WriteQuota:
    """How many answers each tenant has had kept in the present minute."""

    def __init__(self) -> None:
        self._minute = -1
        self._written: Counter[str] = Counter()

    def takes(self, tenant: str, most: int, now: float) -> bool:
        """Count one more, unless the minute's `most` are reached; `now` is in seconds."""
        minute = int(now // _MINUTE_S)
        if minute != self._minute:
            self._minute = minute
            self._written.clear()
        if self._written[tenant] >= most:
            return False
        self._written[tenant] += 1
        return True
