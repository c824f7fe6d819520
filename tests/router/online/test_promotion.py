"""Estimates of what a candidate would do, in worlds whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.online.promotion import Estimated, Weighed, doubly_robust, estimated, why_not


def logged(draw, count):
    """Return a world's log: what was seen by a chance that depends on what is known."""
    known = draw.random(count)
    truth = (draw.random(count) < known).astype(float)
    chance = 0.1 + 0.8 * known
    value = np.where(draw.random(count) < chance, truth, np.nan)
    return known, chance, value


@pytest.mark.parametrize("chances_are_right", [True, False])
@pytest.mark.parametrize("predictions_are_right", [True, False])
def test_estimate_is_right_where_either_is(chances_are_right, predictions_are_right):
    draw, count = np.random.default_rng(0), 100_000
    known, chance, value = logged(draw, count)
    predicted = known if predictions_are_right else np.full(count, 0.9)
    chances = chance if chances_are_right else np.full(count, 0.5)
    found = estimated(doubly_robust(value, predicted, chances), np.ones(count))

    if chances_are_right or predictions_are_right:
        assert found.mean == pytest.approx(0.5, abs=0.02)
    else:
        assert abs(found.mean - 0.5) > 0.03  # so the test could tell


def test_bounds_contain_the_truth_as_often_as_they_say():
    draw, inside, rounds = np.random.default_rng(1), 0, 400
    for _ in range(rounds):
        known, chance, value = logged(draw, 300)
        found = estimated(doubly_robust(value, known, chance), np.ones(300))
        inside += found.low <= 0.5 <= found.high

    assert 0.92 <= inside / rounds <= 0.98


def test_requests_logged_by_unequal_chances_count_for_what_they_stand_for():
    draw, inside, rounds = np.random.default_rng(2), 0, 300
    for _ in range(rounds):
        rare = draw.random(4_000) < 0.5
        chance = np.where(rare, 0.1, 0.5)
        value = rare + draw.normal(size=4_000)
        kept = draw.random(4_000) < chance
        found = estimated(value[kept], chance[kept])
        inside += found.low <= 0.5 <= found.high

    assert 0.92 <= inside / rounds <= 0.98


@settings(max_examples=60)
@given(
    st.lists(st.floats(-5, 5), min_size=30, max_size=60),
    st.floats(0.02, 1.0),
    st.floats(-3, 3),
)
def test_what_was_always_seen_needs_no_prediction(values, chance, predicted):
    value = np.array(values)
    parts = doubly_robust(value, np.full(len(value), predicted), np.ones(len(value)))
    found = estimated(parts, np.full(len(value), chance))

    assert parts == pytest.approx(value)
    assert found.low <= found.mean + 1e-9
    assert found.mean <= found.high + 1e-9
    assert found.mean == pytest.approx(value.mean())


def test_few_requests_bound_nothing():
    found = estimated(np.ones(5), np.ones(5))

    assert (found.low, found.high) == (-math.inf, math.inf)
    assert estimated(np.zeros(0), np.zeros(0)).count == 0


@pytest.mark.parametrize("chance", [0.0, 1.5, -0.1])
def test_impossible_chances_are_refused(chance):
    with pytest.raises(ValueError, match="chances"):
        doubly_robust(np.ones(2), np.ones(2), np.full(2, chance))


def test_predictions_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="predictions"):
        doubly_robust(np.ones(2), np.array([1.0, np.nan]), np.ones(2))


def bounds(low, high):
    return Estimated((low + high) / 2, low, high, 100)


@pytest.mark.parametrize(
    ("usd", "quality", "holds", "wins"),
    [
        (bounds(-2, -1), bounds(-1, 1), True, True),
        (bounds(-2, 0.1), bounds(-1, 1), True, False),
        (bounds(-2, -1), bounds(0, 1), False, False),
        (bounds(-2, -1), bounds(-0.005, 1), None, True),
        (bounds(-2, -1), bounds(-0.5, 1), None, False),
        (bounds(-2, 0), bounds(0.1, 1), None, True),
        (bounds(-1, 1), bounds(0.1, 1), None, False),
    ],
)
def test_candidate_wins_by_its_bounds(usd, quality, holds, wins):
    assert (why_not(Weighed(usd, quality, holds)) is None) == wins


def test_price_of_quality_weighs_one_against_the_other():
    better = Weighed(bounds(0.1, 0.2), bounds(0.01, 0.02))

    assert why_not(better, usd_per_point=0.5) is None
    assert "worth" in why_not(better, usd_per_point=0.1)
