"""The course of a request before a cascade has learnt its whole decision.

Tiers are asked in their order, and a draft is served when its own signs make it sure enough:
its tokens, the checks that could be made of it, and whether an earlier tier's draft says the
same. What is sure enough is at first a careful guess, later calibrated on some labels, and
where a quality floor was asked for, certified. Without a certificate nothing lets a draft
through under a floor: then only a sample of the requests is drafted at all, to learn from,
and the reference answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.answers import same_answer
from router.course import Judged, Step
from router.online.acceptance import CAREFUL, Acceptance, chance_of, odds_of
from router.query import Query
from router.signs import AGREES, Checked, Signs
from router.stakes import NO_STAKES, Stakes, stay
from router.types import Draft


@dataclass(frozen=True, slots=True)
class ColdCourse:
    """The course of one request by its drafts' own signs.

    `may_serve` is False where a floor is to be held and nothing is certified; then
    `drafts` says whether this request is one of those that are drafted to learn from.
    `stage` is a word for the ledger, `stays` says why the tiers are in another order than the
    route's, if they are. `watched` are the models whose drafts tell early that they will not do.
    """

    tiers: tuple[str, ...]
    reference: str
    checked: Checked
    acceptance: Acceptance = CAREFUL
    stage: str = "cold start"
    may_serve: bool = True
    drafts: bool = True
    stays: str = ""

    watched: frozenset[str] = frozenset()

    needs_stats = True

    def watches(self, model: str) -> bool:
        """Return whether a draft of this model may be given up before its end."""
        return model in self.watched

    def watch(self, draft: Draft, earlier: Sequence[Judged]) -> bool:
        """Return False once even the best that the draft may still come to is not enough.

        So nothing is given up that would have been served.
        """
        most = self.checked.at_most(draft.stats, may_agree=bool(earlier))
        return self.acceptance.quality(draft.model, most) >= self.acceptance.threshold

    def is_judged(self, model: str) -> bool:
        """Return whether this model's draft is held and judged, or goes out live."""
        return model != self.reference

    def judge(self, draft: Draft, earlier: Sequence[Judged]) -> Sequence[Judged]:
        """Judge a draft by its signs, and by an earlier draft that agrees."""
        signs = signs_of(self.checked, draft, earlier)
        quality = self.acceptance.quality(draft.model, signs.raw)
        return (*earlier, Judged(draft, quality, signs.why, raw=signs.raw))

    def step(self, drafts: Sequence[Judged], barred: frozenset[str]) -> Step | None:
        """Serve the last draft where it is sure enough, else ask the next tier."""
        enough = self.acceptance.threshold
        judged = drafts[-1] if self.may_serve and drafts else None
        if judged is not None and not judged.useless and (judged.quality or 0.0) >= enough:
            return Step(None, len(drafts) - 1, f"{self.stage}, at least {enough:.2f}")
        for model in self.tiers if self.drafts else (self.reference,):
            if model not in barred:
                reason = self.stage if self.may_serve else "not certified yet"
                stays = self.stays if model == self.tiers[0] else ""
                return Step(model, reason=reason, stays=stays)
        return None


@dataclass(frozen=True, slots=True)
class ColdCourses:
    """Begins courses by drafts' own signs. `may_serve`: what they make sure may be served.

    `is_certified`: a floor was certified of the tiers in their order, and only the reference
    may be asked before its turn, which can only lower the loss. `watched` are models that are
    known to tell of their tokens while they write.
    """

    reference: str
    may_serve: bool = True
    acceptance: Acceptance = CAREFUL
    stage: str = "cold start"
    is_certified: bool = False
    watched: frozenset[str] = frozenset()

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
        """Begin the course of one request; where no draft may be served, draft those drawn."""
        reference = self.reference if self.reference in able else able[-1]
        # What is drawn is to tell what the tiers do in their order.
        order = stay(able, NO_STAKES if drawn or not self.may_serve else stakes)
        tiers, stays = (*order.tiers, *order.left), order.reason
        if self.is_certified and tiers[0] != reference:
            tiers, stays = tuple(able), ""
        return ColdCourse(
            tiers,
            reference,
            Checked(query),
            self.acceptance,
            self.stage,
            self.may_serve,
            self.may_serve or drawn,
            stays,
            # What is drawn is to be compared, so it comes to its end.
            self.watched if self.may_serve and not drawn else frozenset(),
        )


def signs_of(checked: Checked, draft: Draft, earlier: Sequence[Judged]) -> Signs:
    """Return what a draft's signs come to, an earlier draft that says the same among them."""
    signs = checked.signs(draft)
    for other in earlier:
        if not other.useless and _agree(draft, other.draft):
            return _agreed(signs, other.draft.model)
    return signs


def _agreed(signs: Signs, model: str) -> Signs:
    """Return the signs of a draft that agrees with another's; a failed check stays one."""
    odds = odds_of(signs.raw)
    raw = chance_of((odds if signs.is_wrong else max(odds, 0.0)) + AGREES)
    return Signs(raw, f"says the same as {model}; {signs.why}", signs.is_wrong)


def _agree(draft: Draft, other: Draft) -> bool:
    return not draft.tool_calls and not other.tool_calls and same_answer(draft.text, other.text)
