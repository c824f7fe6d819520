"""The way of sequences through the cache: who waits, who runs, and on which pages."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

from local_engine.pages import PagePool, PageTable
from local_engine.prefix import PrefixHash
from local_engine.scheduler import Rules, Standing, plan_step

_numbers = itertools.count()


@dataclass(slots=True, eq=False)
class Lane:
    """One sequence as the cache sees it: its tokens, how many are computed, its pages.

    `total` is the most tokens it can come to. A lane with a `leader` starts as a copy of
    it once the leader's prompt, which is the same, has been computed.
    """

    tokens: list[int]
    total: int
    rank: tuple[float, int]
    chain: list[bytes]
    priority: int = 0
    leader: Lane | None = None
    computed: int = 0
    prompt: int = 0
    preemptions: int = 0
    published: int = 0
    reused: int = 0
    is_running: bool = False
    is_gone: bool = False
    table: PageTable = field(default_factory=PageTable)

    @property
    def needs(self) -> int:
        """Return how many of its tokens are not yet in the cache."""
        return len(self.tokens) - self.computed

    @property
    def waits_for_leader(self) -> bool:
        """Tell whether its prompt is being computed for it."""
        leader = self.leader
        return leader is not None and not leader.is_gone and leader.computed < self.prompt


@dataclass(frozen=True, slots=True)
class Step:
    """What a plan made of the lanes: who computes how much, and which pages to copy first."""

    work: tuple[tuple[Lane, int], ...]
    admitted: tuple[Lane, ...]
    preempted: tuple[Lane, ...]
    copies: tuple[tuple[int, int], ...]


class Lanes:
    """Apply plans to the pages; never holds more lanes than the rules allow."""

    def __init__(self, pages: int, rules: Rules, *, head_start_s: float, reach: int | None) -> None:
        """Take a pool of pages. `reach` is how far back any layer looks, None for all."""
        self.pool = PagePool(pages)
        self.rules = rules
        self.waiting: list[Lane] = []
        self.running: list[Lane] = []
        self._hash = PrefixHash(rules.page_size)
        self._head_start_s = head_start_s
        self._reach = reach

    def lane(
        self,
        tokens: list[int],
        total: int,
        submitted: float,
        *,
        priority: int = 0,
        tenant: str = "",
        adapter: str = "",
        leader: Lane | None = None,
    ) -> Lane:
        """Make a lane; each level of priority is worth a head start of some seconds."""
        rank = (submitted - priority * self._head_start_s, next(_numbers))
        chain = [self._hash.start(tenant, adapter)]
        return Lane(tokens, total, rank, chain, priority, leader, prompt=len(tokens))

    def add(self, lane: Lane) -> None:
        """Let a lane wait for its turn."""
        bisect.insort(self.waiting, lane, key=lambda w: w.rank)

    def plan(self) -> Step:
        """Decide the next step and move lanes and pages accordingly."""
        candidates = self._candidates()
        found = [self._known(lane) for lane in candidates]
        counts = self._is_tight
        plan = plan_step(
            [self._standing(lane, counts=counts) for lane in self.running],
            [self._waiting_standing(w, p) for w, p in zip(candidates, found, strict=True)],
            self.pool.available,
            self.pool.size,
            self.rules,
        )
        preempted = tuple(self.running[n] for n in plan.preempted)
        work = [(self.running[n], take) for n, take in plan.takes]
        for lane in preempted:
            self._preempt(lane)
        joined = []
        for n, take in plan.admitted:
            # A copy of one that has just been put back would be a copy of nothing.
            if candidates[n].leader not in preempted:
                self._join(candidates[n], found[n])
                joined.append((candidates[n], take))
        work += joined
        copies = [c for lane, take in work if (c := self._make_room(lane, take))]
        return Step(tuple(work), tuple(lane for lane, _ in joined), preempted, tuple(copies))

    def advance(self, work: Iterable[tuple[Lane, int]]) -> None:
        """Note that a step has computed its tokens; full pages can be found from now on."""
        for lane, take in work:
            lane.computed += take
            self._publish(lane)
            if self._reach is not None:
                before = max(0, lane.computed + 1 - self._reach) // self.rules.page_size
                self.pool.trim(lane.table, before)

    def reserve(self, lane: Lane, more: int) -> bool:
        """Make room for tokens that a step may add past its own, unless pages are scarce."""
        missing = -(-(lane.computed + 1 + more) // self.rules.page_size) - len(lane.table.pages)
        if missing > 0 and self._is_tight:
            return False
        self.pool.extend(lane.table, max(0, missing))
        return True

    def remove(self, lane: Lane) -> None:
        """Take a lane out; its pages are free at once."""
        if lane.is_running:
            self.running.remove(lane)
            lane.is_running = False
        elif lane in self.waiting:
            self.waiting.remove(lane)
        lane.is_gone = True
        self.pool.release(lane.table)

    def spoil(self, lane: Lane) -> list[int]:
        """Let nobody find what a lane has written; return its own pages, which need clearing."""
        return self.pool.forget(page for page in lane.table.pages if page)

    def _candidates(self) -> list[Lane]:
        """Return those who wait that could join in one step; the rest need not be looked at."""
        places = max(1, self.rules.max_batch - len(self.running))
        ready = (lane for lane in self.waiting if not lane.waits_for_leader)
        return list(itertools.islice(ready, places))

    def _known(self, lane: Lane) -> list[int]:
        """Return the pages that hold the beginning of a lane's tokens, all but the last token."""
        leader = lane.leader
        last = (lane.needs - 1) // self.rules.page_size
        if leader is not None and leader.is_running and 0 not in leader.table.pages:
            return leader.table.pages[: -(-lane.prompt // self.rules.page_size)]
        self._hash.extend(lane.chain, lane.tokens)
        return self.pool.find(lane.chain[1 : last + 1])

    @property
    def _is_tight(self) -> bool:
        """Tell whether a step may need more pages than are free."""
        pages = -(-self.rules.prefill_chunk // self.rules.page_size)
        return self.pool.available < 2 * self.rules.max_batch + pages

    def _standing(self, lane: Lane, *, counts: bool) -> Standing:
        """Describe a running lane; its own pages are counted only where that matters."""
        pages = lane.table.pages
        index = lane.computed // self.rules.page_size
        references = self.pool.references
        return Standing(
            lane.rank,
            lane.priority,
            lane.needs,
            lane.computed,
            len(pages),
            lane.total,
            own=sum(references(page) == 1 for page in pages) if counts else 0,
            shared=int(index < len(pages) and references(pages[index]) > 1),
            preemptions=lane.preemptions,
        )

    def _waiting_standing(self, lane: Lane, known: list[int]) -> Standing:
        computed = self._reused(lane, known)
        return Standing(
            lane.rank,
            lane.priority,
            lane.needs - computed,
            computed,
            len(known),
            lane.total,
            shared=int(computed < len(known) * self.rules.page_size),
            idle=sum(1 for page in known if not self.pool.references(page)),
            preemptions=lane.preemptions,
        )

    def _reused(self, lane: Lane, known: list[int]) -> int:
        """Return the tokens that known pages spare; one must be computed, for its logits."""
        return min(len(known) * self.rules.page_size, len(lane.tokens) - 1)

    def _preempt(self, lane: Lane) -> None:
        self.running.remove(lane)
        lane.is_running = False
        lane.preemptions += 1
        lane.computed = lane.published = 0
        self.pool.release(lane.table)
        self.add(lane)

    def _join(self, lane: Lane, known: list[int]) -> None:
        self.waiting.remove(lane)
        self.running.append(lane)
        lane.is_running = True
        lane.table.expected = -(-lane.total // self.rules.page_size)
        self.pool.share(lane.table, known)
        lane.computed = lane.reused = self._reused(lane, known)
        lane.published = lane.computed // self.rules.page_size
        lane.leader = None

    def _make_room(self, lane: Lane, take: int) -> tuple[int, int] | None:
        """Give a lane the pages of its next tokens; return the copy to make before writing."""
        size, pages = self.rules.page_size, lane.table.pages
        index = lane.computed // size
        copy = self.pool.own(lane.table, index) if index < len(pages) else None
        missing = -(-(lane.computed + take) // size) - len(pages)
        self.pool.extend(lane.table, max(0, missing))
        return copy

    def _publish(self, lane: Lane) -> None:
        full = lane.computed // self.rules.page_size
        if full > lane.published:
            self._hash.extend(lane.chain, lane.tokens)
            for index in range(lane.published, full):
                self.pool.publish(lane.table.pages[index], lane.chain[index + 1])
            lane.published = full
