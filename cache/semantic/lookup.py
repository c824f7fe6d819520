"""Answers to questions asked before in other words: search, guards, decision.

What is kept stands in a store, its vectors in a mirror of it. Both belong to one
worker thread, so a lookup is one visit there and the event loop computes nothing.
What is left from a time before another embedder is embedded anew in the background.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from cache.index.codes import Codes, encoded
from cache.index.types import Near
from cache.scope import Scope
from cache.semantic.cross_encoder import PairScorer, Verification, load_cross_encoder
from cache.semantic.decision import LEAST
from cache.semantic.decision_budget import Allowance, ErrorBudget
from cache.semantic.embedder import Vector
from cache.semantic.grey_zone import ADMITTED, GreyZone
from cache.semantic.guards.words import read
from cache.semantic.mirror import Mirror
from cache.semantic.scope import Asked
from cache.semantic.service import Busy, EmbeddingService
from cache.semantic.snapshots import Snapshots
from cache.semantic.store import AnswerStore, Gone, Place, Question, Told
from cache.semantic.types import Candidate, Decider, Decision, Guards
from cache.types import CachedReply

if TYPE_CHECKING:
    from cache.index.pgvector import PgVectors

NEIGHBOURS = 8
_HEARD = 0.5  # the cosine below which a neighbour has no say
_RENEWED_AT_ONCE = 32
_TIDIED_EVERY = 256
_COUNTED_AT_ONCE = 64
_ALIKE = 0.85  # the cosine from which two answers are taken to say the same
_SHORT = 300  # characters; in longer answers a number may differ and nothing else
_FILLED_IN = 2  # words
_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a route allows: the share of wrong answers among those served, and bounds.

    `max_entries` holds for each tenant, so that nobody drives out another's answers.
    `cross_encoder` is the model that is asked about close decisions, None for nobody.
    """

    max_error: float
    ttl: float
    max_entry: int = 256 * 1024
    max_entries: int = 1_000_000
    cross_encoder: str | None = None


@dataclass(frozen=True, slots=True)
class SemanticHit:
    """An answer that serves, and how near its question was.

    One that is withheld is there to be compared with the answer that is given in its
    place. It would serve, were the route's error budget not spent, if it `is_sure`;
    else it only teaches.
    """

    reply: CachedReply
    similarity: float
    entry_id: str
    question: str
    probability: float
    is_withheld: bool = False
    is_sure: bool = True


@dataclass(slots=True)
class SemanticStats:
    """Counts since the start. `refused` tells guards apart, `decided` why none was served."""

    lookups: int = 0
    hits: int = 0
    withheld: int = 0
    kept: int = 0
    taught: int = 0
    errors: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    decided: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class _Weighed:
    """Who might serve, and what was decided about them."""

    candidates: Sequence[Candidate]
    decision: Decision

    @property
    def grey(self) -> Candidate | None:
        place = self.decision.grey
        return None if place is None else self.candidates[place]


class SemanticCache:
    """The semantic cache of one process; an async context manager.

    `path` is the file that survives, None for memory only. `decider` gives the
    decider of a tenant's route; it is asked in the worker thread. `wall` is in
    seconds since the epoch.
    """

    def __init__(
        self,
        service: EmbeddingService,
        *,
        path: Path | None,
        guards: Guards,
        decider: Callable[[str, str], Decider],
        wall: Callable[[], float],
        told: Told | None = None,
        outside: Callable[[str, int], PgVectors] | None = None,
        cross_encoder: Callable[[str], PairScorer] = load_cross_encoder,
    ) -> None:
        self._verification = Verification(cross_encoder)
        self._zones: dict[tuple[str, str], tuple[str, GreyZone]] = {}
        self._told = told
        self._outside = outside
        self._pg: PgVectors | None = None
        self.stats = SemanticStats()
        self._service = service
        self._path = path
        self._guards = guards
        self._decider = decider
        self._wall = wall
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="semantic-cache")
        self._budgets: dict[tuple[str, str], ErrorBudget] = {}
        self._hits: Counter[int] = Counter()
        self._task: asyncio.Task[None] | None = None
        self._opened: tuple[AnswerStore, Mirror] | None = None

    async def __aenter__(self) -> SemanticCache:
        """Open the file. Raises OSError where it cannot be had."""
        try:
            await self._work(self._open)
        except (sqlite3.Error, OSError) as exc:
            self._worker.shutdown(wait=False)
            raise OSError(f"the semantic cache {self._path} cannot be opened: {exc}") from exc
        self._task = asyncio.create_task(self._catch_up())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._work(self._close)
        self._worker.shutdown(wait=True)
        await asyncio.to_thread(self._verification.close)

    async def vector(self, text: str) -> Vector | None:
        """Return the vector of a question; None where it cannot be had now."""
        try:
            return await self._service.whole(text)
        except Busy:
            self.stats.decided["busy"] += 1
        except Exception as exc:
            self._note("the embedder failed", exc)
        return None

    @property
    def version(self) -> str:
        """Return what tells the vectors of this embedder from those of others."""
        return self._service.embedder.version

    async def alike(self, one: str, other: str) -> bool | None:
        """Return whether two answers mean the same, as far as guards and vectors tell.

        None where that cannot be told now.
        """
        if max(len(one), len(other)) <= _SHORT:
            if self._guards.refuse(one, other) is not None:
                return False
            if _differ_in_a_word(one, other):
                return None
        try:
            first, second = await asyncio.gather(*map(self._service.vector, (one, other)))
        except Exception as exc:
            self._note("two answers were not compared", exc)
            return None
        return bool(first @ second >= _ALIKE)

    async def find(self, asked: Asked, vector: Vector, terms: Terms) -> SemanticHit | None:
        """Return an answer that serves, or None; whatever fails here costs no answer."""
        try:
            if terms.cross_encoder is not None:
                return await self._find_verified(asked, vector, terms, terms.cross_encoder)
            return await self._work(self._find, asked, vector, terms)
        except Exception as exc:
            self._note("nothing was looked up", exc)
            return None

    async def keep(
        self, asked: Asked, vector: Vector, reply: CachedReply, *, answer: str, terms: Terms
    ) -> None:
        """Keep an answer, which is whole and accepted, unless it is larger than allowed."""
        if reply.size > terms.max_entry:
            return
        try:
            await self._work(self._keep, asked, encoded(vector), reply, answer, terms)
        except Exception as exc:
            self._note("nothing was kept", exc)

    async def drop(
        self, wanted: Scope, *, question: str | None = None, dry_run: bool = False
    ) -> int:
        """Remove the entries that somebody means; return how many there are.

        `wanted.key` is a scope of questions, `question` one of them.
        """
        if dry_run:
            return await self._work(self._store.count_where, wanted, question)
        gone = await self._work(self._store.drop_where, wanted, question)
        await self._work(self._mirror.forget, gone)
        return len(gone)

    async def observe(self, asked: Asked, entry_id: str, terms: Terms, *, was_right: bool) -> None:
        """Take note of an audited hit; one that was wrong is not served again."""
        await self._work(self._observe, asked, entry_id, terms, was_right)

    async def teach(self, asked: Asked, entry_id: str, *, was_right: bool) -> None:
        """Take note of whether an answer would have served that was not sure enough to."""
        await self._work(self._teach, asked, entry_id, was_right)

    async def alias(self, asked: Asked, entry_id: str) -> None:
        """Let a kept question stand for the same answer as an entry: they vote as one."""
        await self._work(self._store.alias, asked.scope, asked.question, int(entry_id))

    async def budgets(self) -> list[tuple[str, str, ErrorBudget]]:
        """Return tenant, route and error budget of all that were audited."""
        return await self._work(self._store.budgets)

    async def caught_up(self) -> None:
        """Wait until what stood in the file at the start is in the index."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def count(self) -> int:
        """Return how many entries there are."""
        return await self._work(len, self._store)

    async def counted(self) -> SemanticStats:
        """Return what was counted since the start, by all who share the cache."""
        return self.stats

    async def with_store(self, job: Callable[..., T], *given: object) -> T:
        """Do something in the worker thread, given the store and what is searched of it."""
        return await self._work(job, self._store, self._mirror, *given)

    def now(self) -> float:
        """Return the time that entries are kept by."""
        return self._wall()

    async def _find_verified(
        self, asked: Asked, vector: Vector, terms: Terms, name: str
    ) -> SemanticHit | None:
        """Find an answer, with a second opinion where the first one was close."""
        weighed = await self._work(self._weigh, asked, vector, terms)
        if (grey := weighed.grey) is not None:
            score = await self._verification.score(name, asked.question, grey.question)
            if score is not None:
                zone = self._zone(asked, name)
                decision = await self._work(
                    zone.decide, weighed.decision, grey.entry_id, score, terms.max_error
                )
                weighed = _Weighed(weighed.candidates, decision)
        return await self._work(self._settle, asked, weighed)

    def _zone(self, asked: Asked, name: str) -> GreyZone:
        """Return what is known of a model's scores on a route; another model begins anew."""
        place = asked.tenant, asked.route
        known, zone = self._zones.get(place, ("", None))
        if zone is None or known != name:
            zone = GreyZone()
            self._zones[place] = name, zone
        return zone

    # In the worker thread

    @property
    def _store(self) -> AnswerStore:
        assert self._opened is not None, "the cache is entered before it is asked"
        return self._opened[0]

    @property
    def _mirror(self) -> Mirror:
        assert self._opened is not None, "the cache is entered before it is asked"
        return self._opened[1]

    def _open(self) -> None:
        embedder = self._service.embedder
        store = AnswerStore(self._path, embedder.version, self._told)
        snapshots = None
        if self._outside is not None:
            self._pg = self._outside(store.identity, embedder.width)
        else:
            snapshots = self._snapshots(store, embedder.width)
        self._opened = store, Mirror(store, embedder.width, self._wall, snapshots, self._pg)

    def _snapshots(self, store: AnswerStore, width: int) -> Snapshots | None:
        if self._path is None:
            return None
        return Snapshots(self._path.with_name(f"{self._path.name}-graphs") / store.identity, width)

    def _close(self) -> None:
        with self._store:
            self._tell_hits()
            try:
                self._mirror.save()
            except OSError as exc:
                self._note("the next start will build its graphs anew", exc)
        if self._pg is not None:
            self._pg.close()

    def _find(self, asked: Asked, vector: Vector, terms: Terms) -> SemanticHit | None:
        return self._settle(asked, self._weigh(asked, vector, terms))

    def _weigh(self, asked: Asked, vector: Vector, terms: Terms) -> _Weighed:
        self.stats.lookups += 1
        if self._mirror.follow():
            self._budgets.clear()
        candidates = self._candidates(asked, vector)
        decider = self._decider(asked.tenant, asked.route)
        decision = _same_words(asked.question, candidates) or decider.decide(
            asked.question, candidates, terms.max_error
        )
        return _Weighed(candidates, decision)

    def _settle(self, asked: Asked, weighed: _Weighed) -> SemanticHit | None:
        decision = weighed.decision
        is_sure = decision.serve is not None
        if not is_sure or decision.reason == ADMITTED:
            self.stats.decided[decision.reason] += 1
        place = decision.serve if is_sure else decision.teaches
        if place is None:
            return None
        chosen = weighed.candidates[place]
        reply = self._store.reply(int(chosen.entry_id))
        if reply is None:
            return None
        is_withheld = not (is_sure and self._budget(asked).is_serving)
        if is_sure:
            self._count(int(chosen.entry_id), is_withheld)
        return SemanticHit(
            reply,
            chosen.similarity,
            chosen.entry_id,
            chosen.question,
            decision.probability,
            is_withheld,
            is_sure,
        )

    def _count(self, number: int, is_withheld: bool) -> None:
        """Count a hit; the store is told of many at once, since a write may have to wait."""
        self.stats.withheld += is_withheld
        self.stats.hits += not is_withheld
        self._hits[number] += not is_withheld
        if len(self._hits) >= _COUNTED_AT_ONCE:
            self._tell_hits()

    def _tell_hits(self) -> None:
        counted, self._hits = self._hits, Counter()
        self._store.count_hits(counted)

    def _candidates(self, asked: Asked, vector: Vector) -> list[Candidate]:
        now = self._wall()
        near = [
            (each, found)
            for each, found in self._mirror.nearest(asked.scope, vector, NEIGHBOURS)
            if each.similarity >= _HEARD
        ]
        if not any(each.similarity >= LEAST for each, _ in near):
            return []
        candidates = [self._candidate(each, found, now) for each, found in near]
        return [candidate for candidate in candidates if self._may_serve(asked, candidate)]

    def _candidate(self, near: Near, found: Question, now: float) -> Candidate:
        return Candidate(
            question=found.question,
            answer_len=found.answer_len,
            answer_key=found.answer_key,
            similarity=near.similarity,
            entry_id=str(found.id),
            hits=found.hits + self._hits[found.id],
            age_s=max(0.0, now - found.created_at),
        )

    def _may_serve(self, asked: Asked, candidate: Candidate) -> bool:
        if asked.question == candidate.question:
            return True
        reason = self._guards.refuse(asked.question, candidate.question)
        if reason is not None:
            self.stats.refused[reason.partition(":")[0]] += 1
        return reason is None

    def _keep(
        self, asked: Asked, codes: Codes, reply: CachedReply, answer: str, terms: Terms
    ) -> None:
        self._mirror.follow()
        expires_at = reply.created_at + terms.ttl
        number, old = self._store.put(
            asked.scope, asked.question, codes.tobytes(), reply,
            answer=answer, expires_at=expires_at,
        )  # fmt: skip
        self._mirror.forget([Gone(old, asked.scope)] if old is not None else [])
        self._mirror.add_own(Place(number, asked.scope, codes.tobytes()))
        self.stats.kept += 1
        if self.stats.kept % _TIDIED_EVERY == 0:
            self._tell_hits()
            self._mirror.forget(self._store.drop_expired(self._wall()))
            self._mirror.forget(self._store.drop_beyond(asked.tenant, terms.max_entries))

    def _observe(self, asked: Asked, entry_id: str, terms: Terms, was_right: bool) -> None:
        self._learn(asked, entry_id, was_right)
        if not was_right:
            self._store.drop([int(entry_id)])
        allowance = Allowance(terms.max_error)
        budget = self._store.budget(asked.tenant, asked.route)
        after = budget.after(was_right, allowance)
        self._store.put_budget(asked.tenant, asked.route, after)
        self._budgets[asked.tenant, asked.route] = after
        if budget.is_serving != after.is_serving:
            word = (
                "serves again" if after.is_serving else "is exact only: its error budget is spent"
            )
            _log.warning("route %s, tenant %s: %s", asked.route, asked.tenant, word)

    def _teach(self, asked: Asked, entry_id: str, was_right: bool) -> None:
        self.stats.taught += 1
        self._learn(asked, entry_id, was_right)

    def _learn(self, asked: Asked, entry_id: str, was_right: bool) -> None:
        self._decider(asked.tenant, asked.route).observe(entry_id, was_right)
        if (known := self._zones.get((asked.tenant, asked.route))) is not None:
            known[1].observe(entry_id, was_right)

    def _budget(self, asked: Asked) -> ErrorBudget:
        place = asked.tenant, asked.route
        budget = self._budgets.get(place)
        if budget is None:
            budget = self._budgets[place] = self._store.budget(*place)
        return budget

    # Around it

    async def _catch_up(self) -> None:
        """Fill the index from the file, then renew what another embedder had made."""
        try:
            while await self._work(self._mirror.load_more):
                pass
            while stale := await self._work(self._store.stale, _RENEWED_AT_ONCE):
                for number, question in stale:
                    vector = await self._service.vector(question)
                    await self._work(self._store.renew, number, encoded(vector).tobytes())
                await self._work(self._mirror.load_more)
        except Exception as exc:
            self._note("earlier entries are not all found", exc)

    async def _work(self, job: Callable[..., T], *given: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, job, *given)

    def _note(self, what: str, error: Exception) -> None:
        if not self.stats.errors:
            _log.warning("the semantic cache goes on without: %s: %s", what, error)
        self.stats.errors += 1


def _same_words(asked: str, candidates: Sequence[Candidate]) -> Decision | None:
    """Return the decision for a question that is kept itself: there is nothing to weigh."""
    for place, candidate in enumerate(candidates):
        if candidate.question == asked:
            return Decision(place, 1.0, 1.0, "same words")
    return None


def _differ_in_a_word(one: str, other: str) -> bool:
    """Whether two answers are one form filled in differently, which vectors cannot tell."""
    ours, theirs = read(one).content, read(other).content
    apart = len(ours - theirs), len(theirs - ours)
    return 1 <= min(apart) <= max(apart) <= _FILLED_IN and len(ours & theirs) > max(apart)
