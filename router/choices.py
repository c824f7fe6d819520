"""Questions with lettered options, and which option a reply backs.

A reply can name one option and argue for another: its calculation ends in a
number that a different option holds, or its words are those of a different
option. Both can be seen without knowing the answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from router.answers import Answer
from router.arithmetic import numbers

NAMES: tuple[str, ...] = (
    "options", "option_chosen", "option_in_range", "option_number_backed", "option_other_backed",
    "option_number_gap", "option_number_rank", "option_words_margin", "option_words_share",
    "option_named", "options_named", "option_length_rank", "option_catch_all", "option_numeric",
)  # fmt: skip
_UNKNOWN = math.nan
_NO_OPTIONS = (0.0,) + (_UNKNOWN,) * (len(NAMES) - 1)

_OPTION = re.compile(r"^[ \t]{0,4}\(?([A-Z])[.):][ \t]{1,4}(\S[^\n]{0,600})", re.MULTILINE)
_NAMED = re.compile(r"\(([A-Z])\)|\b([A-Z])[).:]")
_ANSWER_LINE = re.compile(r"answer\b", re.IGNORECASE)
_LETTER = re.compile(r"\(?([b-j])\)?[.):]?(?:\s|$)")
_WORD = re.compile(r"[^\W_]{2,}")
_CATCH_ALL = re.compile(r"\b(?:all|none|both|neither|cannot be determined)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its length, its words, its first number, and whether it leans on the others."""

    chars: int
    words: tuple[str, ...]
    number: float | None
    is_catch_all: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """The options of a question in order, by their letters."""

    options: Mapping[str, Option]

    def features(self, reply: str, answer: Answer | None) -> tuple[float, ...]:
        """Return the features of `NAMES` for a reply; NaN where they mean nothing."""
        if not self.options:
            return _NO_OPTIONS
        letter = chosen_letter(answer)
        argued = _argument(reply)
        named = {one or other for one, other in _NAMED.findall(argued)} & set(self.options)
        place = _UNKNOWN if letter is None else float(ord(letter) - ord("A"))
        known = (float(len(self.options)), place)
        if letter is None or letter not in self.options:
            blank = (_UNKNOWN,) * (len(NAMES) - 5)
            return (*known, 0.0, *blank, float(len(named)), _UNKNOWN)
        option = self.options[letter]
        shorter = sum(each.chars < option.chars for each in self.options.values())
        return (
            *known, 1.0, *self._numbers(option, argued), *self._words(letter, argued),
            float(letter in named), float(len(named)), shorter / (len(self.options) - 1),
            float(option.is_catch_all), float(option.number is not None),
        )  # fmt: skip

    def _numbers(self, option: Option, argued: str) -> tuple[float, ...]:
        """Compare the last number that was argued for with the first of each option."""
        values = [each.number for each in self.options.values() if each.number is not None]
        said = numbers(argued[-400:])
        if option.number is None or not said or len(values) < 2:
            return (_UNKNOWN,) * 4
        gap, closest = _gap(option.number, said[-1]), min(_gap(v, said[-1]) for v in values)
        rank = sum(value < option.number for value in values) / (len(values) - 1)
        anywhere = any(_gap(option.number, value) < 0.01 for value in said)
        return float(anywhere) + (gap == closest), float(closest < 0.01 < gap), gap, rank

    def _words(self, letter: str, argued: str) -> tuple[float, float]:
        """Compare how much of each option's words the argument uses."""
        said = set(_WORD.findall(argued.casefold()))
        shares = {key: _covered(each.words, said) for key, each in self.options.items()}
        mine = shares.pop(letter)
        return mine - max(shares.values(), default=0.0), mine


def choice_of(prompt: str) -> Choice:
    """Return the options that a prompt ends with: letters from A on without a gap."""
    options: dict[str, Option] = {}
    for letter, text in _OPTION.findall(prompt[-12_000:]):
        if letter == "A":
            options = {}
        if ord(letter) == ord("A") + len(options):
            options[letter] = _option(text.strip())
    return Choice(options if len(options) > 1 else {})


def _option(text: str) -> Option:
    first = numbers(text)[:1]
    words = tuple(_WORD.findall(text.casefold()))
    return Option(len(text), words, first[0] if first else None, bool(_CATCH_ALL.search(text)))


def chosen_letter(answer: Answer | None) -> str | None:
    """Return the letter, in capitals, that an answer is or begins with; None where there is none.

    An A that other words follow may be an article, and is not taken.
    """
    value = None if answer is None else answer.value
    if not isinstance(value, str):
        return None
    if len(value) == 1 and value.isalpha():
        return value.upper()
    lead = _LETTER.match(value)
    return lead[1].upper() if lead else None


def _argument(reply: str) -> str:
    """Return what stands before the line that names the answer."""
    *_, last = (None, *_ANSWER_LINE.finditer(reply))
    return reply if last is None or last.start() < 20 else reply[: last.start()]


def _gap(one: float, other: float) -> float:
    """Return the relative distance of two numbers, at most 1."""
    size = max(abs(one), abs(other))
    return 0.0 if size == 0.0 else min(1.0, abs(one - other) / size)


def _covered(words: tuple[str, ...], said: set[str]) -> float:
    return sum(word in said for word in words) / len(words) if words else 0.0
