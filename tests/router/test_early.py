"""Giving drafts up by their beginnings, where a small share of good ones may be lost at most."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from router.bundled import load_learnt, save_learnt
from router.costs import Price
from router.early import LENGTHS, SPARED, halves_of, threshold_of
from router.learn_table import LearnTable
from router.learnt import LearntCourses
from router.query import Query
from router.targets import PriceOfQuality
from router.train import Task, train
from router.types import Draft
from tests.support.sums import outcomes

FILLER = " So we go on and explain at length what has been done and why it was done that way." * 10
PRICES = {
    "small": Price(0.1, 0.2, date(2026, 11, 21)),
    "large": Price(5.0, 10.0, date(2026, 11, 21)),
}


def long_winded(row):
    """Return an outcome whose reply says early whether it is wrong, and goes on for long."""
    first, last = row["response"].split("\n")
    return {**row, "response": f"{first}.{FILLER}\n{last}", "completion_tokens": 300}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    file = tmp_path_factory.mktemp("early") / "long.jsonl"
    file.write_text("\n".join(json.dumps(long_winded(row)) for row in outcomes(600, seed=5)))
    table = LearnTable.from_outcomes([file], models=("small", "large"), replies=True)
    return train(table, Task(("small", "large"), "large", PriceOfQuality(0.001), PRICES))


def course(trained, operating=None):
    courses = LearntCourses(trained.learnt, operating or trained.operating)
    return courses.begin(Query("Case 1 of 5: what is 212 + 431?"), ["small", "large"])


def under_way(said, length):
    return Draft("small", f"212 + 431 = {said}.{FILLER}"[:length], None)


def test_wrong_beginning_is_given_up_and_a_right_one_is_not(trained):
    wrong, right = course(trained), course(trained)
    long_enough = LENGTHS[0] + 1

    assert trained.operating.early is not None
    assert wrong.watches("small")
    assert not wrong.watches("large")
    assert wrong.watch(under_way(644, LENGTHS[0] - 1), ())
    assert not wrong.watch(under_way(644, long_enough), ())
    assert right.watch(under_way(643, long_enough), ())
    assert right.watch(under_way(643, LENGTHS[1] + 1), ())


def test_after_a_draft_was_given_up_under_a_floor_the_reference_answers(trained):
    own = course(trained, replace(trained.operating, objective="floor"))
    own.watch(under_way(644, LENGTHS[0] + 1), ())
    step = own.step((), frozenset({"small"}))

    assert (step.model, step.reason) == ("large", "a draft was given up")


def test_bundle_keeps_what_it_knows_of_beginnings(trained, tmp_path):
    save_learnt(tmp_path / "b", trained.learnt, trained.operating, None, {"reference": "large"})
    again = load_learnt(tmp_path / "b")

    assert again.operating == trained.operating
    assert not course(again).watch(under_way(644, LENGTHS[0] + 1), ())


def test_drawn_requests_are_drafted_to_the_end(trained):
    courses = LearntCourses(trained.learnt, trained.operating)
    drawn = courses.begin(Query("what is 2 + 2?"), ["small", "large"], drawn=True)

    assert not drawn.watches("small")


def test_good_drafts_are_lost_no_oftener_than_promised():
    draw, broken, found = np.random.default_rng(0), 0, 0
    for _ in range(200):
        # The score of a good draft's beginning is spread evenly over the grid's range.
        lowest = np.column_stack([draw.random(400), np.full(400, np.inf)])
        threshold = threshold_of(lowest, np.zeros(400, np.int64), {0})
        found += threshold is not None
        broken += threshold is not None and threshold > SPARED

    assert broken <= 20  # 200 x 0.05 = 10, and chance


def test_lower_scores_of_drafts_that_would_not_be_served_cost_nothing():
    lowest = np.column_stack([np.r_[np.full(300, 0.9), np.full(300, 0.1)], np.full(600, np.inf)])
    served = np.r_[np.zeros(300, np.int64), np.ones(300, np.int64)]

    assert threshold_of(lowest, served, {0}) == 0.8
    assert threshold_of(lowest[:5], served[:5], {0}) is None


def test_what_teaches_and_what_certifies_are_apart():
    taught, kept = halves_of(20_000)

    assert not set(taught) & set(kept)
    assert len(taught) + len(kept) == 3_000
    assert [len(rows) for rows in halves_of(3)] == [2, 1]
