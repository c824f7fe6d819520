"""How far a table overlaps with what a bundle was made of."""

from __future__ import annotations

import pytest

from router.query import Query
from router.seen import MOST, marks_of, met_share


def asking(first, last):
    return [Query(f"What is {number} plus one?") for number in range(first, last)]


def test_few_prompts_are_known_exactly_and_in_any_case():
    marks = marks_of([*asking(0, 100), Query("")])

    assert len(marks) == 100
    assert met_share(marks, asking(0, 100)) == 1.0
    assert met_share(marks, asking(50, 150)) == 0.5
    assert met_share(marks, [Query("WHAT is  7 plus one?"), Query("")]) == 1.0
    assert met_share(marks, asking(100, 200)) == met_share(marks, []) == met_share([], []) == 0.0


def test_many_prompts_are_known_by_a_sample_and_others_added_to_them():
    marks = marks_of(asking(0, 4000), marks_of(asking(4000, 8000)))

    assert len(marks) == MOST
    assert met_share(marks, asking(0, 8000)) == 1.0
    assert met_share(marks, asking(6000, 10_000)) == pytest.approx(0.5, abs=0.06)
    assert met_share(marks, asking(8000, 9000)) == 0.0
