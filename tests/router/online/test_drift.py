"""Detectors of change: how seldom they are wrong, and how soon they are right."""

from __future__ import annotations

import numpy as np
import pytest

from router.online.drift import Detector, alarm_of, shift_of, tolerance


def test_false_alarms_are_as_rare_as_promised():
    draw, run_length, draws = np.random.default_rng(0), 200.0, 0
    alarms = 0
    for _ in range(200):
        losses = (draw.random(400) < 0.05).astype(float)
        alarm = alarm_of(losses, 0.05, run_length)
        alarms += alarm is not None
        draws += 400 if alarm is None else alarm.at + 1

    assert draws / max(alarms, 1) > run_length
    assert alarms > 0  # so short a run length is reached, or the test could not fail


@pytest.mark.parametrize(("after", "soon"), [(0.5, 40), (0.2, 250)])
def test_change_is_noticed_soon_and_its_beginning_told(after, soon):
    draw = np.random.default_rng(1)
    before = (draw.random(2_000) < 0.02).astype(float)
    changed = (draw.random(1_000) < after).astype(float)
    alarm = alarm_of([*before, *changed], 0.05)

    assert alarm is not None
    assert 2_000 <= alarm.at < 2_000 + soon
    assert abs(alarm.since - 2_000) < 80


def test_what_is_better_than_claimed_raises_no_alarm():
    assert alarm_of([-1.0, 0.0] * 5_000, 0.05) is None


@pytest.mark.parametrize("value", [1.5, -1.5, float("nan")])
def test_values_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match="from -1 to 1"):
        Detector(0.1).add(value)


def test_estimates_of_few_labels_may_be_off_by_more():
    assert tolerance(50) > tolerance(1_000) > 0.02


def test_same_traffic_has_not_moved_and_other_traffic_has():
    draw = np.random.default_rng(2)
    before, same = draw.lognormal(size=1_000), draw.lognormal(size=300)
    other = draw.lognormal(1.0, size=300)

    assert not shift_of(list(before), list(same)).has_moved
    assert shift_of(list(before), list(other)).has_moved
    assert shift_of(list(before), list(same[:50])) is None


def test_index_seldom_moves_by_chance():
    draw = np.random.default_rng(3)
    moved = sum(
        shift_of(list(draw.normal(size=200)), list(draw.normal(size=200))).has_moved
        for _ in range(300)
    )

    assert moved <= 3


def test_feature_that_is_always_the_same_has_not_moved():
    assert not shift_of([1.0] * 300, [1.0] * 300).has_moved
