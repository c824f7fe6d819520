"""A course's plan: who is asked, who is served, and what happens when models fail."""

from __future__ import annotations

import pytest

from gateway.features import Features
from policies.rules import RequestFacts
from policies.schema import Route
from router.cold import ColdCourses
from router.learned import LearnedRouter
from router.types import Call, Capabilities, Draft, NoModelLeft, Serve, TokenStats, Tried

FACTS = RequestFacts(tenant="t", key="k", model="auto", stream=False, input_tokens=100)
SURE = TokenStats((-0.01, -0.02))
UNSURE = TokenStats((-0.01, -1.5))


def route(*tiers, **others):
    return Route.model_validate({"cascade": {"tiers": tiers, "confidence": "learned"}, **others})


def start(route, courses=None, capabilities=None, facts=FACTS, *, drawn=False):
    courses = courses or ColdCourses(route.cascade.reference_model)
    features = Features([])
    features.is_drawn = drawn
    return LearnedRouter(route, capabilities or {}, courses).start(facts, features)


def draft(model, text="42", stats=None, finish="stop"):
    return Draft(model, text, finish, stats=stats)


async def nobody(model):
    raise AssertionError("no second opinion is asked for")


async def judged(plan, *drafts):
    return [Tried(d.model, await plan.judge(d, nobody)) for d in drafts]


async def test_sure_draft_is_served():
    plan = start(route("small", "large"))
    tried = await judged(plan, draft("small", stats=SURE))

    assert tried[0].verdict.accepted
    assert plan.next(tried) == Serve(0)


async def test_doubtful_draft_hands_on_to_the_reference_which_goes_out_live():
    plan = start(route("small", "large"))
    tried = await judged(plan, draft("small", stats=UNSURE))

    assert not tried[0].verdict.accepted
    assert plan.next(tried) == Call("large", judged=False)


async def test_second_draft_that_agrees_is_served_without_the_reference():
    plan = start(route("small", "middle", "large"))
    tried = await judged(plan, draft("small", "Answer: 42"))
    assert plan.next(tried) == Call("middle", judged=True)
    tried += await judged(plan, draft("middle", "So, answer: 42."))

    assert plan.next(tried) == Serve(1)
    assert "small" in tried[1].verdict.reason


async def test_draft_without_any_sign_of_certainty_is_not_served():
    plan = start(route("small", "large"))
    tried = await judged(plan, draft("small"))

    assert plan.next(tried) == Call("large", judged=False)


@pytest.mark.parametrize("finish", ["length", "content_filter", None])
async def test_sure_but_useless_draft_is_not_served(finish):
    plan = start(route("small", "large"))
    tried = await judged(plan, draft("small", stats=SURE, finish=finish))

    assert plan.next(tried) == Call("large", judged=False)


async def test_rejected_draft_is_better_than_no_answer():
    plan = start(route("small", "large"))
    tried = await judged(plan, draft("small", stats=UNSURE))
    tried.append(Tried("large", error="timeout"))

    assert plan.next(tried) == Serve(0, degraded=True)


async def test_fallback_follows_when_the_reference_has_failed():
    plan = start(route("small", "large", fallback=["spare"]))
    tried = await judged(plan, draft("small", stats=UNSURE))
    tried.append(Tried("large", error="timeout"))

    assert plan.next(tried) == Call("spare", judged=False, why="fallback")


async def test_everything_failing_says_why():
    plan = start(route("small", "large"))
    tried = [Tried("small", error="timeout"), Tried("large", error="unavailable")]

    with pytest.raises(NoModelLeft, match="small: timeout; large: unavailable"):
        plan.next(tried)


async def test_uncertified_floor_is_answered_by_the_reference():
    cold = ColdCourses("large", may_serve=False)
    plan = start(route("small", "large"), cold)

    assert plan.next([]) == Call("large", judged=False)


async def test_some_requests_under_an_uncertified_floor_are_drafted_but_never_served_so():
    cold = ColdCourses("large", may_serve=False)
    plan = start(route("small", "large"), cold, drawn=True)
    tried = await judged(plan, draft("small", stats=SURE))

    assert plan.next([]) == Call("small", judged=True)
    assert plan.next(tried) == Call("large", judged=False)


async def test_model_that_is_not_able_is_left_out():
    seeing = RequestFacts("t", "k", "auto", stream=False, input_tokens=1, has_images=True)
    plan = start(
        route("blind", "small", "large"),
        capabilities={"blind": Capabilities(vision=False)},
        facts=seeing,
    )

    assert plan.next([]) == Call("small", judged=True)
    assert [skip.model for skip in plan.skipped] == ["blind"]


async def test_last_model_able_stands_in_for_a_reference_that_is_not():
    seeing = RequestFacts("t", "k", "auto", stream=False, input_tokens=1, has_images=True)
    plan = start(
        route("small", "middle", "large"),
        capabilities={"large": Capabilities(vision=False)},
        facts=seeing,
    )
    tried = await judged(plan, draft("small", stats=UNSURE))

    assert plan.next(tried) == Call("middle", judged=False)


async def test_rule_names_the_model_alone():
    rules = [{"when": {"stream": False}, "model": "large"}]
    plan = start(route("small", "large", rules=rules))

    assert plan.next([]) == Call("large", judged=False)
