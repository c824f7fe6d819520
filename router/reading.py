"""A question and a reply, each read once for all the features that look at them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from router.answers import Answer, final_answer
from router.arithmetic import numbers, word_numbers
from router.choices import Choice, choice_of
from router.examples import Examples, examples_of

MOST = 6_000  # characters that are looked at, from the end
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class Question:
    """What a prompt gives: the same for every model that is asked."""

    text: str
    words: frozenset[str]
    numbers: tuple[float, ...]
    choice: Choice
    examples: Examples


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reply says. `text` is its end, `chars` counts all of it."""

    text: str
    chars: int
    words: tuple[str, ...]
    numbers: tuple[float, ...]
    answer: Answer | None

    @property
    def number(self) -> float | None:
        """Return the answer where it is a number that a float can hold."""
        value = None if self.answer is None else self.answer.value
        return float(value) if isinstance(value, Fraction) and abs(value) < 1e300 else None


def read_question(prompt: str) -> Question:
    """Read a prompt."""
    text = prompt[-MOST:]
    words = _words(text)
    given = numbers(text) + word_numbers(words)
    return Question(text, frozenset(words), given, choice_of(prompt), examples_of(prompt))


def read_reply(reply: str) -> Reading:
    """Read a reply."""
    text = reply[-MOST:]
    return Reading(text, len(reply), tuple(_words(text)), numbers(text), final_answer(reply))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
