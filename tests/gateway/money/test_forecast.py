"""What is foretold of a budget: nothing of little, and a range that holds as often as it says."""

from __future__ import annotations

import random

import pytest

from gateway.money.forecast import FEWEST, foretell


def test_nothing_is_foretold_of_little():
    assert foretell(100, [50] * (FEWEST - 1), 10.0) is None


def test_what_is_spent_evenly_goes_on_evenly():
    found = foretell(300, [100, 100, 100], 4.5)

    assert (found.spend, found.low, found.high) == (750, 750, 750)
    assert found.steps_until(200) == 2.0


def test_nothing_spent_never_runs_out():
    assert foretell(0, [0, 0, 0], 5.0).steps_until(10) is None


def test_what_is_spent_cannot_be_taken_back():
    assert foretell(1_000, [0, 0, 5_000], 0.5).low == 1_000


@pytest.mark.parametrize("seen", [4, 10, 28])
def test_the_range_holds_in_about_four_of_five_cases(seen):
    draw = random.Random(7)
    held = 0
    for _ in range(2_000):
        days = [round(draw.gauss(1e9, 2e8)) for _ in range(seen + 12)]
        found = foretell(0, days[:seen], 12.0)
        held += found.low <= sum(days[seen:]) <= found.high

    assert 0.76 < held / 2_000 < 0.85
