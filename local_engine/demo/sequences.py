"""Questions about lists of numbers, letters, words and fields."""

from __future__ import annotations

import json
from collections.abc import Iterable
from random import Random

from local_engine.demo.question import Question


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WORDS = _words(
    """
    apple river stone cloud green table light water chair paper music bread house train
    field ocean happy small quick north silver garden window yellow summer winter simple
    bridge mountain forest island market school doctor family coffee orange purple seven
    letter
    """
)
_NAMES = _words(
    """
    Ann Ben Cara Dan Eva Finn Gina Hugo Ida Jack Kim Leo Mia Nora Omar Paul Rosa Sam
    Tina Vera
    """
)
_CITIES = _words("Paris Rome Oslo Lima Cairo Delhi Tokyo Berlin Madrid Vienna Dublin Athens")

_SORT_WORDINGS = (
    "Sort these numbers: {items}.",
    "Put in ascending order: {items}.",
    "Sort {items}.",
)
_MAX_WORDINGS = ("What is the largest of {items}?", "Find the maximum: {items}.")
_MIN_WORDINGS = ("What is the smallest of {items}?", "Find the minimum: {items}.")
_REVERSE_WORDINGS = ("Reverse the letters: {items}", "Write backwards: {items}", "Reverse {items}")
_COUNT_WORDINGS = (
    "How many times does {letter} appear in: {items}?",
    "Count the letter {letter} in: {items}",
    "How often is {letter} in {items}?",
)
_COPY_WORDINGS = ("Repeat exactly: {items}", "Say this back to me: {items}", "Copy: {items}")
_JSON_WORDINGS = (
    "Return JSON with {items}.",
    "Write as JSON: {items}.",
    "JSON for {items}, please.",
)


def draw_sort(rng: Random, level: int) -> Question:
    """Draw 3, 4, 6 or 8 different numbers under 100 to put in ascending order."""
    numbers = rng.sample(range(1, 100), (3, 4, 6, 8)[level - 1])
    prompt = rng.choice(_SORT_WORDINGS).format(items=_listed(numbers))
    ordered = sorted(numbers)
    return Question("sort", level, prompt, _listed(ordered), f"sort:{_listed(ordered)}")


def draw_extreme(rng: Random, level: int) -> Question:
    """Draw 3, 5, 7 or 9 different numbers and ask for the largest or the smallest."""
    numbers = rng.sample(range(1, 1000 if level > 2 else 100), 2 * level + 1)
    best = rng.choice((max, min))
    prompt = rng.choice(_MAX_WORDINGS if best is max else _MIN_WORDINGS)
    running = [str(best(numbers[: end + 1])) for end in range(1, len(numbers))]
    return Question(
        "extreme",
        level,
        prompt.format(items=_listed(numbers)),
        str(best(numbers)),
        f"extreme:{_listed(sorted(numbers))}",
        ",".join(running),
    )


def draw_reverse(rng: Random, level: int) -> Question:
    """Draw 4 to 8 spaced letters to write backwards."""
    size = (rng.randint(3, 4), 5, 6, rng.randint(7, 8))[level - 1]
    letters = rng.choices(_LETTERS, k=size)
    prompt = rng.choice(_REVERSE_WORDINGS).format(items=" ".join(letters))
    return Question(
        "reverse", level, prompt, " ".join(reversed(letters)), f"reverse:{''.join(letters)}"
    )


def draw_count(rng: Random, level: int) -> Question:
    """Draw spaced letters and ask how often one of them occurs."""
    size = rng.randint(*((4, 5), (6, 7), (8, 9), (10, 12))[level - 1])
    alphabet = rng.sample(_LETTERS, 4)
    letters = rng.choices(alphabet, k=size)
    letter = rng.choice(alphabet)
    prompt = rng.choice(_COUNT_WORDINGS).format(letter=letter, items=" ".join(letters))
    steps, seen = [], 0
    for each in letters:
        seen += each == letter
        steps.append(f"{each}{seen}")
    key = f"count:{letter}:{''.join(letters)}"
    return Question("count", level, prompt, str(seen), key, "".join(steps))


def draw_copy(rng: Random, level: int) -> Question:
    """Draw 2, 3, 5 or 7 words to repeat."""
    words = " ".join(rng.choices(_WORDS, k=(2, 3, 5, 7)[level - 1]))
    return Question(
        "copy", level, rng.choice(_COPY_WORDINGS).format(items=words), words, f"copy:{words}"
    )


def draw_json(rng: Random, level: int) -> Question:
    """Draw `level` fields to write as one JSON object, in the order given."""
    values: dict[str, str | int] = {
        "name": rng.choice(_NAMES),
        "age": rng.randint(18, 99),
        "city": rng.choice(_CITIES),
        "id": rng.randint(100, 999),
    }
    fields = rng.sample(sorted(values), level)
    listed = " and ".join(f"{field} {values[field]}" for field in fields)
    answer = json.dumps({field: values[field] for field in fields})
    prompt = rng.choice(_JSON_WORDINGS).format(items=listed)
    return Question("json", level, prompt, answer, f"json:{answer}")


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
