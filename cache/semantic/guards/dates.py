"""Dates and times: `March 5` serves `5/3` nowhere and `Mar 5th` everywhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

_MONTHS = "january february march april may june july august september october november december"
_DAYS = "monday tuesday wednesday thursday friday saturday sunday"
_MONTH = {name: place for place, name in enumerate(_MONTHS.split(), start=1)}
_MONTH |= {name[:3]: place for name, place in _MONTH.items()} | {"sept": 9}
_DAY = {name: place for place, name in enumerate(_DAYS.split(), start=1)}
_DAY |= {"mon": 1, "tue": 2, "tues": 2, "wed": 3, "thu": 4, "thur": 4, "thurs": 4, "fri": 5}
_DAY |= {f"{name}s": place for name, place in _DAY.items() if len(name) > 5}
_CLEAR = "|".join(sorted((m for m in _MONTH if m not in ("may", "march", "mar")), key=len)[::-1])
_ANY_MONTH = "|".join(sorted(_MONTH, key=len, reverse=True))
_WEEKDAYS = "|".join(sorted(_DAY, key=len, reverse=True))
_NTH = r"(\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"((?:1[5-9]|20)\d\d)"
_PERIOD = "week|weekend|month|year|quarter|summer|winter|spring|fall|autumn|semester|night|morning"
_NEUTRAL = frozenset(
    [("said", word) for word in ("today", "now", "tonight")]
    + [("period", f"this {period}") for period in ("week", "month", "year", "morning")]
)

CALENDAR = frozenset(_MONTH) | frozenset(_DAY)
"""Months and weekdays by each of their names."""

Atom = tuple[str, str | int]
Found = dict[Atom, None]


@dataclass(frozen=True, slots=True)
class Dated:
    """The dates of a text, and the text with them blanked out."""

    atoms: frozenset[Atom]
    rest: str


@dataclass(frozen=True, slots=True)
class _Seen:
    """A text at a glance: its runs of letters, and whether it has figures."""

    lower: str
    words: frozenset[str]
    has_figure: bool


def refuse(asked: Dated, stored: Dated, is_reworded: bool) -> str | None:
    """Return how the dates of two questions differ, or None."""
    odd = asked.atoms ^ stored.atoms
    if not odd:
        return None
    if not asked.atoms or not stored.atoms:
        odd -= _NEUTRAL
        if not odd or is_reworded:
            return None
    return f"date: {_shown(asked.atoms)} / {_shown(stored.atoms)}"


@lru_cache(maxsize=4096)
def dated(lower: str) -> Dated:
    """Read the dates and times of a text in lower case."""
    seen = _Seen(lower, frozenset(_LETTERS.findall(lower)), _FIGURE.search(lower) is not None)
    atoms: Found = {}
    for needs, pattern, meaning in _READERS:
        if needs(seen):
            lower = pattern.sub(_taking(atoms, meaning), lower)
    return Dated(frozenset(atoms) if atoms else _NOTHING, lower)


def _taking(
    atoms: Found, meaning: Callable[[re.Match[str]], Iterator[Atom]]
) -> Callable[[re.Match[str]], str]:
    def take(match: re.Match[str]) -> str:
        atoms.update(dict.fromkeys(meaning(match)))
        return " ; "

    return take


def _iso(match: re.Match[str]) -> Iterator[Atom]:
    yield "year", int(match[1])
    yield "month", int(match[2])
    yield "day", int(match[3])


def _slashed(match: re.Match[str]) -> Iterator[Atom]:
    """Month first, as in American English, unless that cannot be."""
    month, day = int(match[1]), int(match[2])
    if month > 12:
        month, day = day, month
    yield "month", month
    yield "day", day
    if match[3]:
        yield "year", int(match[3]) + (2000 if len(match[3]) == 2 else 0)


def _month_first(match: re.Match[str]) -> Iterator[Atom]:
    yield "month", _MONTH[match[1]]
    yield "day", int(match[2])
    if match[3]:
        yield "year", int(match[3])


def _day_first(match: re.Match[str]) -> Iterator[Atom]:
    yield "day", int(match[1])
    yield "month", _MONTH[match[2]]
    if match[3]:
        yield "year", int(match[3])


def _month(match: re.Match[str]) -> Iterator[Atom]:
    yield "month", _MONTH[match[1]]


def _weekday(match: re.Match[str]) -> Iterator[Atom]:
    if match[1] and match[1] != "this":
        yield "turn", match[1]
    yield "weekday", _DAY[match[2]]


def _clock(match: re.Match[str]) -> Iterator[Atom]:
    hour, minute = int(match[1]), int(match[2] or 0)
    half = (match[3] or "").replace(".", "")
    if half:
        hour = hour % 12 + (12 if half == "pm" else 0)
    yield "time", f"{hour:02}:{minute:02}"


def _o_clock(match: re.Match[str]) -> Iterator[Atom]:
    yield "time", f"{int(match[1]):02}:00"


def _period(match: re.Match[str]) -> Iterator[Atom]:
    yield "period", f"{match[1]} {match[2]}"


def _word(kind: str) -> Callable[[re.Match[str]], Iterator[Atom]]:
    def meaning(match: re.Match[str]) -> Iterator[Atom]:
        yield kind, match[1]

    return meaning


def _year(match: re.Match[str]) -> Iterator[Atom]:
    yield "year", int(match[1])


def _says(words: str) -> Callable[[_Seen], bool]:
    said = frozenset(words.split())
    return lambda seen: not said.isdisjoint(seen.words)


def _figures_and(mark: str) -> Callable[[_Seen], bool]:
    return lambda seen: seen.has_figure and mark in seen.lower


def _figures_and_says(words: str) -> Callable[[_Seen], bool]:
    said = frozenset(words.split())
    return lambda seen: seen.has_figure and not said.isdisjoint(seen.words)


def _has_four_figures(seen: _Seen) -> bool:
    return seen.has_figure and _FOUR_FIGURES.search(seen.lower) is not None


_IN_MAY = _says("may march mar")
_IN_A_MONTH = _says(" ".join(_MONTH))
_ON_A_DAY = _says(" ".join(_DAY))
_AM_OR_PM = _figures_and_says("am pm a p")
_ON_A_DATE = _figures_and_says(" ".join(_MONTH))
_IN_A_PERIOD = _says(_PERIOD.replace("|", " ") + " " + _PERIOD.replace("|", "s ") + "s")

# What each reader needs to find anything, which is cheaper to see than to look for the thing.
_READERS: tuple[
    tuple[Callable[[_Seen], bool], re.Pattern[str], Callable[[re.Match[str]], Iterator[Atom]]], ...
] = tuple(
    (needs, re.compile(pattern), meaning)
    for needs, pattern, meaning in (
        (_figures_and("-"), r"\b(\d{4})-(\d\d?)-(\d\d?)(?:t[\d:.]+z?)?\b", _iso),
        (_figures_and("/"), r"(?<![\d/])(\d\d?)[/](\d\d?)(?:[/](\d{4}|\d\d))?(?![\d/])", _slashed),
        (_ON_A_DATE,
         rf"\b({_ANY_MONTH})\.?\s+(?:the\s+)?{_NTH}(?![\d:%])(?!\s*(?:am|pm)\b)"
         rf"(?:,?\s+(?:in\s+|of\s+)?{_YEAR})?", _month_first),
        (_ON_A_DATE,
         rf"\b{_NTH}\s+(?:of\s+)?({_ANY_MONTH})\b(?:,?\s+(?:in\s+|of\s+)?{_YEAR})?", _day_first),
        (_IN_A_MONTH, rf"\b({_CLEAR})\b\.?", _month),
        (_IN_MAY, r"\b(?:in|of|since|by|until|till|last|next|this|during|for)\s+(may|march|mar)\b",
         _month),
        (_ON_A_DAY, rf"\b(?:(this|next|last|every)\s+)?({_WEEKDAYS})\b", _weekday),
        (_AM_OR_PM, r"\b(\d\d?)(?:[:.](\d\d))?\s*(a\.?m|p\.?m)\b\.?", _clock),
        (_figures_and(":"), r"\b(\d\d?):(\d\d)()\b", _clock),
        (_figures_and("clock"), r"\b(\d\d?)\s+o'?clock\b", _o_clock),
        (_says("noon midnight"), r"\b(noon|midnight)\b", _word("time")),
        (_IN_A_PERIOD,
         rf"\b(this|next|last|previous|coming|past|every)\s+({_PERIOD})s?\b", _period),
        (_says("today tonight tomorrow yesterday now"),
         r"\b(today|tonight|tomorrow|yesterday|now)\b", _word("said")),
        (_says("christmas easter thanksgiving halloween hanukkah diwali ramadan year"),
         r"\b(christmas|easter|thanksgiving|halloween|hanukkah|diwali|ramadan|new year's)\b",
         _word("feast")),
        (_says("morning mornings afternoon afternoons evening evenings"),
         r"\b(?:in the|every|each|this)\s+(morning|afternoon|evening)s?\b", _word("part")),
        (_has_four_figures, rf"(?<![$€£\d.,])\b{_YEAR}\b(?![.,]\d|%)", _year),
    )
)  # fmt: skip
_LETTERS = re.compile(r"[^\W\d_]+")
_FIGURE = re.compile(r"\d")
_FOUR_FIGURES = re.compile(r"\d{4}")
_NOTHING: frozenset[Atom] = frozenset()


def _shown(atoms: frozenset[Atom]) -> str:
    return ", ".join(sorted(f"{kind} {value}" for kind, value in atoms)) or "none"
