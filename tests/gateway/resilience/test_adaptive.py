"""The limit follows what a deployment can take, against a simple model of one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.resilience.adaptive import AdaptiveLimit
from policies.resilience import AdaptiveRules


def _limit(**rules):
    return AdaptiveLimit(AdaptiveRules.model_validate(rules))


def _saturate(limit, capacity, rounds=400, quick_s=0.1):
    """Keep a deployment full that answers at once up to its capacity, and queues the rest."""
    for _ in range(rounds):
        under_way = limit.limit
        limit.answered(quick_s * max(1.0, under_way / capacity), under_way)


def test_the_limit_grows_while_latency_is_as_usual():
    limit = _limit(start=8, max=200)
    _saturate(limit, capacity=10**6)

    assert limit.limit == 200


def test_the_limit_settles_near_what_the_deployment_can_take():
    limit = _limit(start=8)
    _saturate(limit, capacity=1000, rounds=20)  # what is usual is learned while it is quick
    _saturate(limit, capacity=40)

    assert 40 <= limit.limit <= 120


def test_few_calls_say_nothing_of_what_many_would_meet():
    limit = _limit(start=32)
    for _ in range(100):
        limit.answered(0.1, 3)

    assert limit.limit == 32


def test_a_refusal_takes_a_tenth_away_and_never_more_than_the_least():
    limit = _limit(start=100, min=50)
    limit.overloaded()
    after_one = limit.limit
    for _ in range(20):
        limit.overloaded()

    assert after_one == 90
    assert limit.limit == 50


def test_it_recovers_once_latency_does():
    limit = _limit(start=32)
    _saturate(limit, capacity=10**6, rounds=15)
    for _ in range(40):
        limit.answered(2.0, limit.limit)
    low = limit.limit
    _saturate(limit, capacity=10**6, rounds=100)

    assert low < 32 < limit.limit


@given(
    st.lists(st.one_of(st.none(), st.tuples(st.floats(0, 100), st.integers(1, 2000)))),
    st.integers(1, 50),
    st.integers(0, 500),
)
def test_it_stays_within_its_bounds_whatever_happens(events, least, more):
    limit = _limit(min=least, max=least + more, start=100)
    for event in events:
        if event is None:
            limit.overloaded()
        else:
            limit.answered(*event)

        assert least <= limit.limit <= least + more
