"""Pairs of questions that look alike: some ask for the same, some only nearly.

Every pair is made from a form of `data/near_misses.json` by axis, with a fixed
seed. Many of the benign controls differ on the surface of the very axis they
belong to (`5 km`, `5,000 metres`), so that a guard which refuses whatever
differs loses them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

_FOLDER = Path(__file__).parent / "data"
TUNED, HELD_OUT = "near_misses.json", "near_misses_held_out.json"
"""The forms that guards were written against, and others that nothing was tuned on."""


@dataclass(frozen=True, slots=True)
class QuestionPair:
    """Two questions, the axis they are about, and whether one answer serves both."""

    axis: str
    asked: str
    stored: str
    is_same: bool


class Form(TypedDict, total=False):
    """Two lists of questions with slots, and what may fill each slot.

    The stored question takes the form at the asked one's place; without a list of
    its own it takes the same form. A slot says `same` (one value on both sides),
    `two` (any two different values) or `pairs` (one value for each side).
    """

    asked: Sequence[str]
    stored: Sequence[str]
    slots: Mapping[str, Mapping[str, Sequence[str] | Sequence[Sequence[str]]]]


def question_pairs(per_axis: int = 90, seed: int = 7, *, forms: str = TUNED) -> list[QuestionPair]:
    """Return at most `per_axis` near misses and half as many benign controls for each axis."""
    axes: Mapping[str, Mapping[str, Sequence[Form]]] = json.loads(
        (_FOLDER / forms).read_text("utf-8")
    )
    return [
        QuestionPair(axis, asked, stored, is_same)
        for axis, sides in axes.items()
        for is_same, side, count in ((False, "near", per_axis), (True, "benign", per_axis // 2))
        for asked, stored in _distinct(sides[side], random.Random(f"{seed} {axis} {side}"), count)
    ]


def _distinct(
    forms: Sequence[Form], chance: random.Random, count: int
) -> Iterator[tuple[str, str]]:
    seen: set[tuple[str, str]] = set()
    for trial in range(count * 20):
        made = _filled(forms[trial % len(forms)], chance)
        if made not in seen and made[0] != made[1]:
            seen.add(made)
            yield made
        if len(seen) == count:
            return


def _filled(form: Form, chance: random.Random) -> tuple[str, str]:
    at = chance.randrange(len(form["asked"]))
    drawn = {name: _drawn(values, chance) for name, values in form["slots"].items()}
    asked = form["asked"][at].format(**{name: pair[0] for name, pair in drawn.items()})
    other = form.get("stored", form["asked"])[at]
    stored = other.format(**{name: pair[1] for name, pair in drawn.items()})
    return (asked, stored) if chance.random() < 0.5 else (stored, asked)


def _drawn(
    values: Mapping[str, Sequence[str] | Sequence[Sequence[str]]], chance: random.Random
) -> Sequence[str]:
    [(kind, choices)] = values.items()
    if kind == "two":
        one, other = chance.sample(range(len(choices)), 2)
        return str(choices[one]), str(choices[other])
    drawn = chance.choice(choices)
    return (drawn, drawn) if isinstance(drawn, str) else drawn
