from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.semantic.calibration import probability
from cache.semantic.grey_zone import ADMITTED, ENOUGH, REFUSED, GreyZone, Platt
from cache.semantic.types import Decision

SURE = Decision(2, 0.995, 0.991, "sure enough", grey=2)
UNSURE = Decision(None, 0.95, 0.9, "not sure enough", grey=2)
MOST_WRONG = 0.01


def taught(zone, pairs, decision=UNSURE):
    for n, (score, was_right) in enumerate(pairs):
        zone.decide(decision, str(n), score, MOST_WRONG)
        zone.observe(str(n), was_right)
    return zone


def telling(count):
    """Return pairs of a model that knows: far above even where right, far below where wrong."""
    return [(5.0, True) if n % 2 else (-5.0, False) for n in range(count)]


def test_before_enough_is_known_a_score_refuses_and_never_admits():
    zone = taught(GreyZone(), telling(ENOUGH - 1))

    assert zone.decide(SURE, "a", -0.1, MOST_WRONG).reason == REFUSED
    assert zone.decide(SURE, "a", 0.1, MOST_WRONG) == SURE
    assert zone.decide(UNSURE, "a", 8.0, MOST_WRONG) == UNSURE


def test_what_is_refused_teaches_by_the_answer_that_is_bought_instead():
    refused = GreyZone().decide(SURE, "a", -1.0, MOST_WRONG)

    assert (refused.serve, refused.teaches) == (None, 2)


def test_a_model_that_proved_itself_admits_what_was_not_sure_enough():
    zone = taught(GreyZone(), telling(400))
    admitted = zone.decide(UNSURE, "a", 5.0, MOST_WRONG)

    assert (admitted.serve, admitted.teaches, admitted.reason) == (2, None, ADMITTED)
    assert zone.decide(UNSURE, "a", -5.0, MOST_WRONG).serve is None
    assert zone.decide(SURE, "a", -5.0, MOST_WRONG).reason == REFUSED


def test_nothing_is_admitted_above_scores_that_were_not_seen_to_be_right():
    zone = taught(GreyZone(), telling(120))

    assert zone.decide(UNSURE, "a", 5.0, MOST_WRONG).serve is None
    assert zone.decide(UNSURE, "a", 5.0, 0.05).serve == 2


def test_a_model_that_knows_nothing_is_soon_not_heard():
    draw = random.Random(7)
    pairs = [(draw.gauss(0, 3), draw.random() < 0.95) for _ in range(1000)]
    zone = taught(GreyZone(), pairs)

    served = [zone.decide(SURE, "a", score, MOST_WRONG).serve for score in (-3, -1, 0, 1, 3)]
    assert [zone.decide(UNSURE, "a", s, MOST_WRONG).serve for s in (0, 1, 3)] == [None] * 3
    assert served.count(2) >= 2


def test_what_is_far_is_never_admitted():
    far = Decision(None, 0.95, 0.0, "not sure enough", grey=2)

    assert taught(GreyZone(), telling(400)).decide(far, "a", 8.0, MOST_WRONG).serve is None


def test_an_answer_not_met_teaches_nothing_and_one_met_teaches_once():
    zone = taught(GreyZone(), telling(ENOUGH - 1))
    zone.observe("never met", False)
    zone.observe("1", True)

    assert zone.decide(SURE, "a", 0.1, MOST_WRONG) == SURE


def test_the_curve_finds_what_scores_mean():
    draw = random.Random(3)
    platt = Platt()
    for _ in range(4000):
        logit, score = draw.gauss(1, 1), draw.gauss(0, 2)
        platt = platt.after(logit, score, draw.random() < probability(logit - 0.5 + 0.8 * score))

    assert platt.constant == pytest.approx(-0.5, abs=0.2)
    assert platt.slope == pytest.approx(0.8, abs=0.15)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.booleans()), max_size=80))
def test_no_scores_turn_a_refusal_of_the_guards_or_the_decider_into_nonsense(pairs):
    zone = taught(GreyZone(), pairs)
    found = zone.decide(UNSURE, "a", 1e9, MOST_WRONG)

    assert found.serve in (None, 2)
    assert found.serve is None or len(pairs) >= 98
