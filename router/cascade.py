"""The cascade of one route: which model next, from what was tried so far.

Two words, never mixed. *Escalation* follows a verdict: the draft of a tier was
not good enough, so the next tier is asked. *Fallback* follows an error: the
last tier failed, so the route's `fallback` list is asked, in order. A tier
that fails before the last one leaves the rest of the cascade as it was. When
everything has failed, the most trusted of the rejected drafts is better than
no answer, and is served as degraded.

An upstream that finds fault with the request itself (its 4xx) would do so again:
where the caller takes that for the client's mistake, it says so to the client
and does not ask `next`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from policies.cascade import Confidence
from policies.rules import RequestFacts, first_match
from policies.schema import Route
from router.confidence import LogprobScorer
from router.eligibility import Able, Lack, skip_for, why_unable
from router.stakes import NO_STAKES, Stakes, stay
from router.types import (
    Ask,
    Call,
    Capabilities,
    Draft,
    Features,
    NoModelLeft,
    Router,
    Scorer,
    Serve,
    Skip,
    Tried,
    Verdict,
)

_UNJUDGEABLE = Lack("logprobs", "its drafts could not be judged")


def build_router(
    route: Route, capabilities: Mapping[str, Capabilities], scorer: Scorer | None = None
) -> Router:
    """Build the router of a route; a model missing in `capabilities` is taken as able.

    Without a scorer, drafts are judged by `logprob` with its default threshold.
    """
    return CascadeRouter(
        route, capabilities, scorer or LogprobScorer(Confidence.model_validate({}))
    )


class CascadeRouter:
    """Rules first, then the tiers that are able, then the fallback list."""

    wants_vector = False

    def __init__(
        self, route: Route, capabilities: Mapping[str, Capabilities], scorer: Scorer
    ) -> None:
        self._rules = route.rules
        self._tiers = route.tiers
        self._fallback = route.fallback
        self._able = Able(capabilities)
        self._scorer = scorer
        self._usual, self._usually_skipped = self._lineup(list(route.tiers), list(route.fallback))
        self._limited = self._able.limited((*route.tiers, *route.fallback))

    def start(self, facts: RequestFacts, features: Features | None = None) -> CascadePlan:
        """Begin a request: choose its tiers by the first rule that matches, drop the unable."""
        rule = first_match(self._rules, facts) if self._rules else None
        tiers = self._tiers
        if rule is not None:
            tiers = (rule.model,) if rule.model else rule.tiers or tiers
        stakes = features.stakes if features is not None else NO_STAKES
        if tiers is self._tiers and not stakes and self._all_able(facts):
            return CascadePlan(self._usual, self._usually_skipped, self._scorer)
        return self._among_the_able(tiers, facts, stakes)

    def _all_able(self, facts: RequestFacts) -> bool:
        return all(why_unable(capabilities, facts) is None for capabilities in self._limited)

    def _among_the_able(
        self, tiers: Sequence[str], facts: RequestFacts, stakes: Stakes
    ) -> CascadePlan:
        able, unable = self._able.split(tiers, facts)
        fallback, others = self._able.split(self._fallback, facts)
        calls, unjudged = self._lineup(able, fallback, stakes)
        skipped = dict.fromkeys((*unable, *unjudged, *others))
        return CascadePlan(calls, tuple(skipped), self._scorer)

    def _lineup(
        self, tiers: list[str], fallback: list[str], stakes: Stakes = NO_STAKES
    ) -> tuple[tuple[Call, ...], tuple[Skip, ...]]:
        """Leave out tiers whose drafts the scorer could not judge; the last is not judged."""
        if not self._scorer.needs_stats:
            return _staying(tiers, fallback, stakes), ()
        silent = [model for model in tiers[:-1] if not self._able.has_logprobs(model)]
        heard = [model for model in tiers if model not in silent]
        calls = _staying(heard, fallback, stakes)
        return calls, tuple(skip_for(model, _UNJUDGEABLE) for model in silent)


def lineup(tiers: Sequence[str], fallback: Iterable[str]) -> tuple[Call, ...]:
    """Order every call that a request may lead to.

    All tiers but the last are judged; the last goes out live, as do the
    fallbacks that are not among the tiers.
    """
    tiers = tuple(dict.fromkeys(tiers))
    calls = [Call(model, judged=True) for model in tiers[:-1]]
    calls += [Call(model, judged=False) for model in tiers[-1:]]
    others = [model for model in dict.fromkeys(fallback) if model not in tiers]
    # Without any tier there is no error that a fallback could follow.
    calls += [Call(model, judged=False, why="fallback") for model in others if tiers]
    return tuple(calls)


def _staying(tiers: list[str], fallback: list[str], stakes: Stakes) -> tuple[Call, ...]:
    """Order the calls of a conversation: what it does not pay to go to is left for failures."""
    if not stakes:
        return lineup(tiers, fallback)
    staying = stay(tiers, stakes)
    first, *others = lineup(staying.tiers, (*staying.left, *fallback)) or (None,)
    if first is None:
        return ()
    if staying.reason:
        first = replace(first, why="stay", reason=staying.reason)
    return (first, *others)


class CascadePlan:
    """The course of one request: a pure function of what was tried."""

    __slots__ = ("_calls", "_scorer", "skipped")

    def __init__(self, calls: tuple[Call, ...], skipped: Sequence[Skip], scorer: Scorer) -> None:
        self._calls = calls
        self._scorer = scorer
        self.skipped = skipped

    def watches(self, model: str) -> bool:
        """Return whether `watch` can reject a draft of this model before its end."""
        return self._scorer.watches

    @property
    def needs_stats(self) -> bool:
        """Return whether token statistics are to be asked of the provider."""
        return self._scorer.needs_stats

    def next(self, tried: Sequence[Tried]) -> Call | Serve:
        """Return what to do next, given every attempt so far in its order.

        Raises NoModelLeft, with the reason of each model, when none can answer.
        """
        done = len(tried)
        if done and (verdict := tried[-1].verdict) is not None and verdict.accepted:
            return Serve(done - 1)
        if done < len(self._calls):
            return self._calls[done]
        best = most_trusted(tried)
        if best is None:
            raise NoModelLeft(why_none(tried, self.skipped))
        return Serve(best, degraded=True)

    def watch(self, draft: Draft) -> bool:
        """Return False to reject the draft under way."""
        return draft.stats is None or self._scorer.watch(draft.stats)

    async def judge(self, draft: Draft, ask: Ask) -> Verdict:
        """Judge a whole draft."""
        return await self._scorer.judge(draft, ask)


def most_trusted(tried: Sequence[Tried]) -> int | None:
    """Return the rejected draft to serve when nothing else is left, the latest among equals."""
    best, most = None, -1.0
    for index, attempt in enumerate(tried):
        verdict = attempt.verdict
        if verdict is not None and verdict.servable and (verdict.confidence or 0.0) >= most:
            best, most = index, verdict.confidence or 0.0
    return best


def why_none(tried: Sequence[Tried], skipped: Sequence[Skip]) -> str:
    """Return why no model could answer, each with its reason."""
    reasons = [f"{a.model}: {a.error or (a.verdict and a.verdict.reason)}" for a in tried]
    reasons += [f"{s.model}: lacks {Lack(s.reason, s.detail)}" for s in skipped]
    return "no model can answer this request (" + "; ".join(reasons) + ")"
