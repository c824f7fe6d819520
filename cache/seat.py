"""One request at the exact cache: it has a hit, leads others, or follows one of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Generic, TypeVar

from cache.follow import Follow
from cache.freshness import Freshness
from cache.lease import Lease
from cache.pace import Paced
from cache.single_flight import Member
from cache.types import CachedReply

if TYPE_CHECKING:
    from cache.exact import ExactCache

_MAX_CLAIMS = 3  # leaders elsewhere that fail in a row, before a request makes its own answer
T = TypeVar("T")
P = TypeVar("P")


class Seat(Generic[T]):
    """One request's seat at the cache: it has a hit, or leads, or follows.

    A context manager: within it the request takes part in the flight of its
    fingerprint. A leader that leaves without an error has given a whole answer.
    Where other processes share the cache, one that leads here still has to
    `look_further`, which may give it a hit or somebody to follow.
    """

    __slots__ = ("_cache", "_claims", "_follow", "_freshness", "_has_looked", "_is_held",
                 "_is_whole", "_kept_before", "_key", "_lease", "_max_entry", "_member", "_skips",
                 "_stamp", "_was_left", "hit")  # fmt: skip

    def __init__(
        self, cache: ExactCache[T], key: bytes, freshness: Freshness, max_entry: int, *, skips: bool
    ) -> None:
        self._cache = cache
        self._key = key
        self._freshness = freshness
        self._max_entry = max_entry
        self._skips = skips
        self._member: Member[T] | None = None
        self._kept_before = cache.kept
        self._stamp = cache.epochs.now
        self._has_looked = cache.far is None
        self._is_held = False
        self._is_whole = self._was_left = False
        self._claims = 0
        self._lease: Lease[T] | None = None
        self._follow: Follow[T] | None = None
        hit = None if skips else cache.find(key)
        self.hit: CachedReply | None = hit
        if hit is not None and not freshness.is_plain and not self._accepts(hit):
            self.hit = None

    def __enter__(self) -> Seat[T]:
        if self._is_held:
            self._is_held = False
            return self
        if self._member is not None:
            raise RuntimeError("a seat is entered once; it would wait for itself")
        cache = self._cache
        # Others may have landed between the lookup and now; a second look spares a second call.
        if self.hit is None and self._kept_before != cache.kept and not self._skips:
            self.hit = self._find()
        if self.hit is None:
            self._member = cache.join(self._key, self._max_entry)
        else:
            cache.hits += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave(error)

    def hold(self) -> None:
        """Enter now, and again as a context manager, for whoever cannot do all within one block."""
        self.__enter__()
        self._is_held = True

    def let_go(self, error: BaseException | None = None) -> None:
        """Leave a seat that is held and was not entered after that."""
        if self._is_held:
            self._is_held = False
            self._leave(error)

    def _leave(self, error: BaseException | None) -> None:
        if self._follow is not None:
            self._follow.close()
        self.finish(error)

    def finish(self, error: BaseException | None) -> None:
        """Tell those who follow that the answer has ended, well or of an error."""
        if self._member is not None:
            self._member.leave(error)
        lease, self._lease = self._lease, None
        if lease is not None and self._cache.far is not None:
            lease.pace = None
            is_whole = self._is_whole or (error is None and lease.has_begun)
            self._cache.far.end(lease, is_whole=is_whole)

    @property
    def is_alone(self) -> bool:
        """Return whether nobody can have an answer, or make one: entered now, it would lead."""
        cache = self._cache
        return (
            self.hit is None
            and cache.far is None
            and (self._skips or self._kept_before == cache.kept)
            and not cache.is_under_way(self._key)
        )

    @property
    def may_ask_others(self) -> bool:
        """Return whether other processes can be asked for an answer that nobody has here."""
        cache = self._cache
        return (
            self.hit is None
            and cache.far is not None
            and cache.far.is_up
            and not cache.is_under_way(self._key)
        )

    @property
    def is_leader(self) -> bool:
        """Return whether this request is the one to get the answer from a model."""
        return self._member is not None and self._member.is_leader and self._follow is None

    @property
    def is_follower(self) -> bool:
        """Return whether this request shares the answer of another under way."""
        return self._follow is not None or (self._member is not None and not self._member.is_leader)

    @property
    def was_promoted(self) -> bool:
        """Return whether this request followed at first and now leads."""
        if self._follow is not None:
            return False
        return self._was_left or (self._member is not None and self._member.was_promoted)

    @property
    def has_followers(self) -> bool:
        """Return whether others wait for what this leader publishes."""
        if self._lease is not None and self._lease.has_followers:
            return True
        return self._member is not None and self._member.has_followers

    @property
    def is_awaited(self) -> bool:
        """Return whether anybody waits for the next piece; of other processes it is taken so."""
        if self._lease is not None and self._lease.has_followers:
            return True
        return self._member is not None and self._member.is_awaited

    def paced(self, source: AsyncGenerator[P, None], size_of: Callable[[P], int]) -> Paced[P]:
        """Let a leader's answer go on while its own client reads nothing and others wait.

        `source` publishes what it yields.
        """
        paced = Paced(source, self, size_of)
        self._seated().stirs(paced)
        if self._lease is not None:
            self._lease.pace = paced
        return paced

    @property
    def is_stale(self) -> bool:
        """Return whether the hit should be made anew, for those who come later."""
        if self.hit is None or not self._freshness.stale:
            return False
        return self._freshness.is_stale(self._cache.age_of(self.hit))

    @property
    def may_look_further(self) -> bool:
        """Return whether other processes may know more, and have not been asked."""
        return not self._has_looked and self.hit is None and self.is_leader

    async def look_further(self) -> None:
        """Ask the other processes: then there is a hit, or a leader to follow, or we lead.

        Takes no longer than the deadline of the link between them, and that once.
        """
        cache, far, member = self._cache, self._cache.far, self._seated()
        self._has_looked = True
        self._claims += 1
        if far is None or self._claims > _MAX_CLAIMS:
            return
        found = await far.claim(self._key, self._max_entry, self._accepts, skip=self._skips)
        self._stamp = cache.epochs.now
        self._lease, self._follow = found.lease, found.follow
        if found.follow is not None:
            cache.led -= 1
            cache.followed += 1
        elif found.hit is not None:
            cache.led -= 1
            cache.hits += 1
            self.hit = found.hit
            if member.has_followers:
                for piece in far.codec.pieces(found.hit):
                    member.publish(piece, cache.size_of(piece))
            cache.keep(self._key, found.hit, found.ttl)
            member.land()

    def publish(self, item: T) -> None:
        """Give followers the next piece of the answer, one that will not be withdrawn."""
        size = self._cache.size_of(item)
        self._seated().publish(item, size)
        if self._lease is not None:
            self._lease.publish(item, size)

    def follow(self, *, whole: bool = False) -> Member[T] | Paced[T]:
        """Return the pieces of the leader's answer, from the first one on; to be closed after use.

        Ends with the answer; or, when the leader is gone before this request
        received anything, when it is its turn to lead (`was_promoted`). A request
        with no use for a part of an answer asks for it `whole`: it receives
        nothing before the end. Raises LeaderFailed or FellBehind.
        """
        member = self._seated()
        if self._follow is not None:
            self._follow.waits_for_all = whole
            return self.paced(self._passed_on(member, self._follow), self._cache.size_of)
        member.waits_for_all = whole
        return member

    async def _passed_on(self, member: Member[T], follow: Follow[T]) -> AsyncGenerator[T, None]:
        """Yield another process's answer, and give it to those who follow here."""
        self._was_left = False
        async for piece in follow:
            member.publish(piece, self._cache.size_of(piece))
            yield piece
        if follow.is_whole:
            member.land()
            return
        follow.close()
        self._follow = None
        self._was_left, self._has_looked = True, False
        self._cache.led += 1

    def keep(self, reply: CachedReply) -> None:
        """Store the answer, which is whole and accepted, unless it is larger than `max_entry`.

        Nor is it stored when it was invalidated before it was whole.
        """
        member, cache = self._seated(), self._cache
        if not member.is_leader:
            raise RuntimeError("only the leader of a flight may keep its answer")
        epochs, stamp = cache.epochs, self._stamp
        stands = stamp >= epochs.now or epochs.admits(stamp, self._key, reply)
        if stands and member.is_open and reply.size <= self._max_entry:
            cache.keep(self._key, reply, self._freshness.keep_for)
            if cache.far is not None:
                token = self._lease.token if self._lease is not None else b""
                stamp = self._lease.stamp if self._lease is not None else self._stamp
                cache.far.keep(self._key, reply, self._freshness.keep_for, stamp, token)
        self._is_whole = True
        member.land()

    def _find(self) -> CachedReply | None:
        hit = self._cache.find(self._key)
        return hit if hit is None or self._freshness.is_plain or self._accepts(hit) else None

    def _accepts(self, hit: CachedReply) -> bool:
        return self._freshness.accepts(self._cache.age_of(hit))

    def _seated(self) -> Member[T]:
        if self._member is None:
            raise RuntimeError("expected a seat that was entered and has no hit")
        return self._member
