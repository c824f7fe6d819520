"""The exact cache of other processes: their entries, and the answers they make right now.

One process holds the lease of a key and makes its answer; the others ask it for
the pieces and get those so far, then the rest as it comes. Pieces go from
process to process by messages that name their place in the answer, so one that
was lost is asked for again; nothing of an answer under way is stored. A leader
that dies lets its lease lapse, and whoever notices first takes its place.

A leader that nobody elsewhere follows sends nothing.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Protocol, TypeVar

import msgspec

from cache.epochs import Epochs
from cache.follow import Follow
from cache.lease import Lease
from cache.messages import Pieces, State, Want, read
from cache.scope import Scope, Tally
from cache.stores.shared import NEWS, Claim, SharedStore
from cache.stores.shared import State as Held
from cache.types import CachedReply, StoreFailed

_log = logging.getLogger(__name__)
T = TypeVar("T")

_REMEMBERED = 64  # answers that have ended, for followers who have missed their end
_WAITING_INVALIDATIONS = 100
_NO_LONGER = -1
_SILENT_S = 10.0  # after which a process counts as gone


class Codec(Protocol[T]):
    """How pieces of an answer travel between processes."""

    def dump(self, piece: T) -> bytes:
        """Return a piece as bytes."""
        ...

    def load(self, data: bytes) -> T:
        """Return the piece that `dump` wrote. Raises ValueError."""
        ...

    def pieces(self, reply: CachedReply) -> Sequence[T]:
        """Return the pieces of a whole answer."""
        ...


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a lease lasts, and how long a follower waits for a link that is down."""

    lease_s: float = 3.0
    grace_s: float = 5.0

    @property
    def tend_s(self) -> float:
        """Return how often leases are renewed and leaders looked after."""
        return self.lease_s / 3


class Found(msgspec.Struct, Generic[T], frozen=True):
    """What the other processes have: a hit for `ttl` more seconds, an answer under way, or none.

    With neither, it is ours to make, under a lease where one could be had.
    """

    hit: CachedReply | None = None
    ttl: float = 0.0
    follow: Follow[T] | None = None
    lease: Lease[T] | None = None


class Far(Generic[T]):
    """This process among those that share a Redis. An async context manager.

    `forget` is told of every scope that another process has invalidated; what
    `counts` returns is shown to the others.
    """

    def __init__(
        self,
        store: SharedStore,
        codec: Codec[T],
        *,
        timing: Timing | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.store = store
        self.codec = codec
        self.epochs = Epochs()
        self.timing = timing or Timing()
        self.forget: Callable[[Scope], object] = lambda scope: None
        self.counts: Callable[[], Mapping[str, int]] = dict
        self.hits = self.followed = self.led = 0
        self._link = store.link
        self._wall = wall
        self._process = secrets.token_hex(6).encode()
        self._count = 0
        self._leases: dict[bytes, Lease[T]] = {}
        self._given_back: set[bytes] = set()
        self._ended: dict[bytes, Lease[T]] = {}
        self._follows: dict[bytes, set[Follow[T]]] = {}
        self._pending: dict[Scope, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._link.listen(_channel(self._process), self._hear)
        self._link.listen(NEWS, lambda _: self._start(self._catch_up))
        self._link.when_up(lambda: self._start(self._come_up))
        self._link.when_down(self._lose)

    async def __aenter__(self) -> Far[T]:
        self._start(self._tend)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def is_up(self) -> bool:
        """Return whether the others can be asked."""
        return self._link.is_up

    async def claim(
        self, key: bytes, room: int, accepts: Callable[[CachedReply], bool], *, skip: bool
    ) -> Found[T]:
        """Ask the others for an answer; where none has it, lead among all processes.

        With `skip` no kept answer will do. Costs at most the link's deadline, once.
        """
        if not self._link.is_up:
            return Found()
        self._count += 1
        name = b"%b.%d" % (self._process, self._count)
        try:
            claim = await self.store.claim(key, name, self.timing.lease_s, skip=skip)
            if claim.epoch != self.epochs.now:
                await self._catch_up()
            if claim.state is Held.KEPT:
                found = self._kept(key, claim, accepts)
                if found is not None:
                    return found
                claim = await self.store.claim(key, name, self.timing.lease_s, skip=True)
        except StoreFailed as exc:
            _log.debug("the answer is made without asking others: %s", exc)
            return Found()
        return self._seated(key, claim, room)

    def _kept(
        self, key: bytes, claim: Claim, accepts: Callable[[CachedReply], bool]
    ) -> Found[T] | None:
        stored = claim.stored
        if stored is None or not self.epochs.admits(stored.stamp, key, stored.reply):
            return None
        if not accepts(stored.reply):
            return None
        self.hits += 1
        return Found(hit=stored.reply, ttl=max(0.001, stored.expires_at - self._wall()))

    def _seated(self, key: bytes, claim: Claim, room: int) -> Found[T]:
        if claim.state is Held.OURS:
            self.led += 1
            lease: Lease[T] = Lease(key, claim.token, claim.epoch, room, self._send,
                                    self.codec.dump, self._outgrown)  # fmt: skip
            self._leases[claim.token] = lease
            return Found(lease=lease)
        if claim.state is Held.THEIRS and _epoch_of(claim.token) == claim.epoch:
            self.followed += 1
            return Found(follow=self._follow(key, claim.token))
        return Found()

    def _follow(self, key: bytes, token: bytes) -> Follow[T]:
        follow = Follow(key, token, self.store, self._ask, self.codec.load, self.timing.tend_s,
                        self.timing.grace_s, self._let_go)  # fmt: skip
        self._follows.setdefault(token, set()).add(follow)
        self._ask(token, 0)
        return follow

    def keep(self, key: bytes, reply: CachedReply, ttl: float, stamp: int, token: bytes) -> None:
        """Let the others have an answer; nobody waits for it. Its lease is given back with that."""
        if self.store.post(key, reply, ttl, stamp, token) and token:
            self._given_back.add(token)

    def end(self, lease: Lease[T], *, is_whole: bool) -> None:
        """Give a lease back, and tell who follows how the answer has ended."""
        lease.end(State.WHOLE if is_whole else State.FAILED)
        self._ended.pop(lease.token, None)
        if lease.has_followers:
            self._remember(lease)
        self._give_back(lease)

    def _outgrown(self, lease: Lease[T]) -> None:
        """Let newcomers make the answer themselves; those who follow go on."""
        self._remember(lease)
        self._give_back(lease)

    def _remember(self, lease: Lease[T]) -> None:
        self._ended[lease.token] = lease
        if len(self._ended) > _REMEMBERED:
            del self._ended[next(iter(self._ended))]

    def _give_back(self, lease: Lease[T]) -> None:
        token = lease.token
        is_ours = self._leases.pop(token, None) is not None
        if token in self._given_back:
            self._given_back.remove(token)
        elif is_ours and self._link.is_up:
            self.store.release(lease.key, token)

    async def invalidate(self, scope: Scope) -> Tally:
        """Open an epoch for all processes, and remove what it voids. Raises StoreFailed.

        Out of reach, the others are told once they are in reach again.
        """
        try:
            await self.store.invalidate(scope)
        except StoreFailed:
            if len(self._pending) >= _WAITING_INVALIDATIONS:
                self._pending = {Scope(): None}
            self._pending[scope] = None
            raise
        await self._catch_up()
        return await self.store.drop_where(scope)

    @property
    def pending(self) -> int:
        """Return how many invalidations the other processes do not know of yet."""
        return len(self._pending)

    async def totals(self) -> tuple[int, dict[str, int]]:
        """Return how many processes there are, and the sums of their counts. Raises StoreFailed."""
        others = await self.store.reports(self._wall() - _SILENT_S)
        reports = [dict(self.counts()), *(r for name, r in others.items() if name != self._process)]
        sums: dict[str, int] = {}
        for report in reports:
            for name, count in report.items():
                sums[name] = sums.get(name, 0) + count
        return len(reports), sums

    def _ask(self, token: bytes, have: int) -> None:
        """Ask a leader for what is missing of its answer."""
        leader = token.partition(b".")[0]
        want = Want(token, _channel(self._process), have)
        self._send(_channel(leader), want)

    def _send(self, channel: bytes, message: Want | Pieces) -> None:
        if self._link.is_up:
            self._link.post(b"PUBLISH", channel, msgspec.msgpack.encode(message))

    def _hear(self, data: bytes) -> None:
        try:
            message = read(data)
        except ValueError:
            _log.warning("a message of another kind came over Redis; it was passed over")
            return
        if isinstance(message, Want):
            self._answer(message)
            return
        for follow in tuple(self._follows.get(message.token, ())):
            follow.take(message)

    def _answer(self, want: Want) -> None:
        lease = self._leases.get(want.token) or self._ended.get(want.token)
        if lease is not None:
            lease.answer(want)
        elif want.have >= 0:
            self._send(want.channel, Pieces(want.token, want.have, [], State.GONE))

    def _let_go(self, follow: Follow[T]) -> None:
        follows = self._follows.get(follow.token, set())
        follows.discard(follow)
        if not follows and self._follows.pop(follow.token, None) is not None:
            self._ask(follow.token, _NO_LONGER)

    async def _catch_up(self) -> None:
        """Learn what others have invalidated."""
        now, opened = await self.store.epochs()
        try:
            news = self.epochs.adopt(now, opened)
        except ValueError as exc:
            raise StoreFailed(f"expected epochs of this version: {exc}") from exc
        for scope in news:
            self.forget(scope)

    async def _come_up(self) -> None:
        for scope in list(self._pending):
            await self.store.invalidate(scope)
            self._pending.pop(scope, None)
        await self._catch_up()

    def _lose(self) -> None:
        for follow in [each for follows in self._follows.values() for each in follows]:
            follow.lose()

    async def _tend(self) -> None:
        """Hold on to leases, and learn of invalidations whose news was lost."""
        while True:
            await asyncio.sleep(self.timing.tend_s)
            if not self._link.is_up:
                continue
            with suppress(StoreFailed):
                if self._pending:
                    await self._come_up()
                if self._leases:
                    held = {lease.key: token for token, lease in self._leases.items()}
                    await self.store.renew(held, self.timing.lease_s)
                await self._catch_up()
                self.store.report(self._process, self.counts())

    def _start(self, work: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.create_task(_passing_over_failures(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _passing_over_failures(work: Callable[[], Awaitable[None]]) -> None:
    with suppress(StoreFailed):
        await work()


def _channel(process: bytes) -> bytes:
    return b"frugal:p:" + process


def _epoch_of(token: bytes) -> int:
    epoch = token.rpartition(b":")[2]
    return int(epoch) if epoch.isdigit() else -1
