"""Drawn requests: everything is drafted, and the client gets what it would have got."""

from __future__ import annotations

import pytest

from router.beside import BesideCourse
from router.cold import ColdCourses
from router.course import CoursePlan, Judged, Step
from router.query import Query
from router.types import Call, Draft, Serve, Tried

QUERY = Query("What is 2 + 2?")


class Straight:
    """Asks `first`, and the reference where that is not enough; judges by length."""

    needs_stats = False

    def __init__(self, first=None):
        self.first = first

    def watches(self, model):
        return False

    def watch(self, draft, earlier):
        return True

    def is_judged(self, model):
        return False

    def judge(self, draft, earlier):
        return (*earlier, Judged(draft, len(draft.text) / 10, "by length", expected=0.5))

    def step(self, drafts, barred):
        if drafts and drafts[-1].quality >= 0.9:
            return Step(None, len(drafts) - 1)
        for model in (self.first, "large"):
            if model is not None and model not in barred:
                return Step(model)
        return None


def plan(course):
    beside = BesideCourse(course, QUERY, ["small", "middle"], "large")
    return CoursePlan(beside, barred=frozenset(), fallback=(), skipped=())


async def nobody(model):
    raise AssertionError("no second opinion is asked for")


async def judged(plan, *drafts):
    return [Tried(d.model, await plan.judge(d, nobody)) for d in drafts]


def draft(model, text="4"):
    return Draft(model, text, "stop")


async def test_drafts_are_made_beside_and_the_reference_serves_all_the_same():
    course = plan(Straight())
    assert course.next([]) == Call("small", judged=True)
    tried = await judged(course, draft("small", "2 + 2 = 4, surely"))
    assert not tried[0].verdict.accepted
    assert course.next(tried) == Call("middle", judged=True)
    tried += await judged(course, draft("middle"))

    assert course.next(tried) == Call("large", judged=False)


async def test_what_would_be_served_anyway_is():
    course = plan(Straight("small"))
    tried = await judged(course, draft("small", "2 + 2 = 4, surely"))

    assert course.next(tried) == Serve(0)


async def test_own_signs_are_noted_beside_what_the_course_believes():
    beside = BesideCourse(Straight(), QUERY, ["small", "middle"], "large")
    first = beside.judge(draft("small", "2 + 2 = 5"), ())
    both = beside.judge(draft("middle", "2 + 2 = 4"), first)
    cold = ColdCourses("large").begin(QUERY, ["small", "middle", "large"])
    alone = cold.judge(draft("small", "2 + 2 = 5"), ())

    assert both[0].raw == first[0].raw == alone[0].raw < 0.1
    assert both[1].raw > 0.5
    assert [each.expected for each in both] == [0.5, 0.5]


@pytest.mark.parametrize("failed", ["small", "middle"])
async def test_model_that_fails_beside_is_left_out(failed):
    course = plan(Straight())
    other = "middle" if failed == "small" else "small"
    tried = [Tried(failed, error="timeout")]
    assert course.next(tried) == Call(other, judged=True)
    tried += await judged(course, draft(other))

    assert course.next(tried) == Call("large", judged=False)
