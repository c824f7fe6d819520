"""Sharing a step between those that decode and those whose prompt is still read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from local_engine.scheduler import plan_step


@given(needs=st.lists(st.integers(1, 300), max_size=12), budget=st.integers(1, 256))
def test_decoding_always_advances_and_prompts_share_the_budget_in_order(
    needs: list[int], budget: int
) -> None:
    takes = plan_step(needs, budget)

    prompts = [(n, t) for n, t in zip(needs, takes, strict=True) if n > 1]
    assert all(t == 1 for n, t in zip(needs, takes, strict=True) if n == 1)
    assert all(0 <= t <= n for n, t in prompts)
    assert sum(t for _, t in prompts) == min(budget, sum(n for n, _ in prompts))
    unfinished = [i for i, (n, t) in enumerate(prompts) if t < n]
    assert not any(t for i in unfinished[:1] for _, t in prompts[i + 1 :])


def test_nothing_to_do_plans_nothing() -> None:
    assert plan_step([], 10) == []
