"""Who computes how much in the next step: a pure decision."""

from __future__ import annotations

from collections.abc import Sequence


def plan_step(needs: Sequence[int], prefill_budget: int) -> list[int]:
    """Return the tokens that each sequence processes next, given how many it lacks.

    Sequences that lack one token, the decoding ones, always advance. The others share
    the budget in their order, so that a long prompt delays the rest by one chunk at most
    and prompts that came earlier finish earlier (chunked prefill, Sarathi-Serve).
    """
    takes = []
    left = prefill_budget
    for need in needs:
        take = need if need <= 1 else min(need, left)
        left -= take if need > 1 else 0
        takes.append(take)
    return takes
