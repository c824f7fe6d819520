"""A request's own ceiling: which models it may lead to without ever costing more than that."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.access.worst_case import WorstCase, models_of
from gateway.money.price import shown_usd
from gateway.request import ChatRequest
from policies.rules import RequestFacts
from policies.schema import Route
from router.types import Ask, Call, Draft, Plan, Serve, Skip, Tried, Verdict

REASON = "max_usd"
"""What stands in the path and the ledger for a model that was left out for its price."""


def too_dear(
    worst: WorstCase, request: ChatRequest, route: Route, facts: RequestFacts, most_nano: int
) -> frozenset[str]:
    """Return the models to leave out, so that the worst case of the rest is within the ceiling.

    From the first tier on, each stays that can still be paid for beside those before it.
    """
    named = list(dict.fromkeys(models_of(route, facts)))
    out = set(named)
    for name in named:
        out.discard(name)
        if worst.nano_usd(request, route, models_of(route, facts, without=out)) > most_nano:
            out.add(name)
    return frozenset(out)


class ModestPlan:
    """A plan without the models that a request does not pay for; satisfies `Plan`.

    What is left out counts as tried in vain, so the plan goes on to what comes next.
    """

    def __init__(self, plan: Plan, left_out: frozenset[str], most_nano: int) -> None:
        self._plan = plan
        self._left_out = left_out
        self._most = f"may cost more than {shown_usd(most_nano)} dollars"
        self._passed_over: dict[int, str] = {}

    @property
    def skipped(self) -> Sequence[Skip]:
        """Return the models that cannot serve, and those that are left out."""
        named = sorted(self._left_out)
        return (*self._plan.skipped, *(Skip(name, REASON, self._most) for name in named))

    def watches(self, model: str) -> bool:
        """Return whether `watch` can reject a draft of this model before its end."""
        return self._plan.watches(model)

    @property
    def needs_stats(self) -> bool:
        """Return whether token statistics are to be asked of the provider."""
        return self._plan.needs_stats

    def next(self, tried: Sequence[Tried]) -> Call | Serve:
        """Return what to do next. Raises NoModelLeft."""
        while True:
            known = self._as_the_plan_knows(tried)
            step = self._plan.next(known)
            if isinstance(step, Serve):
                before = sum(at < step.index for at in self._passed_over)
                return Serve(step.index - before, step.degraded)
            if step.model not in self._left_out:
                return step
            self._passed_over[len(known)] = step.model

    def watch(self, draft: Draft) -> bool:
        """Return False to reject the draft under way."""
        return self._plan.watch(draft)

    async def judge(self, draft: Draft, ask: Ask) -> Verdict:
        """Judge a whole draft."""
        return await self._plan.judge(draft, ask)

    def _as_the_plan_knows(self, tried: Sequence[Tried]) -> list[Tried]:
        known = list(tried)
        for at in sorted(self._passed_over):
            known.insert(at, Tried(self._passed_over[at], error=REASON))
        return known
