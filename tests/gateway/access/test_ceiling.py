"""Which models a request's own ceiling leaves, and a plan that goes without the others."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from gateway.access.ceiling import ModestPlan, too_dear
from gateway.access.keys import ANONYMOUS
from gateway.access.worst_case import WorstCase, models_of
from gateway.money.price import Price
from gateway.money.prices import PriceBook
from gateway.request import parse_chat
from policies.schema import Route
from router.cascade import build_router
from router.types import Call, NoModelLeft, Serve, Tried, Verdict

REQUEST = parse_chat(
    json.dumps(
        {"model": "r", "max_tokens": 1000, "messages": [{"role": "user", "content": "hi"}]}
    ).encode(),
    {},
    "id",
)
FACTS = REQUEST.facts(ANONYMOUS)
# A call of each: 1, 10 and 100 dollars.
BOOK = PriceBook(
    {name: Price(per_call=Decimal(at)) for name, at in (("a", 1), ("b", 10), ("c", 100))}
)
USD = 10**9
SURE, UNSURE = Verdict(True, 0.9, ""), Verdict(False, 0.2, "unsure")


def _route(**more):
    return Route.model_validate({"cascade": {"tiers": ["a", "b", "c"]}, **more})


def _out(usd, **more):
    return too_dear(WorstCase(BOOK, {}), REQUEST, _route(**more), FACTS, int(usd * USD))


@pytest.mark.parametrize(
    ("usd", "left_out"),
    [(111, ""), (110, "c"), (11, "c"), (10.5, "bc"), (1, "bc"), (0.5, "abc"), (0, "abc")],
)
def test_models_stay_while_the_worst_case_of_all_that_stay_is_within_the_ceiling(usd, left_out):
    assert _out(usd) == frozenset(left_out)


def test_what_stays_never_costs_more_than_the_ceiling_with_retries_judges_and_fallbacks():
    more = {
        "cascade": {"tiers": ["a", "b"], "confidence": {"kind": "agreement", "with": "a"}},
        "retries": {"attempts": 3},
        "fallback": ["c"],
    }
    route, worst = _route(**more), WorstCase(BOOK, {})
    for usd in (0, 1, 3, 4, 33, 34, 35, 334, 400):
        out = _out(usd, **more)
        left = models_of(route, FACTS, without=out)

        assert not out & set(left) - {"a"}
        if out != {"a", "b", "c"}:
            assert worst.nano_usd(REQUEST, route, left) <= usd * USD


def _plan(*left_out, **more):
    plan = build_router(_route(**more), {}).start(FACTS)
    return ModestPlan(plan, frozenset(left_out), 0)


def test_the_plan_passes_over_what_is_left_out():
    plan = _plan("a")

    assert plan.next([]) == Call("b", judged=True)
    assert plan.next([Tried("b", UNSURE)]) == Call("c", judged=False)
    assert plan.next([Tried("b", SURE)]) == Serve(0)


def test_a_rejected_draft_is_served_where_nothing_better_may_be_paid_for():
    plan = _plan("b", "c")

    assert plan.next([]) == Call("a", judged=True)
    assert plan.next([Tried("a", UNSURE)]) == Serve(0, degraded=True)
    assert [(skip.model, skip.reason) for skip in plan.skipped] == [
        ("b", "max_usd"), ("c", "max_usd"),
    ]  # fmt: skip


def test_a_fallback_that_may_be_paid_for_is_asked():
    plan = _plan("b", "c", fallback=["d"])

    assert plan.next([Tried("a", error="timeout")]) == Call("d", judged=False, why="fallback")


def test_nothing_is_left_where_nothing_may_be_paid_for():
    with pytest.raises(NoModelLeft):
        _plan("a", "b", "c").next([])
