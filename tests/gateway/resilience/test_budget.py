from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.resilience.budget import WINDOW_S, RetryBudget

STEP = st.tuples(st.floats(0, 4), st.sampled_from(["request", "retry"]))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def tick(self) -> float:
        return self.now


@settings(deadline=None)
@given(st.lists(STEP, max_size=150), st.sampled_from([0.0, 0.1, 1.0]))
def test_retries_never_pass_their_share_and_floor_over_any_window(
    steps: list[tuple[float, str]], per_second: float
) -> None:
    clock = Clock()
    budget = RetryBudget(clock.tick)
    requests: list[int] = []
    retries: list[int] = []

    for pause, what in steps:
        clock.now += pause
        second = int(clock.now)
        if what == "request":
            budget.deposit(0.2)
            requests.append(second)
            continue
        granted = budget.withdraw(per_second)
        earned = 0.2 * sum(at > second - WINDOW_S for at in requests) + per_second * WINDOW_S
        spent = sum(at > second - WINDOW_S for at in retries)
        assert granted == (spent + 1 <= earned + 1e-6)
        if granted:
            retries.append(second)


def test_without_requests_and_floor_nothing_is_retried() -> None:
    assert not RetryBudget(Clock().tick).withdraw(0.0)


def test_routes_with_other_shares_draw_on_one_budget() -> None:
    budget = RetryBudget(Clock().tick)
    budget.deposit(1.0)
    budget.deposit(0.5)

    assert [budget.withdraw(0.0) for _ in range(3)] == [True, False, False]
