"""The cold start: what a learned cascade does before it has learnt anything.

Tiers are asked in their order. A draft is served when its tokens leave hardly any doubt,
or when it says the same as an earlier tier's draft; everything else goes on to the
reference. Where a quality floor was asked for, nothing but a certificate lets a draft
through, so that until there is one only a sample of the requests is drafted at all, to
learn from; the reference answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.answers import same_answer
from router.confidence import trust
from router.course import Judged, Step
from router.query import Query
from router.stakes import NO_STAKES, Stakes, stay
from router.types import Draft, TokenStats

SURE = 0.9
"""The least likely token must be at least this probable: on no data, better too careful."""

_AGREED = "says the same as "


@dataclass(frozen=True, slots=True)
class ColdCourse:
    """The course of one request by the rules of the cold start.

    `may_serve` is False where a floor is to be held and nothing is certified yet; then
    `drafts` says whether this request is one of those that are drafted to learn from.
    `stays` says why the tiers are in another order than the route's, if they are.
    """

    tiers: tuple[str, ...]
    reference: str
    may_serve: bool = True
    drafts: bool = True
    stays: str = ""

    needs_stats = True
    watches = False

    def watch(self, stats: TokenStats) -> bool:
        """Let every draft come to its end."""
        return True

    def is_judged(self, model: str) -> bool:
        """Return whether this model's draft is held and judged, or goes out live."""
        return model != self.reference

    def judge(self, draft: Draft, earlier: Sequence[Judged]) -> Sequence[Judged]:
        """Judge a draft by its least likely token, or by an earlier draft that agrees."""
        for other in earlier:
            if not other.useless and _agree(draft, other.draft):
                return (*earlier, Judged(draft, 1.0, _AGREED + other.draft.model))
        if draft.stats is None or not draft.stats.count:
            return (*earlier, Judged(draft, None, "nothing says how sure it is"))
        sure = trust(draft.stats.logprobs, 0.0)
        return (*earlier, Judged(draft, sure, f"least likely token {sure:.2f}"))

    def step(self, drafts: Sequence[Judged], barred: frozenset[str]) -> Step | None:
        """Serve the last draft where it is sure, else ask the next tier."""
        last = len(drafts) - 1
        if self.may_serve and drafts and (drafts[last].quality or 0.0) >= SURE:
            return Step(None, last, "cold start")
        for model in self.tiers if self.drafts else (self.reference,):
            if model not in barred:
                reason = "cold start" if self.may_serve else "not certified yet"
                return Step(
                    model, reason=reason, stays=self.stays if model == self.tiers[0] else ""
                )
        return None


@dataclass(frozen=True, slots=True)
class ColdCourses:
    """Begins courses by the rules of the cold start. `floor`: a quality floor is to be held."""

    reference: str
    floor: bool = False

    wants_vector = False
    embedder = ""
    spent = None

    def begin(
        self,
        query: Query,
        able: Sequence[str],
        *,
        drawn: bool = False,
        stakes: Stakes = NO_STAKES,
    ) -> ColdCourse:
        """Begin the course of one request; under a floor, only those drawn are drafted."""
        reference = self.reference if self.reference in able else able[-1]
        if self.floor:
            return ColdCourse(tuple(able), reference, may_serve=False, drafts=drawn)
        # What is drawn is to tell what the tiers do in their order.
        order = stay(able, NO_STAKES if drawn else stakes)
        return ColdCourse((*order.tiers, *order.left), reference, stays=order.reason)


def _agree(draft: Draft, other: Draft) -> bool:
    return not draft.tool_calls and not other.tool_calls and same_answer(draft.text, other.text)
