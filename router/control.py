"""The control arm: a drawn share of requests goes straight to the reference.

Its requests are like all others, so what they cost is what the route would cost
without its cascade.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.types import Ask, Call, Draft, Plan, Serve, Skip, Tried, Verdict


class ControlPlan:
    """Asks the reference first; where it fails, goes on as the usual plan would have begun."""

    __slots__ = ("_reference", "_usual")

    def __init__(self, reference: str, usual: Plan) -> None:
        self._reference = reference
        self._usual = usual

    @property
    def skipped(self) -> Sequence[Skip]:
        """Return the models left out because they cannot serve this request."""
        return self._usual.skipped

    def watches(self, model: str) -> bool:
        """Return whether `watch` can reject a draft of this model before its end."""
        return self._usual.watches(model)

    @property
    def needs_stats(self) -> bool:
        """Return whether token statistics are to be asked of the provider."""
        return self._usual.needs_stats

    def watch(self, draft: Draft) -> bool:
        """Return False to reject the draft under way."""
        return self._usual.watch(draft)

    async def judge(self, draft: Draft, ask: Ask) -> Verdict:
        """Judge a whole draft."""
        return await self._usual.judge(draft, ask)

    def next(self, tried: Sequence[Tried]) -> Call | Serve:
        """Return what to do next. Raises NoModelLeft."""
        if not tried:
            return Call(self._reference, judged=False, why="control")
        # The usual plan counts from its own beginning.
        step = self._usual.next(tried[1:])
        return step if isinstance(step, Call) else Serve(step.index + 1, step.degraded)
