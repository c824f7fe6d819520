"""Which answers are kept for other words, and for how long."""

from __future__ import annotations

import re

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

# What stands for one person, order or moment. Guards let such a question answer only those
# that hold the same, and who asks the same again asks in the same words: the exact cache's.
_ONE_OF_A_KIND = re.compile(
    r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"  # a UUID
    r"|\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{16,}\b"  # a digest
    r"|(?<![\w.,])\+?\d(?:[ -]?\d){8,}(?![\w.,]\d)"  # an order, an account, a telephone
    r"|\b[\w.+-]+@[\w-]+\.\w+"  # an address
    r"|\b\d{1,2}:\d\d:\d\d\b",  # a second
    re.IGNORECASE,
)


def unworthy(question: str, worth: float, min_usd: float) -> str | None:
    """Return why an answer of that worth, in dollars, is not kept for other words, or None."""
    if worth < min_usd:
        return "too cheap to keep"
    return "one of a kind" if _ONE_OF_A_KIND.search(question) is not None else None


def is_changing(question: str) -> bool:
    """Return whether an answer is likely to be another one soon: prices, hours, versions, posts."""
    return _CHANGING.search(question) is not None
