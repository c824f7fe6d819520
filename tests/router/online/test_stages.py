"""The steps that a route takes by itself, as its traffic comes in."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.guarantee import Floor
from router.online.stages import counting, next_step
from router.online.standing import Standing, Step, Taken, Terms, after, standing_of
from tests.support.traffic import loss_at, traffic

TERMS = Terms(("small",), "large", Floor(0.05))


def walk(requests, terms=TERMS, standing=None, at_us=None):
    """Take every step that is due; return where that leads, and the steps."""
    standing, steps = standing or Standing(), []
    while (step := next_step(counting(requests, standing, terms), standing, terms)) is not None:
        now_us = requests[-1].at_us + 1 if at_us is None else at_us
        standing = after(standing, Taken(standing.number + 1, now_us, step, terms.key))
        standing = replace(standing, number=standing.number + 1)
        steps.append(step)
        assert len(steps) < 50, "it never comes to rest"
    return standing, [step.kind for step in steps]


def test_stages_come_in_their_order_as_labels_do():
    found = [walk(traffic(count))[0].stage for count in (0, 49, 50, 199, 400)]

    assert found == ["rules", "rules", "calibrated", "calibrated", "certified"]


def test_route_without_a_floor_is_calibrated_and_needs_no_certificate():
    standing, steps = walk(traffic(400), replace(TERMS, floor=None))

    assert (standing.stage, steps) == ("calibrated", ["calibrated"])


def test_certificate_tells_what_it_stands_on():
    standing, _ = walk(traffic(400))
    certificate = standing.certificate

    assert certificate["bound"] <= 0.05
    assert certificate["count"] < 400
    assert certificate["look"] == 1
    assert loss_at(standing.acceptance.platt["small"](standing.acceptance.threshold)) < 0.2


def labelled(requests, labeller_of):
    """Return requests whose drafts were labelled so: each place's labeller and judge's check."""
    found = []
    for place, each in enumerate(requests):
        (seen,) = each.drafts
        labeller, checked = labeller_of(place, seen.score)
        found.append(replace(each, drafts=(replace(seen, labeller=labeller, checked=checked),)))
    return found


def test_certificate_names_its_days_and_who_judged_and_how_often_the_judge_was_wrong():
    def halves(place, score):
        if place % 2:
            return "judge", None
        return "exact", (1.0 - score if place % 20 == 0 else score)

    exact = walk(labelled(traffic(400), lambda place, score: ("exact", None)))[0].certificate
    mixed = walk(labelled(traffic(400), halves))[0].certificate

    assert (exact["labeller"], exact["labelled"]) == ("exact", {"exact": exact["count"]})
    assert exact["data"] == "audits of 1970-01-01 to 1970-01-01"
    assert "labeller_error" not in exact
    assert mixed["labeller"] == "exact and judge"
    assert mixed["judge_checked"] == mixed["labelled"]["exact"]
    assert mixed["labeller_error"] == pytest.approx(0.1, abs=0.06)


def test_certificate_by_a_judge_that_was_never_checked_says_so():
    by_judge = walk(labelled(traffic(400), lambda place, score: ("judge", None)))[0].certificate

    assert (by_judge["judge_checked"], by_judge["labeller_error"]) == (0, None)


def test_look_that_could_certify_nothing_is_not_made():
    strict = replace(TERMS, floor=Floor(0.01))

    assert walk(traffic(300), strict)[1] == ["calibrated"]


def test_looks_are_few_and_each_spends_less():
    requests, standing, looks = traffic(6_000, fall=0.5), Standing(), []
    for count in range(100, 6_000, 100):
        standing, steps = walk(requests[:count], standing=standing)
        looks += [count for kind in steps if kind in ("certified", "not_certified")]

    assert standing.looks == len(looks) < 12
    assert all(later >= 1.4 * earlier for earlier, later in pairwise(looks))


def test_later_look_that_finds_nothing_falls_back_a_step():
    good = traffic(400)
    certified, _ = walk(good)
    worse = good + traffic(1_500, seed=1, start=400, fall=0.6)
    standing, steps = walk(worse, standing=certified)

    assert certified.stage == "certified"
    assert "not_certified" in steps
    assert (standing.stage, standing.certificate) == ("calibrated", None)


def test_lost_certificate_lets_only_what_comes_afterwards_count():
    certified, _ = walk(traffic(400))
    step = Step("lost", "drift", {"since_us": 1_000})
    lost = after(certified, Taken(9, 1_000, step, TERMS.key))

    assert (lost.stage, lost.certificate, lost.looks) == ("calibrated", None, 1)
    assert counting(traffic(400), lost, TERMS) == []
    assert walk(traffic(400, start=2_000), standing=lost)[0].stage == "certified"


@pytest.mark.parametrize("is_reference", [False, True])
def test_reset_forgets_what_was_known_of_a_model(is_reference):
    certified, _ = walk(traffic(400))
    model = "large" if is_reference else "small"
    detail = {"model": model, "versions": ["2"], "since_us": 300, "is_reference": is_reference}
    reset = after(certified, Taken(9, 1_000, Step("reset", "", detail), TERMS.key))

    assert (reset.stage, reset.acceptance.platt) == ("rules", {})
    assert reset.looks == certified.looks  # its error is spent
    assert [each.at_us for each in counting(traffic(400), reset, TERMS)] == list(range(300, 400))


def test_what_was_learnt_under_other_terms_is_nothing_here():
    other = replace(TERMS, floor=Floor(0.01))
    _, steps = walk(traffic(400))
    taken = [Taken(1, 0, Step("certified", "", {}), other.key)]

    assert steps
    assert standing_of(taken, TERMS) == Standing(number=1)


def test_models_that_are_no_tiers_any_more_do_not_count():
    assert counting(traffic(5, model="gone"), Standing(), TERMS) == []


@given(
    st.lists(
        st.tuples(st.integers(1, 300), st.sampled_from([0.0, 0.3, 0.9]), st.booleans()), max_size=5
    )
)
def test_whatever_comes_nothing_is_served_under_a_floor_without_a_certificate(parts):
    requests, standing = [], Standing()
    for place, (count, fall, drawn) in enumerate(parts):
        requests += traffic(count, seed=place, start=len(requests), fall=fall, drawn=drawn)
        standing, _ = walk(requests, standing=standing)

        assert (standing.stage == "certified") == (standing.certificate is not None)
        if standing.certificate:
            assert standing.certificate["bound"] <= TERMS.floor.max_loss
