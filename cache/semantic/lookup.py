"""Answers to questions asked before in other words: search, guards, decision.

The work is done at a desk of its own thread, so the event loop computes nothing.
What is left from a time before another embedder is embedded anew in the background.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from cache.index.codes import encoded
from cache.scope import Scope
from cache.semantic.cross_encoder import PairScorer, Verification, load_cross_encoder
from cache.semantic.decision_budget import ErrorBudget
from cache.semantic.desk import Desk, Fittings
from cache.semantic.embedder import Vector
from cache.semantic.found import SemanticHit, SemanticStats, Terms
from cache.semantic.guards.words import read
from cache.semantic.keeping import unworthy
from cache.semantic.scope import Asked
from cache.semantic.service import Busy, EmbeddingService
from cache.semantic.store import Told
from cache.semantic.types import Decider, Guards
from cache.types import CachedReply

if TYPE_CHECKING:
    from cache.index.pgvector import PgVectors

_RENEWED_AT_ONCE = 32
_ALIKE = 0.85  # the cosine from which two answers are taken to say the same
_SHORT = 300  # characters; in longer answers a number may differ and nothing else
_FILLED_IN = 2  # words
_WRITTEN_WITHIN_S = 2.0  # what was learnt, should the process be killed
_log = logging.getLogger(__name__)
T = TypeVar("T")


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
        self.stats = SemanticStats()
        self._verification = Verification(cross_encoder)
        self._service = service
        self._fittings = Fittings(path, guards, decider, wall, told, outside)
        self._guards = guards
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="semantic-cache")
        self._task: asyncio.Task[None] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._opened: Desk | None = None

    async def __aenter__(self) -> SemanticCache:
        """Open the file. Raises OSError where it cannot be had."""
        embedder = self._service.embedder
        given = self._fittings, embedder.version, embedder.width, self.stats
        try:
            self._opened = await self._work(Desk, *given)
        except (sqlite3.Error, OSError) as exc:
            self._worker.shutdown(wait=False)
            path = self._fittings.path
            raise OSError(f"the semantic cache {path} cannot be opened: {exc}") from exc
        self._task = asyncio.create_task(self._catch_up())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        tasks = [task for task in (self._task, self._writing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._work(self._desk.close)
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

    async def find(
        self, asked: Asked, vector: Vector, terms: Terms, request_id: str = ""
    ) -> SemanticHit | None:
        """Return an answer that serves, or None; whatever fails here costs no answer.

        By its `request_id` a client may be heard on it later.
        """
        try:
            if terms.cross_encoder is not None:
                return await self._find_verified(asked, vector, terms, request_id)
            return await self._work(self._desk.find, asked, vector, terms, request_id)
        except Exception as exc:
            self._note("nothing was looked up", exc)
            return None

    async def keep(
        self, asked: Asked, vector: Vector, reply: CachedReply, *, answer: str, terms: Terms
    ) -> None:
        """Keep an answer, which is whole and accepted, if it is worth it and not too large."""
        if reply.size > terms.max_entry:
            return
        if (reason := unworthy(asked.question, reply.worth, terms.min_usd)) is not None:
            self.stats.decided[reason] += 1
            return
        try:
            await self._work(self._desk.keep, asked, encoded(vector), reply, answer, terms)
        except Exception as exc:
            self._note("nothing was kept", exc)

    async def drop(
        self, wanted: Scope, *, question: str | None = None, dry_run: bool = False
    ) -> int:
        """Remove the entries that somebody means; return how many there are.

        `wanted.key` is a scope of questions, `question` one of them.
        """
        if dry_run:
            return await self._work(self._desk.store.count_where, wanted, question)
        gone = await self._work(self._desk.store.drop_where, wanted, question)
        await self._work(self._desk.mirror.forget, gone)
        return len(gone)

    async def observe(self, asked: Asked, entry_id: str, terms: Terms, *, was_right: bool) -> None:
        """Take note of an audited hit; one that was wrong is not served again."""
        await self._work(self._desk.observe, asked, entry_id, terms, was_right)
        self._write_soon()

    async def teach(self, asked: Asked, entry_id: str, *, was_right: bool) -> None:
        """Take note of whether an answer would have served that was not sure enough to."""
        await self._work(self._desk.teach, asked, entry_id, was_right)
        self._write_soon()

    async def doubt(self, request_id: str, tenant: str) -> bool:
        """Take note that a tenant's client found an answer wrong; False for one long ago."""
        was_known = await self._work(self._desk.doubt, request_id, tenant)
        self._write_soon()
        return was_known

    async def alias(self, asked: Asked, entry_id: str) -> None:
        """Let a kept question stand for the same answer as an entry: they vote as one."""
        await self._work(self._desk.store.alias, asked.scope, asked.question, int(entry_id))

    async def budgets(self) -> list[tuple[str, str, ErrorBudget]]:
        """Return tenant, route and error budget of all that were audited."""
        return await self._work(self._desk.store.budgets)

    async def caught_up(self) -> None:
        """Wait until what stood in the file at the start is in the index."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def count(self) -> int:
        """Return how many entries there are."""
        return await self._work(len, self._desk.store)

    async def counted(self) -> SemanticStats:
        """Return what was counted since the start, by all who share the cache."""
        return self.stats

    async def with_store(self, job: Callable[..., T], *given: object) -> T:
        """Do something in the worker thread, given the store and what is searched of it."""
        return await self._work(job, self._desk.store, self._desk.mirror, *given)

    def now(self) -> float:
        """Return the time that entries are kept by."""
        return self._fittings.wall()

    async def _find_verified(
        self, asked: Asked, vector: Vector, terms: Terms, request_id: str
    ) -> SemanticHit | None:
        """Find an answer, with a second opinion where the first one was close."""
        name = terms.cross_encoder
        assert name is not None, "only a route that names one asks for it"
        weighed = await self._work(self._desk.weigh, asked, vector, terms)
        if (grey := weighed.grey) is not None:
            score = await self._verification.score(name, asked.question, grey.question)
            if score is not None:
                given = asked, name, weighed, score, terms.max_error
                weighed = await self._work(self._desk.reconsider, *given)
        return await self._work(self._desk.settle, asked, weighed, request_id)

    @property
    def _desk(self) -> Desk:
        assert self._opened is not None, "the cache is entered before it is asked"
        return self._opened

    def _write_soon(self) -> None:
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        await asyncio.sleep(_WRITTEN_WITHIN_S)
        await self._work(self._desk.lessons.write)

    async def _catch_up(self) -> None:
        """Fill the index from the file, then renew what another embedder had made."""
        try:
            while await self._work(self._desk.mirror.load_more):
                pass
            while stale := await self._work(self._desk.store.stale, _RENEWED_AT_ONCE):
                for number, question in stale:
                    vector = await self._service.vector(question)
                    await self._work(self._desk.store.renew, number, encoded(vector).tobytes())
                await self._work(self._desk.mirror.load_more)
        except Exception as exc:
            self._note("earlier entries are not all found", exc)

    async def _work(self, job: Callable[..., T], *given: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, job, *given)

    def _note(self, what: str, error: Exception) -> None:
        if not self.stats.errors:
            _log.warning("the semantic cache goes on without: %s: %s", what, error)
        self.stats.errors += 1


def _differ_in_a_word(one: str, other: str) -> bool:
    """Whether two answers are one form filled in differently, which vectors cannot tell."""
    ours, theirs = read(one).content, read(other).content
    apart = len(ours - theirs), len(theirs - ours)
    return 1 <= min(apart) <= max(apart) <= _FILLED_IN and len(ours & theirs) > max(apart)
