"""What another policy would have made of logged traffic, and what it cannot know."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.changes.planning import LoggedCall, LoggedRequest, Replay
from gateway.money.prices import resolve_prices
from gateway.money.usage import Usage
from policies.loader import parse_policy
from tests.support.policies import CHEAP, DEAR, KEPT, policy, remote

NOW = datetime(2026, 11, 20, tzinfo=UTC)
USED = Usage(input=100, output=50)
SMALL_COSTS, LARGE_COSTS = 200_000, 2_000_000
"""Nano-dollars of such a call."""


def _policy(route=None, *, small=CHEAP, threshold=0.8, keys=(), **more):
    models = {
        "small": remote("http://127.0.0.1:1/v1", price=small, logprobs=True),
        "large": remote("http://127.0.0.1:2/v1", price=DEAR),
    }
    confidence = {"kind": "logprob", "threshold": threshold}
    cascade = {"cascade": {"tiers": ["small", "large"], "confidence": confidence}, "cache": KEPT}
    access = {"anonymous": "loopback", "keys": [{"name": n, "key": f"sk-{n}"} for n in keys]}
    text = policy(models, {"auto": route or cascade}, access=access, **more)
    return parse_policy(text, name="p", env={})


def _call(model, outcome="accepted", confidence=None):
    return LoggedCall(model, USED, 0, outcome, confidence, 1.0)


def _request(*calls, **changes):
    told = {
        "requested_model": "auto", "tenant": "web", "key": "ci", "tags": frozenset(),
        "stream": False, "cache": "miss", "model": calls[-1].model if calls else "large",
        "cost_nano_usd": 5, "saved_nano_usd": 0, "latency_s": 1.0 * len(calls), "calls": calls,
    }  # fmt: skip
    return LoggedRequest(**(told | changes))


KEPT_DRAFT = _request(_call("small", confidence=0.9))
BETTER_ASKED = _request(_call("small", "rejected", 0.5), _call("large"))


def _replayed(new, *requests, old=None, made=frozenset()):
    old = old or _policy()
    (found,) = Replay(old, new, resolve_prices(new, NOW), made).run(requests)
    return found


def _cost(found):
    return found.cost.low, found.cost.high, found.cost.middle


def test_the_same_way_is_priced_anew_to_the_nano_dollar():
    found = _replayed(_policy(small=DEAR), KEPT_DRAFT, BETTER_ASKED)

    assert _cost(found) == (3 * LARGE_COSTS,) * 3
    assert found.unsure == 0


def test_a_threshold_moves_whose_confidence_was_logged():
    found = _replayed(_policy(threshold=0.4), KEPT_DRAFT, BETTER_ASKED)

    assert _cost(found) == (2 * SMALL_COSTS,) * 3


def test_a_draft_that_would_no_longer_do_is_followed_by_what_is_not_known_but_priced():
    found = _replayed(_policy(threshold=0.95), KEPT_DRAFT)

    assert _cost(found) == (SMALL_COSTS + LARGE_COSTS,) * 3
    assert found.calls["large"].low == 1.0


def test_where_no_confidence_was_logged_both_ways_are_counted():
    unjudged = _request(_call("large"))
    found = _replayed(_policy(threshold=0.5), unjudged, BETTER_ASKED, KEPT_DRAFT)

    assert found.unsure == 1
    assert found.cost.high - found.cost.low == LARGE_COSTS
    assert found.cost.middle == pytest.approx(2 * SMALL_COSTS + SMALL_COSTS + LARGE_COSTS / 2)


def test_one_model_in_place_of_a_cascade_is_known():
    found = _replayed(_policy({"model": "large", "cache": KEPT}), KEPT_DRAFT, BETTER_ASKED)

    assert _cost(found) == (2 * LARGE_COSTS,) * 3


def test_a_rule_on_what_is_not_kept_of_a_request_may_hold_or_not():
    rules = [{"when": {"has_tools": True}, "model": "small"}]
    found = _replayed(_policy({"model": "large", "cache": KEPT, "rules": rules}), BETTER_ASKED)

    assert (found.cost.low, found.cost.high, found.cost.middle) == (SMALL_COSTS, LARGE_COSTS, None)
    assert sum(found.notes.values()) == 1


def test_a_rule_on_what_is_kept_holds():
    rules = [{"when": {"tenant": "web", "input_tokens_over": 50}, "model": "small"}]
    found = _replayed(_policy({"model": "large", "cache": KEPT, "rules": rules}), BETTER_ASKED)

    assert _cost(found) == (SMALL_COSTS,) * 3


def test_who_would_not_be_let_in_is_counted_and_costs_nothing():
    gone = _replayed(_policy(), _request(requested_model="best"))
    old = _policy(keys=("ci",))
    no_key = _replayed(_policy(), KEPT_DRAFT, old=old)
    made_key = _replayed(_policy(), KEPT_DRAFT, old=old, made=frozenset({"ci"}))

    assert (gone.refused, no_key.refused, made_key.refused) == (1, 1, 0)
    assert _cost(gone) == (0.0, 0.0, 0.0)


def test_a_hit_stays_free_unless_its_cache_is_gone():
    hit = _request(cache="exact", saved_nano_usd=900)
    kept = _replayed(_policy(), hit)
    gone = _replayed(_policy({"model": "large"}), hit)

    assert _cost(kept) == (0.0, 0.0, 0.0)
    assert _cost(gone) == (0.0, 900.0, None)


def test_a_learned_route_may_ask_any_tier():
    route = {"cascade": {"tiers": ["small", "large"], "confidence": "learned"}, "cache": KEPT}
    found = _replayed(_policy(route), BETTER_ASKED)

    assert (found.cost.low, found.cost.high) == (SMALL_COSTS, SMALL_COSTS + LARGE_COSTS)
