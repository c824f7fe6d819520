"""Numbers and units: `5 km` serves `5,000 metres` and never `5 miles`."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from cache.semantic.guards.units import UNITS, Unit

_TOKEN = re.compile(
    r"(?P<money>[$€£¥₹])?\s?(?<![\w.])(?P<sign>-)?(?P<number>\d[\d,]*(?:\.\d+)?|\.\d+)"
    r"(?P<glued>[^\W\d_]+|[%°€£])?"
    r"|(?P<word>[^\W\d_]+(?:'[^\W\d_]+)?)|(?P<stop>[.;!?])"
)
Tokens = list[tuple[str, str, str, str, str, str]]
"""Money's sign, minus, figure, what is glued to it, word, and what ends a sentence; or nothing."""

_MONEY = {"$": "dollar", "€": "euro", "£": "pound", "¥": "yen", "₹": "rupee"}
_SCALES = {"k": 1e3, "m": 1e6, "mn": 1e6, "bn": 1e9, "b": 1e9, "hundred": 1e2, "thousand": 1e3,
           "million": 1e6, "billion": 1e9, "trillion": 1e12, "dozen": 12.0, "grand": 1e3,
           "lakh": 1e5, "crore": 1e7}  # fmt: skip
_ORDINAL_ENDINGS = frozenset(("st", "nd", "rd", "th"))
_LOW = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen"
)
_WORDS = {name: float(value) for value, name in enumerate(_LOW.split())} | {
    "twenty": 20.0, "thirty": 30.0, "forty": 40.0, "fifty": 50.0, "sixty": 60.0,
    "seventy": 70.0, "eighty": 80.0, "ninety": 90.0, "half": 0.5, "twice": 2.0, "thrice": 3.0,
    "double": 2.0, "triple": 3.0,
}  # fmt: skip
_TENTHS = "first second third fourth fifth sixth seventh eighth ninth tenth"
_ORDINALS = {name: place for place, name in enumerate(_TENTHS.split(), start=1)}
_VAGUE = frozenset(("one", "half", "double", "hundred", "grand", "zero", "b", "m"))

# Without a figure and any of these words a text counts and measures nothing. `a` and `an` count
# only before one of them.
_FIGURE = re.compile(r"[\d$€£¥₹%]")
_LETTERS = re.compile(r"[^\W\d_]+")
_SAYING = _WORDS.keys() | _SCALES.keys() | _ORDINALS.keys() | UNITS.keys()
_TELLING = _SAYING | {"a", "an"}


@dataclass(frozen=True, slots=True)
class Amount:
    """A value in the base unit of its dimension; no dimension where no unit stood beside it."""

    value: float
    dimension: str = ""


@dataclass(frozen=True, slots=True)
class Quantities:
    """What a question counts and measures: amounts, ranks, and units named without a number."""

    amounts: tuple[Amount, ...]
    ranks: frozenset[int]
    units: frozenset[str]


_NONE = Quantities((), frozenset(), frozenset())


def refuse(asked: str, stored: str, is_reworded: bool) -> str | None:
    """Return how the quantities of two questions differ, or None.

    The texts come in lower case, with what was read as dates blanked out.
    """
    ours, theirs = quantities(asked), quantities(stored)
    if ours == theirs:
        return None
    if not _same(ours.amounts, theirs.amounts) and not (
        is_reworded and not (ours.amounts and theirs.amounts)
    ):
        return f"number: {_shown(ours.amounts)} / {_shown(theirs.amounts)}"
    if ours.ranks and theirs.ranks and ours.ranks != theirs.ranks:
        return f"rank: {sorted(ours.ranks)} / {sorted(theirs.ranks)}"
    if ours.units and theirs.units and ours.units != theirs.units:
        return f"unit: {', '.join(sorted(ours.units))} / {', '.join(sorted(theirs.units))}"
    return None


@lru_cache(maxsize=4096)
def quantities(lower: str) -> Quantities:
    """Read the amounts, ranks and units of a text in lower case."""
    if _FIGURE.search(lower) is None and _SAYING.isdisjoint(_LETTERS.findall(lower)):
        return _NONE
    tokens = _TOKEN.findall(lower)
    amounts: list[Amount] = []
    ranks: set[int] = set()
    units: set[str] = set()
    at = 0
    while at < len(tokens):
        _, _, number, _, word, _ = tokens[at]
        if number:
            at = _figure(tokens, at, amounts, ranks)
        elif word not in _TELLING:
            at += 1
        elif word in _WORDS or word in ("a", "an", "hundred", "dozen"):
            at = _spelled(tokens, at, amounts)
        else:
            _name(word, ranks, units)
            at += 1
    return Quantities(tuple(amounts), frozenset(ranks), frozenset(units))


def _name(word: str, ranks: set[int], units: set[str]) -> None:
    if word in _ORDINALS:
        ranks.add(_ORDINALS[word])
    elif len(word) > 1 and (unit := UNITS.get(word)) is not None and unit.is_telling:
        units.add(unit.name)


def _figure(tokens: Tokens, at: int, amounts: list[Amount], ranks: set[int]) -> int:
    money, sign, number, glued, _, _ = tokens[at]
    value = float(number.replace(",", "")) * (-1 if sign else 1)
    at += 1
    if glued in _ORDINAL_ENDINGS:
        ranks.add(int(value))
        return at
    unit: Unit | None = None
    if glued:
        scale = _SCALES.get(glued)
        unit = None if scale is not None and glued != "m" else UNITS.get(glued)
        value *= 1.0 if unit is not None else scale or 1.0
    if unit is None:
        value, unit, at = _continued(tokens, at, value)
    if unit is None and money:
        unit = UNITS[_MONEY[money]]
    amounts.append(_amount(value, unit))
    return at


def _spelled(tokens: Tokens, at: int, amounts: list[Amount]) -> int:
    """Read a number in words; `a`, `one` and their like count only before a unit."""
    first = _word(tokens, at)
    value, after = _value(tokens, at)
    value, unit, end = _continued(tokens, after, value)
    if unit is not None or (first not in ("a", "an") and first not in _VAGUE):
        amounts.append(_amount(value, unit))
        return end
    if end > after:  # `a hundred`, `one thousand`
        amounts.append(_amount(value, None))
    return end


def _value(tokens: Tokens, at: int) -> tuple[float, int]:
    first = _word(tokens, at)
    if first in ("hundred", "dozen"):
        return _SCALES[first], at + 1
    value = _WORDS.get(first, 1.0)
    following = _word(tokens, at + 1)
    if 20 <= value <= 90 and 1 <= _WORDS.get(following, 0) <= 9:
        return value + _WORDS[following], at + 2
    return value, at + 1


def _continued(tokens: Tokens, at: int, value: float) -> tuple[float, Unit | None, int]:
    """Return the value with the scales after it, the unit after those, and where it ends."""
    while len(word := _word(tokens, at)) > 2 and word in _SCALES:
        value *= _SCALES[word]
        at += 1
    for skip in range(2):  # `5 square metres`, `10 us dollars`
        unit = UNITS.get(_word(tokens, at + skip))
        if unit is not None and (skip == 0 or _word(tokens, at) in _BETWEEN):
            return value, unit, at + skip + 1
    return value, None, at


_BETWEEN = frozenset(("us", "american", "business", "working", "more", "whole", "full", "extra"))


def _word(tokens: Tokens, at: int) -> str:
    return tokens[at][4] if at < len(tokens) else ""


def _amount(value: float, unit: Unit | None) -> Amount:
    if unit is None:
        return Amount(value)
    return Amount(round((value + unit.offset) * unit.factor, 9), unit.dimension)


def _same(ours: tuple[Amount, ...], theirs: tuple[Amount, ...]) -> bool:
    """Whether the amounts pair off; one without a unit may stand for one with."""
    if ours == theirs:
        return True
    if len(ours) != len(theirs):
        return False
    left, right = Counter(ours), Counter(theirs)
    left, right = left - right, right - left
    bare = sorted(left.elements(), key=lambda a: a.value)
    other = sorted(right.elements(), key=lambda a: a.value)
    return all(map(_alike, bare, other))


def _alike(one: Amount, other: Amount) -> bool:
    if one.dimension and other.dimension and one.dimension != other.dimension:
        return False
    return abs(one.value - other.value) <= 1e-6 * max(1.0, abs(one.value))


def _shown(amounts: tuple[Amount, ...]) -> str:
    return ", ".join(f"{a.value:g} {a.dimension}".strip() for a in amounts) or "none"
