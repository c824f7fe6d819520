"""Answers to questions asked before in other words: search, guards, decision.

What is kept stands in a store; the vectors stand in memory, one index a scope.
Both belong to one worker thread, so a lookup is one visit there and the event
loop computes nothing. The tail of the store is followed: what other processes
of the machine add is found here, and what is left from a time before another
embedder is embedded anew in the background.
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
from typing import TypeVar

import numpy as np

from cache.index.codes import Codes, encoded
from cache.index.growing import GrowingIndex
from cache.index.types import Near
from cache.scope import Scope
from cache.semantic.embedder import Vector
from cache.semantic.scope import Asked
from cache.semantic.service import Busy, EmbeddingService
from cache.semantic.store import AnswerStore, Gone, Place, Question
from cache.semantic.types import Candidate, Decider, Guards
from cache.types import CachedReply

NEIGHBOURS = 8
_ROUNDS = 4
_LOADED_AT_ONCE = 128
_RENEWED_AT_ONCE = 32
_TIDIED_EVERY = 256
_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a route allows: the share of wrong answers among those served, and bounds."""

    max_error: float
    ttl: float
    max_entry: int = 256 * 1024
    max_entries: int = 1_000_000


@dataclass(frozen=True, slots=True)
class SemanticHit:
    """An answer that serves, and how near its question was."""

    reply: CachedReply
    similarity: float
    entry_id: str
    question: str
    probability: float


@dataclass(slots=True)
class SemanticStats:
    """Counts since the start. `refused` tells guards apart, `decided` why none was served."""

    lookups: int = 0
    hits: int = 0
    kept: int = 0
    errors: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    decided: Counter[str] = field(default_factory=Counter)


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
        decider: Callable[[bytes, str], Decider],
        wall: Callable[[], float],
    ) -> None:
        self.stats = SemanticStats()
        self._service = service
        self._path = path
        self._guards = guards
        self._decider = decider
        self._wall = wall
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="semantic-cache")
        self._scopes: dict[bytes, GrowingIndex] = {}
        self._last = 0
        self._seen = -1
        self._own: set[int] = set()
        self._task: asyncio.Task[None] | None = None
        self._opened: AnswerStore | None = None

    async def __aenter__(self) -> SemanticCache:
        """Open the file. Raises OSError where it cannot be had."""
        try:
            await self._work(self._open)
        except sqlite3.Error as exc:
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
        await self._work(self._store.__exit__, None, None, None)
        self._worker.shutdown(wait=True)

    async def vector(self, text: str) -> Vector | None:
        """Return the vector of a question; None where it cannot be had now."""
        embedder = self._service.embedder
        try:
            # A text has at most a token for each character, and two that stand around it.
            if len(text) + 2 > embedder.max_tokens < embedder.count(text):
                return None
            return await self._service.vector(text)
        except Busy:
            self.stats.decided["busy"] += 1
        except Exception as exc:
            self._note("the embedder failed", exc)
        return None

    async def find(
        self, asked: Asked, vector: Vector, route: str, terms: Terms
    ) -> SemanticHit | None:
        """Return an answer that serves, or None; whatever fails here costs no answer."""
        try:
            return await self._work(self._find, asked, vector, route, terms)
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

    async def drop(self, wanted: Scope, *, dry_run: bool = False) -> int:
        """Remove the entries that somebody means; return how many there are."""
        if dry_run:
            return await self._work(self._store.count_where, wanted)
        gone = await self._work(self._store.drop_where, wanted)
        await self._work(self._forget, gone)
        return len(gone)

    async def observe(self, asked: Asked, route: str, entry_id: str, *, was_right: bool) -> None:
        """Take note of an audited hit; one that was wrong is not served again."""
        await self._work(self._observe, asked, route, entry_id, was_right)

    async def caught_up(self) -> None:
        """Wait until what stood in the file at the start is in the index."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def count(self) -> int:
        """Return how many entries there are."""
        return await self._work(len, self._store)

    # In the worker thread

    @property
    def _store(self) -> AnswerStore:
        assert self._opened is not None, "the cache is entered before it is asked"
        return self._opened

    def _open(self) -> None:
        self._opened = AnswerStore(self._path, self._service.embedder.version)

    def _find(self, asked: Asked, vector: Vector, route: str, terms: Terms) -> SemanticHit | None:
        self.stats.lookups += 1
        self._follow()
        candidates = self._candidates(asked, vector)
        if not candidates:
            self.stats.decided["no candidate"] += 1
            return None
        decider = self._decider(asked.scope[:8], route)
        decision = decider.decide(asked.question, candidates, terms.max_error)
        if decision.serve is None:
            self.stats.decided[decision.reason] += 1
            return None
        chosen = candidates[decision.serve]
        reply = self._store.reply(int(chosen.entry_id))
        if reply is None:
            return None
        self.stats.hits += 1
        return SemanticHit(
            reply, chosen.similarity, chosen.entry_id, chosen.question, decision.probability
        )

    def _candidates(self, asked: Asked, vector: Vector) -> list[Candidate]:
        index = self._scopes.get(asked.scope)
        near = self._still_there(index, asked.scope, vector) if index is not None else []
        return [candidate for candidate in near if self._may_serve(asked, candidate)]

    def _still_there(self, index: GrowingIndex, scope: bytes, vector: Vector) -> list[Candidate]:
        """Search, and drop from the index what the store no longer has."""
        now = self._wall()
        for _ in range(_ROUNDS):
            near = index.search(vector, NEIGHBOURS)
            found = self._store.questions([each.id for each in near], now)
            missing = [Gone(each.id, scope) for each in near if each.id not in found]
            self._forget(missing)
            if not missing:
                return [_candidate(each, found[each.id], now) for each in near]
        return []

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
        expires_at = reply.created_at + terms.ttl
        number, old = self._store.put(
            asked.scope, asked.question, codes.tobytes(), reply,
            answer=answer, expires_at=expires_at,
        )  # fmt: skip
        self._forget([Gone(old, asked.scope)] if old is not None else [])
        self._place([Place(number, asked.scope, codes.tobytes())])
        self._note_own(number)
        self.stats.kept += 1
        if self.stats.kept % _TIDIED_EVERY == 0:
            self._forget(self._store.drop_expired(self._wall()))
            self._forget(self._store.drop_beyond(terms.max_entries))

    def _observe(self, asked: Asked, route: str, entry_id: str, was_right: bool) -> None:
        self._decider(asked.scope[:8], route).observe(entry_id, was_right)
        if not was_right:
            self._store.drop([int(entry_id)])

    def _follow(self) -> None:
        """Take in what other processes have added, a bounded share at a time."""
        seen = self._store.changes_of_others()
        if seen != self._seen and not self._load_more():
            self._seen = seen

    def _load_more(self) -> bool:
        """Take in the next entries of the store; return whether there may be more."""
        places = self._store.after(self._last, self._wall(), _LOADED_AT_ONCE)
        self._place([place for place in places if place.id not in self._own])
        if places:
            self._last = places[-1].id
            self._own = {number for number in self._own if number > self._last}
        return len(places) == _LOADED_AT_ONCE

    def _note_own(self, number: int) -> None:
        """Remember an entry of ours that stands beyond those of others not yet taken in."""
        if self._store.changes_of_others() == self._seen:
            self._last = number
        else:
            self._own.add(number)

    def _place(self, places: Sequence[Place]) -> None:
        by_scope: dict[bytes, list[Place]] = {}
        for place in places:
            by_scope.setdefault(place.scope, []).append(place)
        width = self._service.embedder.width
        for scope, group in by_scope.items():
            index = self._scopes.setdefault(scope, GrowingIndex(width))
            codes = np.frombuffer(b"".join(place.codes for place in group), np.int8)
            index.add_codes([place.id for place in group], codes.reshape(len(group), width))

    def _forget(self, gone: Sequence[Gone]) -> None:
        by_scope: dict[bytes, list[int]] = {}
        for each in gone:
            by_scope.setdefault(each.scope, []).append(each.id)
        for scope, ids in by_scope.items():
            index = self._scopes.get(scope)
            if index is not None and index.drop(ids) and not len(index):
                del self._scopes[scope]

    # Around it

    async def _catch_up(self) -> None:
        """Fill the index from the file, then renew what another embedder had made."""
        try:
            while await self._work(self._load_more):
                pass
            while stale := await self._work(self._store.stale, _RENEWED_AT_ONCE):
                for number, question in stale:
                    vector = await self._service.vector(question)
                    await self._work(self._store.renew, number, encoded(vector).tobytes())
                await self._work(self._load_more)
        except Exception as exc:
            self._note("earlier entries are not all found", exc)

    async def _work(self, job: Callable[..., T], *given: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, job, *given)

    def _note(self, what: str, error: Exception) -> None:
        if not self.stats.errors:
            _log.warning("the semantic cache goes on without: %s: %s", what, error)
        self.stats.errors += 1


def _candidate(near: Near, found: Question, now: float) -> Candidate:
    return Candidate(
        question=found.question,
        answer_len=found.answer_len,
        answer_key=found.answer_key,
        similarity=near.similarity,
        entry_id=str(found.id),
        hits=found.hits,
        age_s=max(0.0, now - found.created_at),
    )
