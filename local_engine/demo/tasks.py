"""The demo's questions: drawing them, keeping some out of training, checking replies.

Standard library only, so that a client may ask and check without the engine's dependencies.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from zlib import crc32

from local_engine.demo import arithmetic, dates, facts, reasoning, sequences
from local_engine.demo.question import Family, Question

__all__ = [
    "CLOSED_FAMILIES",
    "DEMO_LEVELS",
    "FAMILIES",
    "Family",
    "Question",
    "final_answer",
    "held_out",
    "is_held_out",
    "is_right",
    "training_question",
]

FAMILIES: tuple[Family, ...] = (
    Family("add", arithmetic.draw_add, demo_share=4, training_share=4),
    Family("sub", arithmetic.draw_sub, demo_share=3, training_share=4),
    Family("mul", arithmetic.draw_mul, demo_share=3, training_share=5),
    Family("unit", arithmetic.draw_unit, demo_share=2, training_share=2.5),
    Family("remainder", reasoning.draw_remainder, demo_share=2, training_share=2.5),
    Family("total", reasoning.draw_total, demo_share=2, training_share=3),
    Family("story", reasoning.draw_story, demo_share=2, training_share=3),
    Family("day", dates.draw_day, demo_share=2, training_share=2),
    Family("date", dates.draw_date, demo_share=1.5, training_share=2.5),
    Family("sort", sequences.draw_sort, demo_share=1, training_share=1.5),
    Family("extreme", sequences.draw_extreme, demo_share=1, training_share=2),
    Family("reverse", sequences.draw_reverse, demo_share=1, training_share=1.2),
    Family("count", sequences.draw_count, demo_share=1, training_share=2),
    Family("compare", arithmetic.draw_compare, demo_share=0.7, training_share=1.2),
    Family("even", arithmetic.draw_even, demo_share=0.5, training_share=0.3),
    Family("json", sequences.draw_json, demo_share=1, training_share=1),
    Family("copy", sequences.draw_copy, demo_share=0.5, training_share=1),
    Family("capital", facts.draw_capital, demo_share=0, training_share=0.4, levels=1),
    Family("month", facts.draw_month, demo_share=0, training_share=0.15, levels=1),
    Family("chat", facts.draw_chat, demo_share=0, training_share=0.2, levels=1),
)
CLOSED_FAMILIES = frozenset(family.name for family in FAMILIES if not family.demo_share)

# Real traffic is mostly easy: three questions in four are of the first two levels.
DEMO_LEVELS = (0.45, 0.28, 0.17, 0.10)
_FIRST_LEVELS = (0.8, 0.15, 0.04, 0.01)

_DRAWS_PER_QUESTION = 1000


def is_held_out(question: Question) -> bool:
    """Return whether a question, in any wording, is kept out of training."""
    if question.family in CLOSED_FAMILIES:
        return False
    return crc32(question.canonical_key.encode()) % 10 == 0


def held_out(count: int, seed: int = 0) -> list[Question]:
    """Return `count` distinct questions, of the demo's mix, that no demo model was trained on.

    Raises ValueError when `count` is negative or more than the mix can supply.
    """
    if count < 0:
        raise ValueError(f"expected a count of questions of at least 0, found {count}")
    rng = Random(f"held-out:{seed}")
    shares = [family.demo_share for family in FAMILIES]
    found: dict[str, Question] = {}
    for _ in range(count * _DRAWS_PER_QUESTION):
        if len(found) == count:
            break
        question = _draw(rng, shares, DEMO_LEVELS)
        if is_held_out(question):
            found.setdefault(question.canonical_key, question)
    if len(found) < count:
        raise ValueError(
            f"expected {count} distinct held-out questions, found {len(found)}; ask for fewer"
        )
    return list(found.values())


def training_question(
    rng: Random, progress: float, last_levels: Sequence[float] = DEMO_LEVELS
) -> Question:
    """Draw a question to train on: easy ones first, `last_levels` from half-way on.

    `progress` is the share of the training that has passed, 0 to 1.
    """
    share = min(1.0, 2 * progress)
    levels = [
        (1 - share) * first + share * last
        for first, last in zip(_FIRST_LEVELS, last_levels, strict=True)
    ]
    shares = [family.training_share for family in FAMILIES]
    while is_held_out(question := _draw(rng, shares, levels)):
        pass
    return question


def final_answer(reply: str) -> str:
    """Return what a reply answers: what follows its last `answer:`, else all of it."""
    return reply.rpartition("answer:")[2].strip()


def is_right(question: Question, reply: str) -> bool:
    """Return whether a reply gives the question's answer, spacing and a final dot aside."""
    found = final_answer(reply)
    if question.family == "json":
        return _is_same_json(found, question.answer)
    return _plain(found) == _plain(question.answer)


def _draw(rng: Random, shares: Sequence[float], levels: Sequence[float]) -> Question:
    family = rng.choices(FAMILIES, shares)[0]
    level = rng.choices((1, 2, 3, 4), levels)[0]
    return family.draw(rng, min(level, family.levels))


def _plain(text: str) -> str:
    return " ".join(text.split()).rstrip(".").casefold()


def _is_same_json(found: str, expected: str) -> bool:
    try:
        value = json.loads(found)
    except (ValueError, RecursionError):
        return False
    return bool(value == json.loads(expected))
