from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.access.gcra import Level, granted, level, taken, wait_for
from gateway.access.meters import Claim, Pace, Taken
from gateway.access.stores.memory import MemoryLimits


def test_a_burst_of_a_minutes_worth_passes_and_no_more():
    full_at = 0.0
    for _ in range(60):
        assert wait_for(full_at, 1, 60, 0.0) == 0.0
        full_at = taken(full_at, 1, 60, 0.0)

    assert wait_for(full_at, 1, 60, 0.0) == pytest.approx(1.0)
    assert level(full_at, 60, 0.0) == Level(60, 0, 60.0)


def test_the_wait_it_tells_is_long_enough_and_no_longer():
    full_at = taken(0.0, 60, 60, 0.0)
    wait_s = wait_for(full_at, 3, 60, 0.0)

    assert wait_for(full_at, 3, 60, wait_s) == 0.0
    assert wait_for(full_at, 3, 60, wait_s - 0.01) > 0


def test_more_than_a_minutes_worth_never_passes():
    assert wait_for(0.0, 61, 60, 1e9) == float("inf")


def test_what_is_given_back_never_makes_a_bucket_hold_more_than_a_minutes_worth():
    full_at = taken(taken(0.0, 60, 60, 0.0), -60, 60, 50.0)

    assert level(full_at, 60, 50.0).remaining == 60
    assert level(full_at, 60, 500.0).remaining == 60


@given(st.integers(1, 10_000_000))
def test_exactly_the_burst_is_admitted_at_any_rate(per_minute):
    full_at = taken(0.0, per_minute - 1, per_minute, 0.0)

    assert wait_for(full_at, 1, per_minute, 0.0) == 0.0
    assert wait_for(taken(full_at, 1, per_minute, 0.0), 1, per_minute, 0.0) > 0.0


class Bucket(RuleBasedStateMachine):
    """Admitted less given back never passes burst + rate * t, over any span of time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.pace = Pace("p", "the test", "tokens", 90)
        self.store = MemoryLimits(lambda: self.now)
        self.taken: list[Claim] = []
        self.events: list[tuple[float, int]] = []

    @rule(seconds=st.floats(0, 90))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(amount=st.integers(1, 95))
    def ask(self, amount: int) -> None:
        claim = Claim(((self.pace, amount),))
        result = self.store.take_now(claim)
        if isinstance(result, Taken):
            self.taken.append(claim)
            self.events.append((self.now, amount))

    @rule(share=st.floats(0, 1), which=st.integers(0, 100))
    def settle(self, share: float, which: int) -> None:
        if self.taken:
            claim = self.taken.pop(which % len(self.taken))
            used = int(claim.paces[0][1] * share)
            self.store.settle(claim, tokens=used, nano_usd=0)
            self.events.append((self.now, used - claim.paces[0][1]))

    @invariant()
    def admits_no_more_than_burst_and_rate(self) -> None:
        per_minute = self.pace.per_minute
        net, worst = 0.0, 0.0
        last = self.events[0][0] if self.events else 0.0
        # The largest excess over any span that ends now, by its running maximum.
        for at, amount in self.events:
            worst = max(0.0, worst - (at - last) * per_minute / 60)
            worst = max(0.0, worst + amount)
            last = at
            net = max(net, worst)
        assert net <= per_minute + 1e-6 * per_minute


TestBucket = Bucket.TestCase


@given(
    full_at=st.floats(0, 200),
    amount=st.integers(0, 500),
    per_minute=st.integers(1, 400),
    now=st.floats(0, 200),
)
def test_to_grant_at_once_is_to_wait_to_take_and_to_look(full_at, amount, per_minute, now):
    found = granted(full_at, amount, per_minute, now)
    assert (found is None) == (wait_for(full_at, amount, per_minute, now) > 0)
    if found is not None:
        after = taken(full_at, amount, per_minute, now)
        assert now + found.reset_s == pytest.approx(after)
        assert found.remaining == pytest.approx(level(after, per_minute, now).remaining, abs=1)
