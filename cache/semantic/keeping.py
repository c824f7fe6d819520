"""For how long an answer is kept, and how many a tenant may have kept."""

from __future__ import annotations

import re
from collections import Counter

_MINUTE_S = 60.0
# What is true for hours or days. Questions about this very moment are never kept at all.
_CHANGING = re.compile(
    r"\b(prices?|pricing|costs?|fees?|rates?|tariffs?|how much (is|are|does|do|would|will)"
    r"|(opening|business|office|working) (hours|times?)|what time|when (do|does|is|are|will)"
    r"|schedules?|timetables?|departures?|arrivals?|availab(le|ility)|in stock|sold out"
    r"|discounts?|offers?|promotions?|deals?|vouchers?|versions?|releases?d?|changelog|deadlines?"
    r"|scores?|standings?|rankings?|status|outages?|waiting times?|queues?|capacity"
    r"|who (is|are) the|who('s| is) (in charge|running|leading)"
    r"|preise?|kosten|gebühr(en)?|öffnungszeiten|verfügbar\w*|prix|tarifs?|horaires?|disponib\w*"
    r"|precios?|horarios?|prezz[io]|orari[o]?|preços?)\b",
    re.IGNORECASE,
)


def is_changing(question: str) -> bool:
    """Return whether an answer is likely to be another one soon: prices, hours, versions, posts."""
    return _CHANGING.search(question) is not None


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
