"""The course of one request whose tiers are not simply asked in their order.

A `Course` decides: given the drafts so far, which model next, or which draft to serve.
`CoursePlan` does the rest that a plan owes the pipeline, whatever the course: it keeps
the drafts, sets aside models that failed, and falls back when none is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from router.cascade import most_trusted, why_none
from router.types import (
    Ask,
    Call,
    Draft,
    NoModelLeft,
    Serve,
    Skip,
    Tried,
    Verdict,
)
from router.usability import is_servable, why_useless

NO_ONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Judged:
    """A draft and how it was judged: `quality` is the probability that it is good enough.

    `useless` says in one word why no confidence can save it; its quality is then 0. `raw` is
    its confidence before calibration, `expected` what was expected of its model before it.
    """

    draft: Draft
    quality: float | None
    why: str = ""
    useless: str | None = None
    raw: float | None = None
    expected: float | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What to do: call `model`, or (None) serve the draft at place `serve`.

    `reason` is for the ledger: what weighed, in a few words. `stays` says so of a
    conversation kept on the model that has it cached, and is empty otherwise.
    """

    model: str | None
    serve: int = -1
    reason: str = ""
    stays: str = ""


class Course(Protocol):
    """Decides the course of one request; pure, and asked any number of times."""

    @property
    def needs_stats(self) -> bool:
        """Return whether token statistics help it judge."""
        ...

    def watch(self, draft: Draft, earlier: Sequence[Judged]) -> bool:
        """Return False to reject a draft on what it says so far."""
        ...

    def watches(self, model: str) -> bool:
        """Return whether `watch` can ever say no to this model's draft."""
        ...

    def is_judged(self, model: str) -> bool:
        """Return whether this model's draft is held and judged, or goes out live."""
        ...

    def judge(self, draft: Draft, earlier: Sequence[Judged]) -> Sequence[Judged]:
        """Return every draft so far as it now stands, the new one last."""
        ...

    def step(self, drafts: Sequence[Judged], barred: frozenset[str]) -> Step | None:
        """Return what to do next; None where nobody may be called and no draft can serve.

        `barred` are the models that have been tried, or cannot be.
        """
        ...


class CoursePlan:
    """A plan that follows a course."""

    __slots__ = ("_barred", "_course", "_drafts", "_fallback", "_places", "skipped")

    def __init__(
        self,
        course: Course,
        *,
        barred: frozenset[str],
        fallback: Sequence[str],
        skipped: Sequence[Skip],
    ) -> None:
        self._course = course
        self._barred = barred
        self._fallback = fallback
        self._drafts: Sequence[Judged] = ()
        self._places: list[str] = []
        self.skipped = skipped

    def watches(self, model: str) -> bool:
        """Return whether `watch` can reject a draft of this model before its end."""
        return self._course.watches(model)

    @property
    def needs_stats(self) -> bool:
        """Return whether token statistics are to be asked of the provider."""
        return self._course.needs_stats

    def watch(self, draft: Draft) -> bool:
        """Return False to reject the draft under way."""
        return self._course.watch(draft, self._drafts)

    async def judge(self, draft: Draft, ask: Ask) -> Verdict:
        """Judge a whole draft beside the earlier ones; accepted is the one that will be served."""
        useless = why_useless(draft.text, draft.finish_reason, tool_calls=draft.tool_calls)
        if useless is not None:
            self._drafts = (*self._drafts, Judged(draft, 0.0, useless, useless))
            return Verdict(False, None, useless, servable=is_servable(useless))
        self._drafts = self._course.judge(draft, self._drafts)
        step = self._course.step(self._drafts, self._barred | {d.draft.model for d in self._drafts})
        last = len(self._drafts) - 1
        accepted = step is not None and step.model is None and step.serve == last
        judged = self._drafts[last]
        reason = "; ".join(part for part in (judged.why, step.reason if step else "") if part)
        return Verdict(accepted, judged.quality, reason, raw=judged.raw, expected=judged.expected)

    def next(self, tried: Sequence[Tried]) -> Call | Serve:
        """Return what to do next, given every attempt so far. Raises NoModelLeft."""
        done = frozenset(attempt.model for attempt in tried)
        step = self._course.step(self._drafts, self._barred | done)
        if step is not None and step.model is not None:
            is_judged = self._course.is_judged(step.model)
            if step.stays:
                return Call(step.model, is_judged, why="stay", reason=step.stays)
            return Call(step.model, is_judged)
        if step is not None:
            return Serve(self._attempt_of(step.serve, tried), degraded=self._is_second_best(step))
        failed = bool(tried) and tried[-1].error is not None
        for model in self._fallback if failed or not tried else ():
            if model not in done:
                return Call(model, judged=False, why="fallback")
        best = most_trusted(tried)
        if best is None:
            raise NoModelLeft(why_none(tried, self.skipped))
        return Serve(best, degraded=True)

    def _is_second_best(self, step: Step) -> bool:
        """Return whether this draft is served only since others could not be asked."""
        wanted = self._course.step(
            self._drafts, self._barred | {d.draft.model for d in self._drafts}
        )
        return wanted is None or wanted.model is not None or wanted.serve != step.serve

    def _attempt_of(self, place: int, tried: Sequence[Tried]) -> int:
        model = self._drafts[place].draft.model
        return max(i for i, attempt in enumerate(tried) if attempt.model == model)
