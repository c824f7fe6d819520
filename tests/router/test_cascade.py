from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.cascade import Confidence
from policies.rules import RequestFacts
from policies.schema import Route
from router.cascade import build_router
from router.confidence import AgreementScorer, LogprobScorer
from router.types import (
    Call,
    Capabilities,
    Draft,
    NoModelLeft,
    Serve,
    Skip,
    TokenStats,
    Tried,
    Verdict,
    cut_short,
)

# A busy machine is no reason to fail.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

FACTS = RequestFacts(tenant="t", key="k", model="auto", stream=False, input_tokens=100)
ACCEPTED = Verdict(True, 0.9, "confident")


def facts(**others):
    return RequestFacts(
        **{"tenant": "t", "key": "k", "model": "auto", "stream": False, "input_tokens": 100}
        | others
    )


def cascade(*tiers, confidence="logprob", **others):
    return Route.model_validate({"cascade": {"tiers": tiers, "confidence": confidence}, **others})


def start(route, capabilities=None, asked=FACTS):
    return build_router(route, capabilities or {}).start(asked)


def rejected(confidence=0.3):
    return Verdict(False, confidence, "confidence below 0.8")


def test_all_tiers_but_the_last_are_judged():
    plan = start(cascade("small", "middle", "large"))
    small, middle = Tried("small", rejected()), Tried("middle", rejected())

    assert plan.next([]) == Call("small", judged=True)
    assert plan.next([small]) == Call("middle", judged=True)
    assert plan.next([small, middle]) == Call("large", judged=False)


def test_an_accepted_draft_is_served():
    plan = start(cascade("small", "middle", "large"))

    assert plan.next([Tried("small", rejected()), Tried("middle", ACCEPTED)]) == Serve(1)


def test_a_tier_that_fails_hands_on_to_the_next_tier_and_not_to_a_fallback():
    plan = start(cascade("small", "large", fallback=["spare"]))

    assert plan.next([Tried("small", error="timeout")]) == Call("large", judged=False)


def test_fallbacks_follow_the_failure_of_the_last_tier_in_their_order():
    plan = start(cascade("small", "large", fallback=["spare", "last"]))
    tried = [Tried("small", rejected()), Tried("large", error="timeout")]

    assert plan.next(tried) == Call("spare", judged=False, why="fallback")
    tried.append(Tried("spare", error="unavailable"))
    assert plan.next(tried) == Call("last", judged=False, why="fallback")


def test_a_fallback_that_is_a_tier_is_not_called_twice():
    plan = start(cascade("small", "large", fallback=["small", "spare", "spare"]))
    tried = [Tried("small", error="timeout"), Tried("large", error="timeout")]

    assert plan.next(tried) == Call("spare", judged=False, why="fallback")
    with pytest.raises(NoModelLeft):
        plan.next([*tried, Tried("spare", error="timeout")])


def test_when_all_else_fails_the_most_trusted_rejected_draft_is_served_as_degraded():
    plan = start(cascade("small", "middle", "large"))
    tried = [
        Tried("small", rejected(0.6)),
        Tried("middle", rejected(0.4)),
        Tried("large", error="unavailable"),
    ]

    assert plan.next(tried) == Serve(0, degraded=True)


def test_among_equally_trusted_drafts_the_one_of_the_better_tier_is_served():
    plan = start(cascade("small", "middle", "large"))
    silent = Verdict(False, None, "the model reported no token log-probabilities")
    tried = [Tried("small", silent), Tried("middle", silent), Tried("large", error="timeout")]

    assert plan.next(tried) == Serve(1, degraded=True)


def test_a_draft_that_was_cut_short_is_never_served():
    plan = start(cascade("small", "large"))
    tried = [Tried("small", cut_short("given up", 0.7)), Tried("large", error="timeout")]

    with pytest.raises(NoModelLeft, match="small: given up; large: timeout"):
        plan.next(tried)


def test_a_single_tier_is_one_live_call_and_then_fallbacks():
    plan = start(Route.model_validate({"model": "large", "fallback": ["spare"]}))

    assert plan.next([]) == Call("large", judged=False)
    assert plan.next([Tried("large", error="timeout")]) == Call("spare", False, "fallback")


def test_a_tier_that_cannot_serve_is_skipped_with_what_it_lacks():
    capabilities = {"small": Capabilities(tools=False), "large": Capabilities(tools=True)}
    plan = start(cascade("small", "large"), capabilities, facts(has_tools=True))

    assert plan.next([]) == Call("large", judged=False)
    assert plan.skipped == (Skip("small", "tools"),)


def test_the_last_tier_that_is_able_goes_out_live():
    capabilities = {"large": Capabilities(context=50)}
    plan = start(cascade("small", "middle", "large"), capabilities)

    assert plan.next([]) == Call("small", judged=True)
    assert plan.next([Tried("small", rejected())]) == Call("middle", judged=False)
    assert [skip.model for skip in plan.skipped] == ["large"]


def test_fallbacks_that_are_unable_are_skipped_too():
    capabilities = {"spare": Capabilities(vision=False)}
    plan = start(cascade("large", fallback=["spare"]), capabilities, facts(has_images=True))

    with pytest.raises(NoModelLeft, match=r"large: timeout; spare: lacks vision"):
        plan.next([Tried("large", error="timeout")])


def test_when_no_tier_is_able_nothing_is_called_and_the_reasons_are_given():
    capabilities = {"small": Capabilities(context=10), "large": Capabilities(context=20)}
    plan = start(cascade("small", "large", fallback=["spare"]), capabilities)

    with pytest.raises(NoModelLeft, match=r"small: lacks context .* large: lacks context"):
        plan.next([])


def test_a_tier_whose_drafts_could_not_be_judged_is_skipped_unless_it_is_last():
    capabilities = {m: Capabilities(logprobs=False) for m in ("small", "large")}
    plan = start(cascade("small", "middle", "large"), capabilities)

    assert plan.next([]) == Call("middle", judged=True)
    assert plan.next([Tried("middle", rejected())]) == Call("large", judged=False)
    assert [(skip.model, skip.reason) for skip in plan.skipped] == [("small", "logprobs")]


def test_a_tier_without_logprobs_is_kept_where_the_confidence_needs_none():
    route = cascade("small", "large", confidence={"kind": "agreement", "with": "second"})
    scorer = AgreementScorer(route.cascade.confidence)
    router = build_router(route, {"small": Capabilities(logprobs=False)}, scorer)

    assert router.start(FACTS).next([]) == Call("small", judged=True)


def test_a_rule_names_one_model_that_is_sent_live():
    rules = [{"when": {"has_images": True}, "model": "seer"}]
    plan = start(cascade("small", "large", rules=rules, fallback=["spare"]), None, facts())
    seen = start(
        cascade("small", "large", rules=rules, fallback=["spare"]), None, facts(has_images=True)
    )

    assert plan.next([]) == Call("small", judged=True)
    assert seen.next([]) == Call("seer", judged=False)
    assert seen.next([Tried("seer", error="timeout")]) == Call("spare", False, "fallback")


def test_a_rule_names_other_tiers_and_the_first_match_wins():
    rules = [
        {"when": {"tag": "batch"}, "tiers": ["middle", "large"]},
        {"when": {"tag": "batch"}, "model": "never"},
    ]
    plan = start(cascade("small", "large", rules=rules), None, facts(tags=frozenset({"batch"})))

    assert plan.next([]) == Call("middle", judged=True)
    assert plan.next([Tried("middle", rejected())]) == Call("large", judged=False)


def test_a_rule_about_the_cache_leaves_the_tiers_alone():
    rules = [{"when": {"tenant": "t"}, "cache": {"exact": "off"}}]

    assert start(cascade("small", "large", rules=rules)).next([]) == Call("small", judged=True)


async def test_a_plan_watches_and_judges_with_the_scorer_of_its_route():
    confidence = Confidence.model_validate({"threshold": 0.5, "early": {"after_tokens": 1}})
    plan = build_router(cascade("small", "large"), {}, LogprobScorer(confidence)).start(FACTS)

    async def nobody(model):
        raise AssertionError(f"{model} must not be asked")

    assert plan.watches("small")
    assert plan.needs_stats
    assert not plan.watch(Draft("small", "1", None, stats=TokenStats((-5.0,))))
    assert plan.watch(Draft("small", "1", None))
    draft = Draft("small", "17", "stop", stats=TokenStats((-0.1,)))
    assert (await plan.judge(draft, nobody)).accepted


# What may happen to an attempt: a draft is judged, or cut short, or the call fails.
verdicts = st.one_of(
    st.builds(Verdict, st.booleans(), st.none() | st.floats(0, 1), st.just("judged")),
    st.builds(cut_short, st.just("early"), st.none() | st.floats(0, 1)),
)
happenings = st.lists(st.tuples(verdicts, st.booleans()), min_size=10, max_size=10)
names = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=5, unique=True)
tool_users = st.fixed_dictionaries(dict.fromkeys("abcdef", st.sampled_from([None, True, False])))


@unhurried
@given(tiers=names, fallback=names, can_use_tools=tool_users, happenings=happenings)
def test_whatever_happens_a_plan_comes_to_a_sound_end(tiers, fallback, can_use_tools, happenings):
    route = cascade(*tiers, fallback=fallback)
    capabilities = {m: Capabilities(tools=tools) for m, tools in can_use_tools.items()}
    plan = start(route, capabilities, facts(has_tools=True))

    tried, calls, ended = play(plan, happenings)

    models = [call.model for call in calls]
    assert len(set(models)) == len(models), "no model is called twice"
    assert all(can_use_tools[model] is not False for model in models)
    assert all(before.judged or tried[i].error for i, before in enumerate(calls[:-1]))
    for before, call in zip(tried, calls[1:], strict=False):
        assert call.why == "tier" or before.error, "a fallback follows an error"
    if ended is None:
        assert all(t.error or not t.verdict.servable for t in tried)
    elif isinstance(ended, Serve):
        verdict = tried[ended.index].verdict
        assert verdict is not None, "a failed attempt is never served"
        assert verdict.accepted != ended.degraded
        if ended.degraded:
            assert verdict.servable
            assert (verdict.confidence or 0) == max(
                t.verdict.confidence or 0 for t in tried if t.verdict and t.verdict.servable
            )
    else:
        assert not ended.judged, "otherwise a live call answered"


def play(plan, happenings):
    """Do what the plan says; return the attempts, all calls, and the end: Serve, Call or None."""
    tried, calls = [], []
    for verdict, fails in happenings:
        try:
            step = plan.next(tried)
        except NoModelLeft:
            return tried, calls, None
        if isinstance(step, Serve):
            return tried, calls, step
        calls.append(step)
        if fails:
            tried.append(Tried(step.model, error="timeout"))
        elif step.judged:
            tried.append(Tried(step.model, verdict))
        else:
            return tried, calls, step
    raise AssertionError("the plan did not come to an end")
