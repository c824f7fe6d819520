"""All guards in a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from cache.semantic.guards import (
    identifiers,
    language,
    names,
    order,
    polarity,
    quantities,
    questions,
    substitution,
)
from cache.semantic.guards.dates import dated
from cache.semantic.guards.dates import refuse as refuse_dates
from cache.semantic.guards.words import Text, is_reworded, read

Check = Callable[[Text, Text], str | None]


def _dates(asked: Text, stored: Text) -> str | None:
    return refuse_dates(dated(asked.lower), dated(stored.lower), is_reworded(asked, stored))


def _quantities(asked: Text, stored: Text) -> str | None:
    ours, theirs = dated(asked.lower).rest, dated(stored.lower).rest
    return quantities.refuse(ours, theirs, is_reworded(asked, stored))


AXES: Mapping[str, Check] = MappingProxyType({
    "numbers": _quantities,
    "dates": _dates,
    "identifiers": identifiers.refuse,
    "names": names.refuse,
    "polarity": polarity.refuse,
    "direction": order.refuse,
    "question": questions.refuse,
    "language": language.refuse,
    "substitution": substitution.refuse,
})  # fmt: skip
"""What is compared, in the order of trying."""


class AxisGuards:
    """Refuses a stored question that differs from the asked one on any axis."""

    def __init__(self, axes: Mapping[str, Check] = AXES) -> None:
        self._axes = tuple(axes.values())

    def refuse(self, asked: str, stored: str) -> str | None:
        """Return why the stored question must not answer the asked one, or None."""
        ours, theirs = read(asked), read(stored)
        if ours.words == theirs.words and ours.raw.casefold() == theirs.raw.casefold():
            return None
        for check in self._axes:
            reason = check(ours, theirs)
            if reason is not None:
                return reason
        return None


def differs_softly(asked: Text, stored: Text) -> bool:
    """Whether one question mentions a quantity, a date or a denial that the other does not.

    Between reworded questions that refuses nothing, but it makes a hit less sure.
    """
    ours, theirs = dated(asked.lower), dated(stored.lower)
    return bool(
        refuse_dates(ours, theirs, False)
        or quantities.refuse(ours.rest, theirs.rest, False)
        or polarity.negations(asked) % 2 != polarity.negations(stored) % 2
    )
