"""Drafts judged by their own signs, whole and under way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.cold import ColdCourses
from router.online.acceptance import Acceptance, Platt
from router.query import Query
from router.stakes import Stake
from router.types import Draft, TokenStats
from router.validators import ToolCall, Wanted

LOGPROBS = st.lists(st.floats(-8.0, 0.0), min_size=1, max_size=12)
ANSWERS = st.sampled_from(["2 + 2 = 4", "2 + 2 = 5", "4", "perhaps", "[1, 2]"])
QUESTIONS = st.sampled_from(["What is 2 + 2?", "assert f(2) == ??", "Why?"])


def draft(model, text, logprobs=None, finish="stop"):
    return Draft(model, text, finish, stats=None if logprobs is None else TokenStats(logprobs))


def courses(threshold=0.8, platt=None, **changes):
    given = {"stage": "certified", "watched": frozenset({"small", "middle"}), **changes}
    return ColdCourses("large", acceptance=Acceptance(threshold, platt or {}), **given)


def begun(courses, query=None, **changes):
    return courses.begin(query or Query("What is 2 + 2?"), ["small", "middle", "large"], **changes)


@given(
    LOGPROBS, ANSWERS, ANSWERS, QUESTIONS, st.floats(0.05, 0.99), st.floats(0.2, 3.0),
    st.floats(-2.0, 2.0), st.booleans(), st.data(),
)  # fmt: skip
def test_no_draft_is_given_up_that_would_have_been_served(
    logprobs, text, other, question, threshold, weight, bias, has_earlier, data
):
    platt = {"small": Platt(weight, bias), "middle": Platt(weight, bias)}
    course = begun(courses(threshold, platt), Query(question))
    earlier = course.judge(draft("small", other, (-0.5,)), ()) if has_earlier else ()
    model = "middle" if has_earlier else "small"
    judged = course.judge(draft(model, text, tuple(logprobs)), earlier)
    step = course.step(judged, frozenset({"small", model}))
    cut = data.draw(st.integers(1, len(logprobs)))

    if step is not None and step.model is None:
        assert course.watch(draft(model, text[:1], tuple(logprobs[:cut]), None), earlier)


def test_hopeless_draft_is_given_up_and_one_that_says_nothing_is_not():
    course = begun(courses())

    assert not course.watch(draft("small", "4", (-0.1, -4.0), None), ())
    assert course.watch(draft("small", "4", None, None), ())
    assert course.watches("small")
    assert not course.watches("large")


@pytest.mark.parametrize("changes", [{"drawn": True}, {}])
def test_drafts_that_are_to_be_compared_come_to_their_end(changes):
    cold = courses(may_serve=bool(changes))
    course = begun(cold, drawn=True) if changes else begun(cold)

    assert not course.watches("small")


def test_wrong_calculation_weighs_more_than_sure_tokens():
    course = begun(courses())
    (right,) = course.judge(draft("small", "2 + 2 = 4", (-0.1,)), ())
    (wrong,) = course.judge(draft("small", "2 + 2 = 5", (-0.1,)), ())

    assert right.raw > 0.9
    assert wrong.raw < 0.4
    assert "a calculation is wrong" in wrong.why


def test_reply_that_was_to_be_json_and_is_none_is_doubted():
    course = begun(courses(), Query("Give me JSON", json_schema=True))
    (prose,) = course.judge(draft("small", "Sure! Here it is", (-0.01,)), ())
    (json,) = course.judge(draft("small", '{"a": 1}', (-0.01,)), ())

    assert prose.raw < json.raw
    assert "no JSON" in prose.why


def test_failed_check_outweighs_an_earlier_draft_that_agrees():
    course = begun(courses())
    first = course.judge(draft("small", "2 + 2 = 5\n#### 5"), ())
    both = course.judge(draft("middle", "2 + 2 = 5\n#### 5"), first)

    assert first[0].raw < both[1].raw < 0.9


def test_certified_order_gives_way_to_the_reference_alone():
    warm = {"middle": Stake(1.0, 0.9), "small": Stake(0.5), "large": Stake(5.0)}
    certified, free = courses(is_certified=True), courses()

    assert begun(certified, stakes=warm).tiers == ("small", "middle", "large")
    assert begun(free, stakes=warm).tiers[0] == "middle"


def test_drafts_with_the_same_signs_are_told_apart_by_next_to_nothing():
    course = begun(courses())
    raws = [course.judge(draft("small", f"word {number}"), ())[0].raw for number in range(200)]

    assert len(set(raws)) == 200
    assert max(raws) - min(raws) < 0.001
    assert course.judge(draft("small", "word 7"), ())[0].raw == raws[7]


def test_a_tool_call_that_breaks_its_schema_is_doubted_and_one_unread_is_not():
    tools = {"add": {"type": "object", "required": ["a"]}}
    course = begun(courses(), Query("Add", wanted=Wanted(tools=tools)))

    def called(*calls):
        made = Draft("small", "", "tool_calls", 1, TokenStats((-0.1,)), calls)
        (judged,) = course.judge(made, ())
        return judged

    right, wrong = called(ToolCall("add", '{"a": 1}')), called(ToolCall("add", "{}"))
    assert right.raw == called().raw > 0.9
    assert wrong.raw < 0.4
    assert "a tool's arguments break their schema" in wrong.why
