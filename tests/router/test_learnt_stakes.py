"""What is cached makes a call of a learnt course cheaper; under a floor only the reference's."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from router.beliefs import Beliefs
from router.learnt import Learnt, LearntCourses, Operating
from router.query import Query
from router.stakes import Stake
from router.targets import Mix
from router.value import Lineup, ValueModel
from tests.support.worlds import world

MODELS = ("m0", "m1", "m2")
NOBODY = frozenset()


@pytest.fixture(scope="module")
def beliefs():
    records = world(400, seed=1)
    return Beliefs.fit(records.first, records.states(), records.score, 2, 0.0)


@pytest.fixture
def begin(beliefs):
    """Return who begins a course among models as good as `quality` at the price of `usd`."""

    def begun(quality, usd, stakes, objective="quality", waits=(0, 0, 0), **known):
        first = SimpleNamespace(quality=np.array([quality]))
        costs = SimpleNamespace(usd=np.array([usd]), latency_s=np.array([waits]))
        value = ValueModel(Lineup(MODELS, 2, frozenset()), objective, 1.0, 1)
        learnt = Learnt(
            SimpleNamespace(estimate=lambda queries: first, full=None),
            SimpleNamespace(estimate=lambda queries, prices: costs),
            None,
            beliefs,
            {objective: value},
            {},
        )
        operating = Operating(objective, Mix(1.0, 1.0, 1.0))
        courses = LearntCourses(learnt, operating, **known)
        return courses.begin(Query("x"), MODELS, stakes=stakes).step((), NOBODY)

    return begun


def test_warm_model_is_asked_and_says_that_warmth_weighed(begin):
    cold = begin((0.70, 0.72, 0.75), (0.10, 0.16, 0.20), {})
    warm = begin((0.70, 0.72, 0.75), (0.10, 0.16, 0.20), {"m1": Stake(0.16, 0.10)})

    assert (cold.model, cold.stays) == ("m0", "")
    assert warm.model == "m1"
    assert "$0.100000 for its cached prompt" in warm.stays


def test_what_would_be_asked_anyway_does_not_stay(begin):
    step = begin((0.70, 0.72, 0.75), (0.10, 0.16, 0.20), {"m0": Stake(0.1, 0.05)})

    assert (step.model, step.stays) == ("m0", "")


def test_warmth_never_makes_a_call_better_than_free(begin):
    step = begin((0.70, 0.72, 0.95), (0.10, 0.16, 0.20), {"m0": Stake(0.1, 9.0)})

    assert step.model == "m2"


def test_under_a_floor_only_the_references_cache_counts(begin):
    priced = (0.70, 0.72, 0.75), (0.10, 0.11, 0.50)
    draft = begin(*priced, {"m1": Stake(0.11, 0.11)}, "floor")
    reference = begin(*priced, {"m2": Stake(0.5, 0.48)}, "floor")

    assert (draft.model, draft.stays) == (begin(*priced, {}, "floor").model, "")
    assert reference.model == "m2"
    assert reference.stays


def test_a_second_of_waiting_has_its_price(begin):
    priced = (0.70, 0.72, 0.75), (0.10, 0.16, 0.20), {}
    waits = (9.0, 0.5, 1.0)

    assert begin(*priced, waits=waits).model == "m0"
    assert begin(*priced, waits=waits, usd_per_second=0.01).model == "m1"
    assert begin(*priced, waits=waits, usd_per_second=1.0).model == "m1"


def test_under_a_floor_waiting_lets_no_draft_serve_that_would_not(begin):
    priced = (0.70, 0.72, 0.75), (0.10, 0.16, 0.20), {}, "floor"
    one, other = (begin(*priced, waits=(0, 0, 60), usd_per_second=each) for each in (0.0, 1.0))

    assert one.model == other.model


@pytest.mark.parametrize(("has_lapsed", "model"), [(False, "m0"), (True, "m2")])
def test_once_a_certificate_has_lapsed_the_reference_answers(begin, has_lapsed, model):
    priced = (0.75, 0.72, 0.75), (0.01, 0.16, 0.20), {}, "floor"

    assert begin(*priced, has_lapsed=lambda: has_lapsed).model == model
