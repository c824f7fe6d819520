from __future__ import annotations

from functools import reduce

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cache.semantic.calibration_bounds import lower_bound, upper_bound
from cache.semantic.decision_budget import Allowance, ErrorBudget

ONE_PERCENT = Allowance(0.01)


def after(audits: list[bool], allowance: Allowance = ONE_PERCENT) -> ErrorBudget:
    return reduce(lambda budget, right: budget.after(right, allowance), audits, ErrorBudget())


def test_right_hits_leave_a_route_serving() -> None:
    budget = after([True] * 500)

    assert budget.is_serving
    assert budget.false_hit_rate == 0
    assert budget.interval()[1] < 0.01


def test_one_wrong_hit_among_few_says_too_little_to_stop() -> None:
    assert after([True] * 100 + [False]).is_serving


def test_wrong_hits_past_the_budget_stop_the_route() -> None:
    budget = after([True] * 50 + [False] * 3)

    assert not budget.is_serving
    assert budget.stops == 1


def test_stopped_route_serves_again_once_certified_anew() -> None:
    stopped = after([False])
    needed = next(n for n in range(1000) if upper_bound(0, n, 0.8) <= 0.01)

    waiting = reduce(lambda b, _: b.after(True, ONE_PERCENT), range(needed - 1), stopped)
    certified = waiting.after(True, ONE_PERCENT)

    assert not waiting.is_serving
    assert certified.is_serving
    assert certified.stops == 1


def test_errors_long_ago_fade() -> None:
    allowance = Allowance(0.05, window=200)
    budget = after([True] * 90 + [False] * 2 + [True] * 2000, allowance)

    assert budget.audited <= 200
    assert budget.false_hit_rate < 0.001


class Budgets(RuleBasedStateMachine):
    """Any sequence of audits, against the plain counts since the last change of mind."""

    def __init__(self) -> None:
        super().__init__()
        self.allowance = Allowance(0.1, window=10_000)
        self.budget = ErrorBudget()
        self.since: list[bool] = []

    @rule(was_right=st.booleans())
    def audit(self, was_right: bool) -> None:
        before = self.budget
        self.since.append(was_right)
        self.budget = before.after(was_right, self.allowance)
        wrong, counted = self.since.count(False), len(self.since)
        if before.is_serving:
            stops = lower_bound(wrong, counted, self.allowance.to_stop) > 0.1
            assert self.budget.is_serving is not stops
        else:
            certified = upper_bound(wrong, counted, self.allowance.to_certify) <= 0.1
            assert self.budget.is_serving is certified
        if self.budget.is_serving != before.is_serving:
            self.since.clear()

    @rule(times=st.integers(1, 20))
    def audit_right(self, times: int) -> None:
        for _ in range(times):
            self.audit(True)

    @invariant()
    def counts_are_those_since_the_change(self) -> None:
        assert self.budget.audited == len(self.since)
        assert self.budget.wrong == self.since.count(False)


TestBudgets = Budgets.TestCase
TestBudgets.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)


@given(st.lists(st.booleans(), max_size=300), st.integers(1, 100))
def test_counts_never_pass_the_window(audits: list[bool], window: int) -> None:
    budget = after(audits, Allowance(0.5, window=window))

    assert 0 <= budget.wrong <= budget.audited + 1e-9
    assert budget.audited <= window + 1e-9
