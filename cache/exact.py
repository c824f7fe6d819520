"""Equal requests are answered once: from the store, or together while the answer is made."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

from cache.fingerprint import partition
from cache.single_flight import Member, SingleFlight
from cache.types import CachedReply, CacheStore, StoreFailed

_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ExactStats:
    """Counts since the start: `hits` from the store, `led` upstream, `followed` a leader."""

    hits: int
    led: int
    followed: int
    kept: int
    store_errors: int


class Seat(Generic[T]):
    """One request's seat at the cache: it has a hit, or leads, or follows.

    A context manager: within it the request takes part in the flight of its
    fingerprint. A leader that leaves without an error has given a whole answer.
    """

    __slots__ = ("_cache", "_kept_before", "_key", "_max_entry", "_member", "_ttl", "hit")

    def __init__(self, cache: ExactCache[T], key: bytes, ttl: float, max_entry: int) -> None:
        self._cache = cache
        self._key = key
        self._ttl = ttl
        self._max_entry = max_entry
        self._member: Member[T] | None = None
        self._kept_before = cache.kept
        self.hit: CachedReply | None = cache.find(key)

    def __enter__(self) -> Seat[T]:
        if self._member is not None:
            raise RuntimeError("a seat is entered once; it would wait for itself")
        cache = self._cache
        # Others may have landed between the lookup and now; a second look spares a second call.
        if self.hit is None and self._kept_before != cache.kept:
            self.hit = cache.find(self._key)
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
        if self._member is not None:
            self._member.leave(error)

    @property
    def is_leader(self) -> bool:
        """Return whether this request is the one to get the answer from a model."""
        return self._member is not None and self._member.is_leader

    @property
    def is_follower(self) -> bool:
        """Return whether this request shares the answer of another under way."""
        return self._member is not None and not self._member.is_leader

    @property
    def was_promoted(self) -> bool:
        """Return whether this request followed at first and now leads."""
        return self._member is not None and self._member.was_promoted

    @property
    def has_followers(self) -> bool:
        """Return whether others wait for what this leader publishes."""
        return self._member is not None and self._member.has_followers

    def publish(self, item: T) -> None:
        """Give followers the next piece of the answer, one that will not be withdrawn."""
        self._seated().publish(item, self._cache.size_of(item))

    def follow(self, *, whole: bool = False) -> AsyncIterator[T]:
        """Return the pieces of the leader's answer, from the first one on.

        Ends with the answer; or, when the leader is gone before this request
        received anything, when it is its turn to lead (`was_promoted`). A request
        with no use for a part of an answer asks for it `whole`: it receives
        nothing before the end. Raises LeaderFailed.
        """
        member = self._seated()
        member.waits_for_all = whole
        return member

    def keep(self, reply: CachedReply) -> None:
        """Store the answer, which is whole and accepted, unless it is larger than `max_entry`."""
        member = self._seated()
        if not member.is_leader:
            raise RuntimeError("only the leader of a flight may keep its answer")
        if member.is_open and reply.size <= self._max_entry:
            self._cache.keep(self._key, reply, self._ttl)
        member.land()

    def _seated(self) -> Member[T]:
        if self._member is None:
            raise RuntimeError("expected a seat that was entered and has no hit")
        return self._member


class ExactCache(Generic[T]):
    """The exact cache of one process. `size_of` tells the bytes of a published item."""

    def __init__(self, store: CacheStore, *, size_of: Callable[[T], int]) -> None:
        self.size_of = size_of
        self.hits = self.led = self.followed = self.kept = self.store_errors = 0
        self._store = store
        self._flights: SingleFlight[T] = SingleFlight()

    def seat(self, fingerprint: bytes, *, ttl: float, max_entry: int) -> Seat[T]:
        """Look an answer up; entering the seat then joins whoever asks the same.

        What is kept lives `ttl` seconds. A reply of more than `max_entry` bytes
        is neither kept nor followed by newcomers.
        """
        return Seat(self, fingerprint, ttl, max_entry)

    def find(self, fingerprint: bytes) -> CachedReply | None:
        """Return the entry, or None; a store that fails has none."""
        try:
            return self._store.get(fingerprint)
        except StoreFailed as exc:
            self._note(exc)
            return None

    def join(self, fingerprint: bytes, max_entry: int) -> Member[T]:
        """Take part in the flight of a fingerprint."""
        member = self._flights.join(fingerprint, max_entry)
        if member.is_leader:
            self.led += 1
        else:
            self.followed += 1
        return member

    def keep(self, fingerprint: bytes, reply: CachedReply, ttl: float) -> None:
        """Store an entry; a store that fails is passed over."""
        try:
            self._store.put(fingerprint, reply, ttl)
            self.kept += 1
        except StoreFailed as exc:
            self._note(exc)

    def drop(self, fingerprint: bytes) -> bool:
        """Remove one entry; return whether there was one."""
        try:
            return self._store.drop(fingerprint)
        except StoreFailed as exc:
            self._note(exc)
            return False

    def forget(self, tenant: str) -> int:
        """Remove a tenant's entries and return how many there were. Raises StoreFailed."""
        return self._store.drop_partition(partition(tenant))

    @property
    def under_way(self) -> int:
        """Return how many answers others could join now."""
        return len(self._flights)

    def stats(self) -> ExactStats:
        """Return the counts so far."""
        return ExactStats(self.hits, self.led, self.followed, self.kept, self.store_errors)

    def _note(self, error: StoreFailed) -> None:
        if not self.store_errors:
            _log.warning("the exact cache goes on without its store: %s", error)
        self.store_errors += 1
