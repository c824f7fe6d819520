from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.semantic.calibration import probability
from cache.semantic.decision import CalibratedDecider, Effect
from cache.semantic.types import Candidate

ASKED = "how can i reset my password"


def candidate(similarity: float, entry_id: str = "a", answer_key: str = "") -> Candidate:
    return Candidate(
        "how do i reset the password", 120, similarity, entry_id, answer_key=answer_key
    )


def test_near_question_serves_and_far_one_does_not() -> None:
    decider = CalibratedDecider()

    near = decider.decide(ASKED, [candidate(0.97)], 0.02)
    far = decider.decide(ASKED, [candidate(0.55)], 0.02)

    assert near.serve == 0
    assert near.lower >= 0.98
    assert far.serve is None
    assert far.probability < near.probability


def test_nothing_to_choose_from_serves_nothing() -> None:
    assert CalibratedDecider().decide(ASKED, [], 0.5).serve is None


def test_neighbours_with_one_answer_bear_each_other_out() -> None:
    agreeing = [candidate(0.83, str(n), "same") for n in range(6)]
    unknown = [candidate(0.83, str(n)) for n in range(6)]

    assert CalibratedDecider().decide(ASKED, agreeing, 0.01).serve is not None
    assert CalibratedDecider().decide(ASKED, unknown, 0.01).serve is None


def test_a_near_rival_with_another_answer_prevents_the_hit() -> None:
    agreed = [candidate(0.84, str(n), "same") for n in range(4)]
    rivals = [candidate(0.83, f"r{n}", "other") for n in range(4)]

    assert CalibratedDecider().decide(ASKED, agreed + rivals, 0.01).serve is None


def test_far_lone_question_is_not_served_however_much_error_is_allowed() -> None:
    decision = CalibratedDecider().decide(ASKED, [candidate(0.7)], 0.9)

    assert decision.serve is None
    assert decision.lower == 0


def test_a_cache_of_one_topic_does_not_answer_everything() -> None:
    one_topic = [candidate(0.55, str(n), "same") for n in range(8)]

    assert CalibratedDecider().decide(ASKED, one_topic, 0.5).serve is None


def test_audited_wrong_hit_takes_its_entry_out_and_leaves_others() -> None:
    decider = CalibratedDecider()
    assert decider.decide(ASKED, [candidate(0.9, "bad")], 0.02).serve == 0

    decider.observe("bad", was_right=False)

    assert decider.decide(ASKED, [candidate(0.9, "bad")], 0.02).serve is None
    assert decider.decide(ASKED, [candidate(0.97, "good")], 0.02).serve == 0


def test_audited_right_hits_make_an_entry_surer() -> None:
    decider = CalibratedDecider()
    before = decider.decide(ASKED, [candidate(0.9)], 0.05)

    for _ in range(20):
        decider.observe("a", was_right=True)

    after = decider.decide(ASKED, [candidate(0.9)], 0.05)
    assert after.probability > before.probability
    assert after.lower >= before.lower


def test_an_entry_never_served_here_teaches_nothing() -> None:
    decider = CalibratedDecider()
    before = decider.decide(ASKED, [candidate(0.9)], 0.05)

    decider.observe("unheard of", was_right=False)

    assert decider.decide(ASKED, [candidate(0.9)], 0.05) == before


def test_only_so_many_entries_are_remembered() -> None:
    decider = CalibratedDecider(known=2)
    for name in ("a", "b", "c"):
        decider.decide(ASKED, [candidate(0.93, name)], 0.05)
        decider.observe(name, was_right=False)

    forgotten = decider.decide(ASKED, [candidate(0.93, "a")], 0.05)
    known = decider.decide(ASKED, [candidate(0.93, "c")], 0.05)

    assert forgotten.probability > known.probability


@given(st.floats(0, 1), st.floats(0.001, 0.5), st.floats(0.001, 0.5))
def test_allowing_more_error_never_serves_less(similarity: float, one: float, other: float) -> None:
    strict, lenient = sorted((one, other))
    served = CalibratedDecider().decide(ASKED, [candidate(similarity)], strict).serve

    if served is not None:
        assert CalibratedDecider().decide(ASKED, [candidate(similarity)], lenient).serve == served


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.sampled_from("abc")), min_size=1, max_size=8),
    st.floats(0.001, 0.5),
)
def test_served_place_and_bound_keep_to_the_contract(
    near: list[tuple[float, str]], max_error: float
) -> None:
    found = sorted(near, reverse=True)
    candidates = [candidate(s, str(n), key) for n, (s, key) in enumerate(found)]

    decision = CalibratedDecider().decide(ASKED, candidates, max_error)

    assert 0 <= decision.probability <= 1
    if decision.serve is not None:
        assert 0 <= decision.serve < len(candidates)
        assert decision.lower >= 1 - max_error


@given(st.floats(-8, 8), st.lists(st.booleans(), max_size=30))
def test_an_effect_grows_surer_with_every_audit(logit: float, audits: list[bool]) -> None:
    effect = Effect(0.0, 1.0)
    for was_right in audits:
        after = effect.after(logit, was_right)

        assert 0 < after.variance <= effect.variance
        assert (after.mean >= effect.mean) == was_right
        effect = after


@pytest.mark.parametrize("logit", [-1e6, -800, -3, 0, 3, 800, 1e6])
def test_probability_bears_any_log_odds(logit: float) -> None:
    assert 0 <= probability(logit) <= 1
    assert probability(logit) + probability(-logit) == pytest.approx(1)


def test_what_was_bought_makes_the_route_more_careful() -> None:
    taught, fresh = CalibratedDecider(), CalibratedDecider()
    for n in range(40):
        near = [candidate(0.86, f"{n}a", "same"), candidate(0.85, f"{n}b", "same")]
        met = taught.decide(ASKED, near, 1e-9)
        if met.teaches is not None:
            taught.observe(near[met.teaches].entry_id, was_right=False)

    agreeing = [candidate(0.9, "new"), candidate(0.9, "newer")]
    after = taught.decide(ASKED, [*agreeing, *near], 0.01)
    assert after.probability < fresh.decide(ASKED, [*agreeing, *near], 0.01).probability


def test_an_answer_found_right_for_one_entry_makes_its_other_entries_surer() -> None:
    decider = CalibratedDecider()
    first = [candidate(0.86, "a", "same"), candidate(0.85, "b", "same")]
    second = [candidate(0.86, "c", "same"), candidate(0.85, "d", "same")]
    before = decider.decide(ASKED, second, 0.001)

    for _ in range(10):
        decider.decide(ASKED, first, 1e-9)
        decider.observe("a", was_right=True)

    assert decider.decide(ASKED, second, 0.001).lower > before.lower


def test_what_is_surely_wrong_is_not_worth_comparing() -> None:
    assert CalibratedDecider().decide(ASKED, [candidate(0.3)], 0.01).teaches is None


def test_comparing_answers_is_common_at_first_and_rare_later() -> None:
    decider = CalibratedDecider()
    near = [candidate(0.86, "a", "same"), candidate(0.85, "b", "same")]
    for _ in range(1000):
        decider.decide(ASKED, near, 1e-9)
        decider.observe("a", was_right=True)
    wanted = [decider.decide(ASKED, near, 1e-9).teaches is not None for _ in range(80)]

    assert sum(wanted) == 10
