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

from router.answers import final_answer
from router.arithmetic import numbers

_OPTION = re.compile(r"^[ \t]{0,4}\(?([A-Z])[.):][ \t]{1,4}(\S[^\n]{0,600})", re.MULTILINE)
_ANSWER_LINE = re.compile(r"(?:the |final |correct )*answer\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]{2,}")
_CATCH_ALL = re.compile(r"\b(?:all|none|both|neither|cannot be determined)\b", re.IGNORECASE)

NAMES: tuple[str, ...] = (
    "options", "option_chosen", "option_in_range", "option_number_backed", "option_other_backed",
    "option_number_gap", "option_number_rank", "option_words_margin", "option_words_share",
    "option_named", "options_named", "option_length_rank", "option_catch_all", "option_numeric",
)  # fmt: skip
_NONE = (0.0,) + (math.nan,) * (len(NAMES) - 1)


@dataclass(frozen=True, slots=True)
class Choice:
    """The options of a question in order, by their letters."""

    options: Mapping[str, str]

    def features(self, reply: str) -> tuple[float, ...]:
        """Return the features of `NAMES` for a reply; NaN where they mean nothing."""
        if not self.options:
            return _NONE
        letter = chosen_letter(reply)
        argued = _argument(reply)
        named = [each for each in self.options if re.search(rf"\b{each}[).:]|\({each}\)", argued)]
        if letter not in self.options:
            blank = (math.nan,) * (len(NAMES) - 5)
            return (len(self.options), _place(letter), 0.0, *blank, len(named), math.nan)
        return (
            float(len(self.options)),
            _place(letter),
            1.0,
            *self._numbers(letter, argued),
            *self._words(letter, argued),
            float(letter in named),
            float(len(named)),
            self._length_rank(letter),
            float(bool(_CATCH_ALL.search(self.options[letter]))),
            float(bool(numbers(self.options[letter]))),
        )

    def _numbers(self, letter: str, argued: str) -> tuple[float, ...]:
        """Compare the last number that was argued for with the first of each option."""
        firsts = {each: found[0] for each, text in self.options.items() if (found := numbers(text))}
        said = numbers(argued[-400:])
        if letter not in firsts or not said or len(firsts) < 2:
            return (math.nan,) * 4
        gaps = {each: _gap(value, said[-1]) for each, value in firsts.items()}
        closest = min(gaps.values())
        rank = sum(value < firsts[letter] for value in firsts.values()) / (len(firsts) - 1)
        anywhere = any(_gap(firsts[letter], value) < 0.01 for value in said)
        others = any(gaps[each] < 0.01 for each in gaps if each != letter)
        is_backed = float(anywhere) + float(gaps[letter] == closest)
        return is_backed, float(others and gaps[letter] > closest), gaps[letter], rank

    def _words(self, letter: str, argued: str) -> tuple[float, float]:
        """Compare how much of each option's words the argument uses."""
        said = set(_WORD.findall(argued.casefold()))
        shares = {each: _covered(text, said) for each, text in self.options.items()}
        rivals = [share for each, share in shares.items() if each != letter]
        return shares[letter] - max(rivals, default=0.0), shares[letter]

    def _length_rank(self, letter: str) -> float:
        lengths = [len(text) for text in self.options.values()]
        mine = len(self.options[letter])
        return sum(length < mine for length in lengths) / max(1, len(lengths) - 1)


def choice_of(prompt: str) -> Choice:
    """Return the options that a prompt ends with: letters from A on without a gap."""
    options: dict[str, str] = {}
    for letter, text in _OPTION.findall(prompt[-12_000:]):
        if letter == "A":
            options = {}
        if ord(letter) == ord("A") + len(options):
            options[letter] = text.strip()
    return Choice(options if len(options) > 1 else {})


def chosen_letter(reply: str) -> str | None:
    """Return the letter, in capitals, that a reply ends on; None where there is none."""
    answer = final_answer(reply)
    value = None if answer is None else answer.value
    if not isinstance(value, str):
        return None
    if len(value) == 1 and value.isalpha():
        return value.upper()
    lead = re.match(r"\(?([a-j])\)?[.):]?(?:\s|$)", value)
    return lead[1].upper() if lead and lead[1] != "a" else None


def _place(letter: str | None) -> float:
    return math.nan if letter is None else float(ord(letter) - ord("A"))


def _argument(reply: str) -> str:
    """Return what stands before the line that names the answer."""
    *_, last = (None, *_ANSWER_LINE.finditer(reply))
    return reply if last is None or last.start() < 20 else reply[: last.start()]


def _gap(one: float, other: float) -> float:
    """Return the relative distance of two numbers, at most 1."""
    size = max(abs(one), abs(other))
    return 0.0 if size == 0.0 else min(1.0, abs(one - other) / size)


def _covered(option: str, said: set[str]) -> float:
    words = _WORD.findall(option.casefold())
    return sum(word in said for word in words) / len(words) if words else 0.0
