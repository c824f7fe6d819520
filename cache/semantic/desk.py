"""What the semantic cache does in its worker thread: search, guards, decision, and what follows.

What is kept stands in a store, its vectors in a mirror of it. Both belong to one
thread, so a lookup is one visit there.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cache.index.codes import Codes, decoded
from cache.index.types import Near
from cache.quota import WriteQuota
from cache.semantic.decision import LEAST
from cache.semantic.decision_budget import Allowance, ErrorBudget
from cache.semantic.embedder import Vector
from cache.semantic.found import SemanticHit, SemanticStats, Terms
from cache.semantic.grey_zone import ADMITTED
from cache.semantic.lessons import Lessons
from cache.semantic.mirror import Mirror
from cache.semantic.scope import Asked
from cache.semantic.served import Served, is_own
from cache.semantic.snapshots import Snapshots
from cache.semantic.store import AnswerStore, Place, Question, Told
from cache.semantic.surroundings import HEARD, Around, surroundings
from cache.semantic.types import Candidate, Decider, Decision, Guards
from cache.types import CachedReply

if TYPE_CHECKING:
    from cache.index.pgvector import PgVectors

NEIGHBOURS = 8
"""How many of the nearest may serve."""
WITNESSES = 24
"""How many of the nearest tell how answers lie around a question."""
_WEIGHED = 0.5  # the cosine below which a neighbour has no say
_TIDIED_EVERY = 256
_COUNTED_AT_ONCE = 64
_BUDGETS_HELD = 10_000  # of tenants' routes; the file has all of them
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Weighed:
    """Who might serve, and what was decided about them."""

    candidates: Sequence[Candidate]
    decision: Decision

    @property
    def grey(self) -> Candidate | None:
        """Return the candidate about which a second opinion is worth having."""
        place = self.decision.grey
        return None if place is None else self.candidates[place]


@dataclass(frozen=True, slots=True)
class Fittings:
    """What a desk is given: where it keeps, who refuses, who decides, and who hears of it.

    `path` is the file that survives, None for memory only; `decider` makes the decider of a
    tenant's route; `wall` is in seconds since the epoch; `outside` opens the vectors of an
    identity where they stand in a database.
    """

    path: Path | None
    guards: Guards
    decider: Callable[[str, str], Decider]
    wall: Callable[[], float]
    told: Told | None = None
    outside: Callable[[str, int], PgVectors] | None = None


class Desk:
    """The part of a semantic cache that one thread owns: opened, used and closed there."""

    def __init__(self, fittings: Fittings, version: str, width: int, stats: SemanticStats) -> None:
        """Open the file. Raises OSError or sqlite3.Error where it cannot be had."""
        self._guards = fittings.guards
        self._wall = fittings.wall
        self._stats = stats
        self._budgets: dict[tuple[str, str], ErrorBudget] = {}
        self._hits: Counter[int] = Counter()
        self._quota = WriteQuota()
        self._served = Served()
        self._grown: dict[
            bytes, int
        ] = {}  # who wrote since the last tidying, and may have how much
        self._pg: PgVectors | None = None
        self.store = AnswerStore(fittings.path, version, fittings.told)
        snapshots = None
        if fittings.outside is not None:
            self._pg = fittings.outside(self.store.identity, width)
        elif fittings.path is not None:
            folder = fittings.path.with_name(f"{fittings.path.name}-cells") / self.store.identity
            snapshots = Snapshots(folder, width)
        self.mirror = Mirror(self.store, width, self._wall, snapshots, self._pg)
        self.lessons = Lessons(self.store.learnt, fittings.decider, self._wall)

    def close(self) -> None:
        """Write what was not yet written, and let go of the file."""
        with self.store:
            self._tell_hits()
            self.lessons.write()
            try:
                self.mirror.save()
            except OSError as exc:
                _log.warning("the next start will build its cells anew: %s", exc)
        if self._pg is not None:
            self._pg.close()

    def find(
        self, asked: Asked, vector: Vector, terms: Terms, request_id: str = ""
    ) -> SemanticHit | None:
        """Return an answer that serves, or None."""
        return self.settle(asked, self.weigh(asked, vector, terms), request_id)

    def weigh(self, asked: Asked, vector: Vector, terms: Terms) -> Weighed:
        """Return who might serve, and what is decided about them."""
        self._stats.lookups += 1
        if self.mirror.follow():
            self._budgets.clear()
        candidates = self._candidates(asked, vector)
        decider = self.lessons.decider(asked.tenant, asked.route)
        decision = _same_words(asked.question, candidates) or decider.decide(
            asked.question, candidates, terms.max_error
        )
        return Weighed(candidates, decision)

    def reconsider(
        self, asked: Asked, model: str, weighed: Weighed, score: float, max_error: float
    ) -> Weighed:
        """Decide again, now that a model has scored the pair that was close."""
        assert weighed.grey is not None, "only what was close is scored"
        zone = self.lessons.zone(asked.tenant, asked.route, model)
        decision = zone.decide(weighed.decision, weighed.grey.entry_id, score, max_error)
        return Weighed(weighed.candidates, decision)

    def settle(self, asked: Asked, weighed: Weighed, request_id: str = "") -> SemanticHit | None:
        """Return what was decided as a hit; one that only teaches is withheld."""
        decision = weighed.decision
        is_sure = decision.serve is not None
        if not is_sure or decision.reason == ADMITTED:
            self._stats.decided[decision.reason] += 1
        place = decision.serve if is_sure else decision.teaches
        if place is None:
            return None
        chosen = weighed.candidates[place]
        reply = self.store.reply(int(chosen.entry_id))
        if reply is None:
            return None
        is_withheld = not (is_sure and self._budget(asked).is_serving)
        if is_sure:
            self._count(int(chosen.entry_id), is_withheld)
        if request_id and not is_withheld:
            self._served.note(request_id, asked, chosen.entry_id)
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
        self._stats.withheld += is_withheld
        self._stats.hits += not is_withheld
        self._hits[number] += not is_withheld
        if len(self._hits) >= _COUNTED_AT_ONCE:
            self._tell_hits()

    def _tell_hits(self) -> None:
        counted, self._hits = self._hits, Counter()
        self.store.count_hits(counted)

    def _candidates(self, asked: Asked, vector: Vector) -> list[Candidate]:
        now = self._wall()
        near = [
            (each, found)
            for each, found in self.mirror.nearest(asked.scope, vector, WITNESSES)
            if each.similarity >= HEARD
        ]
        if not any(each.similarity >= LEAST for each, _ in near):
            return []
        around = _around(near)
        candidates = [
            self._candidate(each, found, lies, now)
            for (each, found), lies in zip(near[:NEIGHBOURS], around, strict=False)
            if each.similarity >= _WEIGHED
        ]
        return [candidate for candidate in candidates if self._may_serve(asked, candidate)]

    def _candidate(self, near: Near, found: Question, around: Around, now: float) -> Candidate:
        return Candidate(
            question=found.question,
            answer_len=found.answer_len,
            answer_key=found.answer_key,
            similarity=near.similarity,
            entry_id=str(found.id),
            hits=found.hits + self._hits[found.id],
            age_s=max(0.0, now - found.created_at),
            around=around,
        )

    def _may_serve(self, asked: Asked, candidate: Candidate) -> bool:
        if asked.question == candidate.question:
            return True
        reason = self._guards.refuse(asked.question, candidate.question)
        if reason is not None:
            self._stats.refused[reason.partition(":")[0]] += 1
        return reason is None

    def keep(
        self, asked: Asked, codes: Codes, reply: CachedReply, answer: str, terms: Terms
    ) -> None:
        """Keep an answer, and tidy up now and then."""
        if not self._quota.takes(asked.tenant, terms.max_writes, self._wall()):
            self._stats.decided["write quota"] += 1
            return
        self.mirror.follow()
        expires_at = reply.created_at + terms.ttl_of(asked.question)
        number, old = self.store.put(
            asked.scope, asked.question, codes.tobytes(), reply,
            answer=answer, expires_at=expires_at,
        )  # fmt: skip
        self._stats.kept += 1
        self.mirror.add_own(Place(number, asked.scope, codes.tobytes()), old)
        self._grown[asked.owner] = terms.max_entries
        if self._stats.kept % _TIDIED_EVERY == 0:
            self._tidy()

    def _tidy(self) -> None:
        """Let go of what is too old, and of what those who wrote have too much of."""
        self._tell_hits()
        self.mirror.forget(self.store.drop_expired(self._wall()))
        grown, self._grown = self._grown, {}
        for owner, most in grown.items():
            self.mirror.forget(self.store.drop_beyond(owner, most))

    def observe(self, asked: Asked, entry_id: str, terms: Terms, was_right: bool) -> None:
        """Take note of an audited hit; one that was wrong is not served again."""
        self.lessons.learn(asked.tenant, asked.route, entry_id, was_right)
        if not was_right:
            self.store.drop([int(entry_id)])
        allowance = Allowance(terms.max_error)
        budget = self.store.budget(asked.tenant, asked.route)
        after = budget.after(was_right, allowance)
        self.store.put_budget(asked.tenant, asked.route, after)
        self._budgets[asked.tenant, asked.route] = after
        if budget.is_serving != after.is_serving:
            word = (
                "serves again" if after.is_serving else "is exact only: its error budget is spent"
            )
            _log.warning("route %s, tenant %s: %s", asked.route, asked.tenant, word)

    def teach(self, asked: Asked, entry_id: str, was_right: bool) -> None:
        """Take note of whether an answer would have served that was not sure enough to."""
        self._stats.taught += 1
        self.lessons.learn(asked.tenant, asked.route, entry_id, was_right)

    def doubt(self, request_id: str, tenant: str) -> bool:
        """Take note that a client found the answer to its request wrong; False where unknown.

        Its tenant's own answer is not served again, and its route grows more careful. The error
        budget stands on hits drawn by chance, so this is none of it.
        """
        found = self._served.take(request_id, tenant)
        if found is None:
            return False
        asked, entry_id = found
        self._stats.doubted += 1
        self.lessons.learn(asked.tenant, asked.route, entry_id, False)
        if is_own(asked):
            self.store.drop([int(entry_id)])
        return True

    def _budget(self, asked: Asked) -> ErrorBudget:
        place = asked.tenant, asked.route
        budget = self._budgets.get(place)
        if budget is None:
            if len(self._budgets) >= _BUDGETS_HELD:
                self._budgets.clear()
            budget = self._budgets[place] = self.store.budget(*place)
        return budget


def _around(near: Sequence[tuple[Near, Question]]) -> list[Around]:
    codes = np.frombuffer(b"".join(found.codes for _, found in near), np.int8)
    return surroundings(
        [each.similarity for each, _ in near],
        decoded(codes.reshape(len(near), -1)),
        [found.answer_key for _, found in near],
    )


def _same_words(asked: str, candidates: Sequence[Candidate]) -> Decision | None:
    """Return the decision for a question that is kept itself: there is nothing to weigh."""
    for place, candidate in enumerate(candidates):
        if candidate.question == asked:
            return Decision(place, 1.0, 1.0, "same words")
    return None
