"""The semantic cache within the request's way: who may ask it, what it serves, what it keeps."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from cache.freshness import Freshness
from cache.scope import Scope
from cache.semantic.scope import Asked, asked_of
from cache.types import CachedReply, StoreFailed
from gateway.access.keys import Caller
from gateway.attempt import Attempt
from gateway.background_spend import Spent, SpentHere
from gateway.clock import Clock
from gateway.entry import Entry
from gateway.features import Embedding, Features
from gateway.judging import judging, verdict
from gateway.released import replayed
from gateway.replay import fold
from gateway.request import ChatRequest
from gateway.sharing import place_of
from gateway.wire import Part
from policies.rules import RequestFacts, first_match
from policies.schema import Policy
from policies.schema import SemanticCache as Rules
from router.answers import same_answer

if TYPE_CHECKING:
    from cache.semantic.answers import Answers
    from cache.semantic.decision_budget import ErrorBudget
    from cache.semantic.embedder import Vector
    from cache.semantic.found import SemanticHit

MOST_AUDITS = MOST_LESSONS = 4
_MOST_KEEPING = 256
_log = logging.getLogger(__name__)
_SECRET = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class OwnAnswer:
    """What a call at the gateway's own cost brought, and took at most; no text where it failed."""

    text: str | None
    nano_usd: int
    attempt: Attempt | None = None


class OwnCalls(Protocol):
    """Calls that the gateway makes for its own sake, behind clients' backs."""

    async def ask_again(self, entry: Entry) -> OwnAnswer:
        """Answer a request anew."""
        ...

    async def ask_judge(self, entry: Entry, body: Mapping[str, Any]) -> OwnAnswer:
        """Ask a judge model about what became of a request."""
        ...


@dataclass(frozen=True, slots=True)
class Asking:
    """One request's question, fit to be answered by, and to answer, others."""

    asked: Asked
    vector: Vector
    rules: Rules


class NearAnswers:
    """The semantic cache of one policy's routes."""

    def __init__(
        self, cache: Answers, policy: Policy, clock: Clock, spent: Spent | None = None
    ) -> None:
        self.cache = cache
        self.embedding = Embedding(lambda: cache.version, cache.vector)
        self.unfit: dict[str, int] = {}
        self.audited = self.found_wrong = self.judged = 0
        self._spent = spent or SpentHere(clock.wall)
        self._clock = clock
        self._routes = policy.routes
        self._revisions = {name: policy.revision(name) for name in policy.routes}
        self._keeping: set[asyncio.Task[None]] = set()
        self._audits: set[asyncio.Task[None]] = set()
        self._lessons: set[asyncio.Task[None]] = set()

    async def ask(self, entry: Entry) -> Asking | None:
        """Return the question of a request, or None where its answer is not to be shared."""
        rules = _rules(entry)
        if rules is None or entry.request.cache not in ("use", "refresh"):
            return None
        asked = self._asked_by(entry.caller, entry.request, entry.facts)
        if isinstance(asked, str):
            self.unfit[asked] = self.unfit.get(asked, 0) + 1
            return None
        entry.features = Features(
            entry.request.body["messages"], self.embedding, entry.request.body
        )
        vector = await entry.features.vector()
        if vector is None:
            return None
        entry.cache = "miss"
        return Asking(asked, vector, rules)

    async def find(self, entry: Entry, asking: Asking) -> SemanticHit | None:
        """Return an answer that serves, or that would, were it not withheld."""
        if entry.request.cache == "refresh":
            return None
        terms = _terms(asking.rules)
        hit = await self.cache.find(asking.asked, asking.vector, terms, entry.request.id)
        return hit if hit is not None and self._is_fresh(entry, asking, hit.reply) else None

    def serve(
        self, entry: Entry, asking: Asking, hit: SemanticHit, own: OwnCalls
    ) -> Sequence[Part]:
        """Return the parts of an answer, and note in the entry where it came from.

        A drawn share is asked again behind the client's back.
        """
        parts = replayed(hit.reply, entry, self._clock)
        entry.cache = "semantic"
        entry.similarity = hit.similarity
        is_drawn = _is_drawn(entry.request.id, asking.rules.audit)
        if is_drawn and len(self._audits) < MOST_AUDITS:
            _start(self._audit(entry, asking, hit, own), self._audits)
        return parts

    async def blur(self, asking: Asking) -> None:
        """Wait for a drawn time where the route wants hits to be hard to tell from misses."""
        if asking.rules.jitter:
            await asyncio.sleep(_SECRET.uniform(0.0, asking.rules.jitter))

    def learn(
        self,
        entry: Entry,
        asking: Asking,
        withheld: SemanticHit | None,
        reply: CachedReply,
        own: OwnCalls,
    ) -> None:
        """Keep a fresh answer behind the client's back, and hold what was withheld against it.

        Only answers in words that came to their end are kept.
        """
        served = entry.served
        if served is None or served.finish_reason != "stop" or not served.text.strip():
            return
        if withheld is not None and withheld.is_sure and len(self._audits) < MOST_AUDITS:
            _start(self._compare(entry, asking, withheld, served.text, own), self._audits)
        if len(self._keeping) >= _MOST_KEEPING:
            return
        terms = _terms(asking.rules, entry.request.bounds.ttl)
        kept = self.cache.keep(asking.asked, asking.vector, reply, answer=served.text, terms=terms)
        _start(kept, self._keeping)
        if withheld and not withheld.is_sure and len(self._lessons) < MOST_LESSONS:
            _start(self._teach(entry, asking, withheld, served.text, own), self._lessons)

    async def invalidate(
        self, wanted: Scope, request: ChatRequest | None, caller: Caller | None, *, dry_run: bool
    ) -> int:
        """Forget the answers that somebody means; return how many there are.

        A `request` of a `caller` stands for the one answer to its last question; the key
        of an exact answer says nothing here.
        """
        if request is None or caller is None:
            return 0 if wanted.key else await self.cache.drop(wanted, dry_run=dry_run)
        if request.model not in self._revisions:
            return 0
        asked = self._asked_by(caller, request, request.facts(caller))
        if isinstance(asked, str):
            return 0
        scope = replace(wanted, key=asked.scope)
        return await self.cache.drop(scope, question=asked.question, dry_run=dry_run)

    async def doubt(self, request_id: str, tenant: str) -> None:
        """Take note that a client found an answer of the cache wrong; trouble costs no word."""
        try:
            await self.cache.doubt(request_id, tenant)
        except Exception:
            _log.exception("a word on a semantic hit has taught nothing")

    async def report(self) -> dict[str, Any]:
        """Return what this process has counted, and the error budgets of all routes."""
        stats = await self.cache.counted()
        entries, budgets, trouble = 0, [], None
        try:
            entries, budgets = await self.cache.count(), await self.cache.budgets()
        except StoreFailed as exc:
            trouble = str(exc)
        return {
            "entries": entries,
            "trouble": trouble,
            "lookups": stats.lookups,
            "hits": stats.hits,
            "withheld": stats.withheld,
            "kept": stats.kept,
            "taught": stats.taught,
            "doubted": stats.doubted,
            "errors": stats.errors,
            "refused": dict(stats.refused),
            "decided": dict(stats.decided),
            "unfit": dict(self.unfit),
            "audited": self.audited,
            "found_wrong": self.found_wrong,
            "judged": self.judged,
            "budgets": [_budget(*each) for each in budgets],
        }

    async def settled(self) -> None:
        """Wait until what is under way behind clients' backs is done."""
        await asyncio.gather(*self._keeping, *self._audits, *self._lessons, return_exceptions=True)

    async def aclose(self) -> None:
        """Finish what is being kept; give up what is being asked again."""
        for task in (*self._audits, *self._lessons):
            task.cancel()
        await self.settled()

    def _asked_by(self, caller: Caller, request: ChatRequest, facts: RequestFacts) -> Asked | str:
        route = request.model
        place = place_of(self._routes[route], self._revisions[route], facts)
        return asked_of(
            caller.tenant,
            route,
            place.revision,
            request.body,
            locale=request.headers.get(b"accept-language", b"").decode("latin-1"),
            corpus=place.corpus,
        )

    def _is_fresh(self, entry: Entry, asking: Asking, reply: CachedReply) -> bool:
        freshness = Freshness(asking.rules.ttl, bounds=entry.request.bounds)
        return freshness.accepts(self._clock.wall() - reply.created_at)

    async def _audit(self, entry: Entry, asking: Asking, hit: SemanticHit, own: OwnCalls) -> None:
        """Ask again what was answered from the cache."""
        try:
            if not await self._may_spend(entry.route_name, asking.rules):
                return
            fresh = await own.ask_again(entry)
            await self._spent.add(entry.route_name, fresh.nano_usd)
        except Exception:
            _log.exception("a semantic hit could not be asked again")
            return
        if fresh.text is not None:
            await self._compare(entry, asking, hit, fresh.text, own)

    async def _compare(
        self, entry: Entry, asking: Asking, hit: SemanticHit, fresh: str, own: OwnCalls
    ) -> None:
        """Tell whether a stored answer says what a fresh one does."""
        try:
            was_right = await self._agrees(entry, asking, hit, fresh, own)
            if was_right is None:
                return
            self.audited += 1
            self.found_wrong += not was_right
            await self.cache.observe(
                asking.asked, hit.entry_id, _terms(asking.rules), was_right=was_right
            )
        except Exception:
            _log.exception("a semantic hit could not be audited")

    async def _teach(
        self, entry: Entry, asking: Asking, hit: SemanticHit, fresh: str, own: OwnCalls
    ) -> None:
        """Learn from an answer that had to be bought whether the nearest one would have served.

        Where a judge says so, the question becomes an alias: from now on both hold one answer.
        """
        try:
            stored = _words(hit.reply)
            if stored is None:
                return
            approved = await self._approves(entry, asking, hit, fresh, own)
            was_right = approved
            if was_right is None:
                was_right = await self.cache.alike(stored, fresh)
            if was_right is None:
                return
            await self.cache.teach(asking.asked, hit.entry_id, was_right=was_right)
            if approved and asking.rules.judge is not None:
                await self.cache.alias(asking.asked, hit.entry_id)
        except Exception:
            _log.exception("nothing could be learnt from a fresh answer")

    async def _agrees(
        self, entry: Entry, asking: Asking, hit: SemanticHit, fresh: str, own: OwnCalls
    ) -> bool | None:
        """Return whether a stored answer says what a fresh one does, None where it is not known."""
        stored = _words(hit.reply)
        if stored is None:
            return None
        approved = await self._approves(entry, asking, hit, fresh, own)
        return approved if approved is not None else await self.cache.alike(stored, fresh)

    async def _approves(
        self, entry: Entry, asking: Asking, hit: SemanticHit, fresh: str, own: OwnCalls
    ) -> bool | None:
        """Return whether both answers come to the same, by themselves or by the judge's word.

        None where the route names no judge, or it may not spend any more, or makes no sense.
        """
        stored, judge = _words(hit.reply) or "", asking.rules.judge
        if same_answer(stored, fresh):
            return True
        if judge is None or not await self._may_spend(entry.route_name, asking.rules):
            return None
        body = judging(judge, stored=hit.question, asked=asking.asked.question, answer=stored)
        told = await own.ask_judge(entry, body)
        await self._spent.add(entry.route_name, told.nano_usd)
        found = verdict(told.text)
        self.judged += found is not None
        return found

    async def _may_spend(self, route: str, rules: Rules) -> bool:
        """Return whether today's share for audits and judges is not yet used up."""
        if rules.background_usd_per_day is None:
            return True
        return await self._spent.today(route) < rules.background_usd_per_day * 1_000_000_000


def _rules(entry: Entry) -> Rules | None:
    route = entry.route
    return route.semantic_cache(first_match(route.rules, entry.facts) if route.rules else None)


def _terms(rules: Rules, ttl: float | None = None) -> Any:
    """Return what a route allows; a request may have its answer kept for less, never for more."""
    from cache.semantic.found import Terms

    verify = rules.verify.cross_encoder if rules.verify is not None else None
    longest = rules.ttl if ttl is None else min(rules.ttl, ttl)
    return Terms(
        rules.max_error, longest, rules.max_entry, rules.max_entries, verify,
        rules.changing_ttl, rules.writes_per_minute, float(rules.min_usd),
    )  # fmt: skip


def _budget(tenant: str, route: str, budget: ErrorBudget) -> dict[str, Any]:
    lower, upper = budget.interval()
    return {
        "tenant": tenant,
        "route": route,
        "state": "serving" if budget.is_serving else "exact only",
        "audited": int(budget.audited),
        "false_hit_rate": budget.false_hit_rate,
        "interval": [lower, upper],
        "stops": budget.stops,
    }


def _is_drawn(request_id: str, share: float) -> bool:
    """Return whether a request is in the sample, the same for whoever asks."""
    digest = blake2b(request_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2.0**64


def _words(reply: CachedReply) -> str | None:
    """Return what the first choice of a kept answer says."""
    try:
        body = fold(reply.parts) if reply.streamed else reply.parts[0]
        told: Mapping[str, Any] = msgspec.json.decode(body)
        content = told["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        return None
    return content if isinstance(content, str) else None


def _start(work: Any, tasks: set[asyncio.Task[None]]) -> None:
    task: asyncio.Task[None] = asyncio.ensure_future(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
