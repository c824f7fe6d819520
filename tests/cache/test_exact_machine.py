"""The exact cache under requests, failures and departures in any order.

Each actor is a request as the gateway makes it: it enters a seat, follows, leads
when it is its turn, and obeys what the machine tells it. The pieces of an answer
say whose they are, so that a reader can tell what it was given.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cache.exact import ExactCache, Seat
from cache.fingerprint import fingerprint
from cache.freshness import Freshness
from cache.stores.memory import MemoryStore
from cache.types import CachedReply, LeaderFailed

TENANTS = ("acme", "other")
PROMPTS = ("a", "b")


class Upstream(Exception):
    """What a leader fails of."""


@dataclass(frozen=True)
class Piece:
    """The `seq`th piece of the answer that a leader gives to one tenant's prompt."""

    tenant: str
    prompt: str
    leader: int
    seq: int

    def encode(self) -> bytes:
        return repr(self).encode()


@dataclass(eq=False)
class Actor:
    """One request and what became of it."""

    number: int
    tenant: str
    prompt: str
    is_slow: bool
    is_whole: bool
    orders: asyncio.Queue[str] = field(default_factory=asyncio.Queue)
    reads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    published: list[Piece] = field(default_factory=list)
    received: list[Piece] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    seat: Seat[Piece] | None = None
    outcome: str = "under way"

    @property
    def is_leading(self) -> bool:
        return self.outcome == "under way" and self.seat is not None and self.seat.is_leader


def kept(actor: Actor) -> CachedReply:
    parts = tuple(piece.encode() for piece in actor.published)
    return CachedReply(parts, True, "m", {}, 0.0, "m:served")


class ExactCacheMachine(RuleBasedStateMachine):
    """Requests of two tenants for two prompts."""

    @initialize(room=st.sampled_from([10_000, 3]))
    def begin(self, room: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.cache: ExactCache[Piece] = ExactCache(MemoryStore(), size_of=lambda _: 1)
        self.room = room
        self.actors: list[Actor] = []
        self.errors = 0
        self.whole: set[tuple[bytes, ...]] = set()

    async def _request(self, actor: Actor) -> None:
        key = fingerprint(actor.tenant, "auto", "1", {"prompt": actor.prompt})
        try:
            with self.cache.seat(key, Freshness(60), max_entry=self.room) as seat:
                actor.seat = seat
                await self._serve(actor, seat)
        except LeaderFailed:
            actor.outcome = "failed with its leader"
        except Upstream:
            actor.outcome = "failed"
        except asyncio.CancelledError:
            actor.outcome = "left"

    async def _serve(self, actor: Actor, seat: Seat[Piece]) -> None:
        if seat.hit is not None:
            assert seat.hit.parts in self.whole
            assert all(f"tenant={actor.tenant!r}".encode() in part for part in seat.hit.parts)
            actor.outcome = "hit"
            return
        if seat.is_follower:
            async for piece in seat.follow(whole=actor.is_whole):
                actor.received.append(piece)
                if actor.is_slow:
                    await actor.reads.acquire()
            if not seat.was_promoted:
                actor.outcome = "followed"
                return
            assert not actor.received
        await self._lead(actor, seat)

    async def _lead(self, actor: Actor, seat: Seat[Piece]) -> None:
        while (order := await actor.orders.get()) == "publish":
            piece = Piece(actor.tenant, actor.prompt, actor.number, len(actor.published))
            actor.published.append(piece)
            seat.publish(piece)
        if order == "fail":
            self.errors += 1
            raise Upstream
        if order == "keep":
            self.whole.add(kept(actor).parts)
            seat.keep(kept(actor))
        actor.outcome = "led"

    def _settle(self) -> None:
        async def rounds() -> None:
            for _ in range(8):
                await asyncio.sleep(0)

        self.loop.run_until_complete(rounds())
        for actor in self.actors:
            if actor.task is not None and actor.task.done() and not actor.task.cancelled():
                actor.task.result()

    def _leaders(self) -> list[Actor]:
        return [actor for actor in self.actors if actor.is_leading]

    def _under_way(self) -> list[Actor]:
        return [actor for actor in self.actors if actor.task is not None and not actor.task.done()]

    @rule(
        tenant=st.sampled_from(TENANTS),
        prompt=st.sampled_from(PROMPTS),
        kind=st.sampled_from(["prompt", "slow", "whole"]),
        count=st.integers(1, 4),
        lets_run=st.booleans(),
    )
    def arrive(self, tenant: str, prompt: str, kind: str, count: int, lets_run: bool) -> None:
        for _ in range(count):
            actor = Actor(len(self.actors), tenant, prompt, kind == "slow", kind == "whole")
            actor.task = self.loop.create_task(self._request(actor))
            self.actors.append(actor)
        if lets_run:
            self._settle()

    @precondition(lambda self: self._leaders())
    @rule(
        data=st.data(),
        pieces=st.integers(0, 3),
        end=st.sampled_from(["", "keep", "finish", "fail"]),
    )
    def order(self, data: st.DataObject, pieces: int, end: str) -> None:
        leader = data.draw(st.sampled_from(self._leaders()), label="leader")
        # Given together, they are carried out before any follower gets to run.
        for order in ["publish"] * pieces + [end] * bool(end):
            leader.orders.put_nowait(order)
        if data.draw(st.booleans(), label="lets run"):
            self._settle()

    @precondition(lambda self: self._under_way())
    @rule(data=st.data())
    def client_leaves(self, data: st.DataObject) -> None:
        actor = data.draw(st.sampled_from(self._under_way()), label="who")
        assert actor.task is not None
        actor.task.cancel()
        if data.draw(st.booleans(), label="lets run"):
            self._settle()

    @rule()
    def slow_ones_read(self) -> None:
        for actor in self.actors:
            if actor.is_slow:
                actor.reads.release()
        self._settle()

    @invariant()
    def one_leader_at_a_time_is_open_to_others(self) -> None:
        if not hasattr(self, "actors"):
            return
        for tenant in TENANTS:
            for prompt in PROMPTS:
                leaders = [
                    a
                    for a in self._leaders()
                    if (a.tenant, a.prompt) == (tenant, prompt) and len(a.published) <= self.room
                ]
                assert len(leaders) <= 1

    @invariant()
    def nobody_reads_what_was_not_meant_for_it(self) -> None:
        for actor in getattr(self, "actors", ()):
            if not actor.received:
                continue
            source = self.actors[actor.received[0].leader]
            assert (source.tenant, source.prompt) == (actor.tenant, actor.prompt)
            assert actor.received == source.published[: len(actor.received)]
            if actor.outcome == "followed":
                assert source.outcome == "led"
                assert actor.received == source.published

    @invariant()
    def errors_reach_only_those_they_may(self) -> None:
        for actor in getattr(self, "actors", ()):
            if actor.outcome == "failed with its leader" and not actor.received:
                assert self.errors >= 3
            if actor.is_whole and actor.received:
                assert actor.outcome in ("followed", "left")

    def teardown(self) -> None:
        if not hasattr(self, "actors"):
            return
        try:
            self._see_everyone_off()
            assert not self._under_way(), "everyone that waits comes to an end"
            assert self.cache.under_way == 0
            self.nobody_reads_what_was_not_meant_for_it()
        finally:
            for actor in self._under_way():
                assert actor.task is not None
                actor.task.cancel()
            self._settle()
            self.loop.close()

    def _see_everyone_off(self) -> None:
        for _ in range(len(self.actors) + 2):
            for actor in self._under_way():
                for _ in range(100):
                    actor.reads.release()
                if actor.is_leading:
                    actor.orders.put_nowait("publish")
                    actor.orders.put_nowait("finish")
            self._settle()


TestExactCacheMachine = ExactCacheMachine.TestCase
TestExactCacheMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
