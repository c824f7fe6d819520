"""What kind of answer is asked for: a reason never serves for a place."""

from __future__ import annotations

import re
from functools import lru_cache

from cache.semantic.guards.words import Text

_AUX = (
    "is|are|was|were|will|would|do|does|did|can|could|should|has|have|may|might|shall|am|to|exactly"
)
_KINDS = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("reason", r"\bwhy\b|\bhow come\b|\bwhat (?:is|was) the reason\b|\bwhat caused\b"),
        ("time", rf"\bwhen (?:{_AUX})\b|\bwhat (?:time|date|day|year)\b|\bhow soon\b|\bwhen$"),
        (
            "place",
            rf"\bwhere (?:{_AUX})\b(?!.*\bfrom\b)|\bwhere$|\bwhereabouts\b|\bat which location\b",
        ),
        ("person", rf"\bwho (?:{_AUX}|\w+ed|\w+s)\b|\bwhose\b|\bby whom\b"),
        (
            "number",
            r"\bhow many\b(?! (?:second|minute|hour|day|week|month|year|time)s?\b)"
            r"|\bwhat (?:is )?the number of\b",
        ),
        ("often", r"\bhow (?:often|frequently)\b"),
        ("far", r"\bhow far\b"),
        ("old", r"\bhow old\b"),
        ("tall", r"\bhow (?:tall|high|big|large|heavy|deep|wide)\b"),
    )
)
# Kinds that a paraphrase may exchange.
_EXCHANGED = frozenset((frozenset(("time", "often")), frozenset(("place", "far"))))


def refuse(asked: Text, stored: Text) -> str | None:
    """Return the two kinds of answers asked for where they cannot be one, or None."""
    ours, theirs = kind(asked), kind(stored)
    if ours == theirs or not ours or not theirs or frozenset((ours, theirs)) in _EXCHANGED:
        return None
    return f"question: {ours} / {theirs}"


@lru_cache(maxsize=4096)
def kind(text: Text) -> str:
    """Return the kind of answer that a question asks for first, or nothing."""
    words = " ".join(text.words)
    found = [(match.start(), name) for name, pattern in _KINDS if (match := pattern.search(words))]
    return min(found)[1] if found else ""
