"""Who is asked first where a conversation is cached: never dearer, and never a lesser tier."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.schema import Route
from router.cascade import build_router
from router.stakes import Stake, stay
from router.types import Call, Capabilities, NoModelLeft, Tried
from tests.router.test_cascade import FACTS, cascade, rejected

TIERS = ("small", "middle", "large")
DEAR_TO_LEAVE = {"small": Stake(0.006), "large": Stake(0.025, 0.0225)}


class Known:
    """What is known of a request, as far as the rules of a cascade ask for it."""

    def __init__(self, stakes):
        self.stakes = stakes


def started(route, stakes, capabilities=None):
    return build_router(route, capabilities or {}).start(FACTS, Known(stakes))


def test_conversation_stays_where_leaving_forfeits_more_than_the_switch_saves():
    order = stay(("small", "large"), DEAR_TO_LEAVE)

    assert (order.tiers, order.left) == (("large",), ("small",))
    assert "stays on large" in order.reason
    assert "$0.022500" in order.reason
    assert "small would save $0.019000" in order.reason


def test_conversation_leaves_where_the_switch_saves_more():
    stakes = {"small": Stake(0.002), "large": Stake(0.025, 0.0225)}

    assert stay(("small", "large"), stakes).tiers == ("small", "large")


def test_what_is_cached_on_both_is_weighed_on_both():
    stakes = {"small": Stake(0.006, 0.005), "large": Stake(0.025, 0.0225)}

    assert stay(("small", "large"), stakes).left == ()


def test_warm_cheap_tier_sends_no_dearer_one_away():
    stakes = {"small": Stake(0.006, 0.005), "large": Stake(0.025)}

    assert stay(("small", "large"), stakes).tiers == ("small", "large")


amounts = st.floats(0, 1)
stakes_of_all = st.fixed_dictionaries(
    {},
    optional={
        name: st.builds(lambda usd, share: Stake(usd, usd * share), amounts, amounts)
        for name in TIERS
    },
)


@given(stakes_of_all)
def test_every_tier_stays_or_is_left_to_a_later_one_that_costs_no_more(stakes):
    order = stay(TIERS, stakes)

    assert sorted((*order.tiers, *order.left)) == sorted(TIERS)
    assert [name for name in TIERS if name in order.tiers] == list(order.tiers)
    assert order.tiers[-1] == "large"
    assert bool(order.reason) == bool(order.left)
    for name in order.left:
        later = [stakes[each] for each in order.tiers if TIERS.index(each) > TIERS.index(name)
                 and each in stakes]  # fmt: skip
        assert any(s.forfeit_usd > 0 and s.net_usd <= stakes[name].net_usd for s in later)


def test_cascade_asks_the_warm_tier_first_and_the_others_only_once_it_failed():
    plan = started(cascade(*TIERS, fallback=["other"]), DEAR_TO_LEAVE | {"middle": Stake(0.02)})
    first = plan.next([])
    failed = Tried("large", error="timeout")

    assert (first.model, first.judged, first.why) == ("large", False, "stay")
    assert "stays on large" in first.reason
    assert plan.next([failed]) == Call("small", judged=False, why="fallback")
    two = [failed, Tried("small", error="timeout")]
    assert plan.next(two) == Call("middle", judged=False, why="fallback")
    three = [*two, Tried("middle", error="timeout")]
    assert plan.next(three) == Call("other", judged=False, why="fallback")


def test_warm_middle_tier_is_judged_and_may_escalate():
    stakes = {"small": Stake(0.01), "middle": Stake(0.02, 0.015), "large": Stake(0.1)}
    plan = started(cascade(*TIERS), stakes)

    assert (plan.next([]).model, plan.next([]).judged) == ("middle", True)
    assert plan.next([Tried("middle", rejected())]) == Call("large", judged=False)


def test_rules_that_name_the_tiers_are_kept_to():
    rules = [{"when": {"tenant": "t"}, "tiers": ["small", "middle"]}]
    stakes = DEAR_TO_LEAVE | {"middle": Stake(0.02, 0.019)}
    plan = started(cascade(*TIERS, rules=rules), stakes)

    assert plan.next([]).model == "middle"


def test_rule_that_names_one_model_is_the_operators_word():
    rules = [{"when": {"tenant": "t"}, "model": "small"}]
    plan = started(cascade(*TIERS, rules=rules), DEAR_TO_LEAVE)

    assert plan.next([]) == Call("small", judged=False)


def test_tier_that_is_not_able_is_not_stayed_on():
    plan = started(cascade("small", "large"), DEAR_TO_LEAVE, {"large": Capabilities(context=10)})

    assert plan.next([]) == Call("small", judged=False)


def test_route_of_one_model_has_nowhere_to_go():
    plan = started(Route(model="large"), DEAR_TO_LEAVE)

    assert plan.next([]) == Call("large", judged=False)


def test_request_that_no_tier_is_able_to_serve_says_so():
    unable = {name: Capabilities(context=10) for name in ("small", "large")}
    plan = started(cascade("small", "large"), DEAR_TO_LEAVE, unable)

    with pytest.raises(NoModelLeft, match="context"):
        plan.next([])
