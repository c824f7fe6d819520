"""Requests drawn to learn from: every draft is made beside what would have been done anyway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from router.cold import signs_of
from router.course import Course, Judged, Step
from router.query import Query
from router.signs import Checked
from router.types import Draft


class BesideCourse:
    """Follows another course, and where that turns to the reference, has the rest drafted first.

    Those drafts are never served, so that what a drawn request gets is what others get. Each
    draft's own signs are noted, too: a threshold on them could so take over at any time.
    """

    __slots__ = ("_checked", "_course", "_has_turned", "_judged", "_reference")

    needs_stats = True

    def __init__(self, course: Course, query: Query, judged: Sequence[str], reference: str) -> None:
        self._course = course
        self._checked = Checked(query)
        self._judged = judged
        self._reference = reference
        self._has_turned = False

    def watches(self, model: str) -> bool:
        """Return False: every draft is to be compared."""
        return False

    def watch(self, draft: Draft, earlier: Sequence[Judged]) -> bool:
        """Let every draft come to its end."""
        return True

    def is_judged(self, model: str) -> bool:
        """Return whether this model's draft is held and judged, or goes out live."""
        return model in self._judged

    def judge(self, draft: Draft, earlier: Sequence[Judged]) -> Sequence[Judged]:
        """Judge as the course does, and note the draft's own signs."""
        *others, own = self._course.judge(draft, earlier)
        raw = signs_of(self._checked, draft, earlier).raw
        noted = [replace(one, raw=old.raw) for one, old in zip(others, earlier, strict=True)]
        return (*noted, replace(own, raw=raw))

    def step(self, drafts: Sequence[Judged], barred: frozenset[str]) -> Step | None:
        """Return the course's step, or while there are drafts to be made beside, the next one."""
        if not self._has_turned:
            chosen = self._course.step(drafts, barred)
            if chosen is None or chosen.model != self._reference:
                return chosen
            self._has_turned = True
        for model in self._judged:
            if model not in barred:
                return Step(model, reason="drawn, drafted beside")
        if self._reference not in barred:
            return Step(self._reference, reason="as it would have gone")
        return self._course.step(drafts, barred)
