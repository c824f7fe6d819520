"""Equal requests are answered once: from the store, or together while the answer is made."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Generic, TypeVar

from cache.epochs import Epochs
from cache.far import Far
from cache.freshness import Freshness
from cache.quota import WriteQuota
from cache.scope import Scope, Tally
from cache.seat import Seat as Seat
from cache.single_flight import Member, SingleFlight
from cache.types import CachedReply, CacheStore, StoreFailed

_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ExactStats:
    """Counts since the start: `hits` from a store, `led` upstream, `followed` a leader.

    `over_quota` were whole and not kept, since their tenant had written enough.
    """

    hits: int
    led: int
    followed: int
    kept: int
    over_quota: int
    store_errors: int


class ExactCache(Generic[T]):
    """The exact cache of one process, and its part in that of several.

    `size_of` tells the bytes of a published item, `wall` the seconds since the
    epoch; `far` stands for the other processes.
    """

    def __init__(
        self,
        store: CacheStore,
        *,
        size_of: Callable[[T], int],
        far: Far[T] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.size_of = size_of
        self.far = far
        self.epochs = far.epochs if far is not None else Epochs()
        self.hits = self.led = self.followed = self.kept = 0
        self.over_quota = self.store_errors = 0
        self._quota = WriteQuota()
        self._store = store
        self._wall = wall
        self._flights: SingleFlight[T] = SingleFlight()
        if far is not None:
            far.forget = self.forget
            far.counts = lambda: asdict(self.stats())

    def seat(
        self, fingerprint: bytes, freshness: Freshness, *, max_entry: int, skips: bool = False
    ) -> Seat[T]:
        """Look an answer up; entering the seat then joins whoever asks the same.

        A reply of more than `max_entry` bytes is neither kept nor followed by
        newcomers. A seat that `skips` has no use for an answer made before.
        """
        return Seat(self, fingerprint, freshness, max_entry, skips=skips)

    def find(self, fingerprint: bytes) -> CachedReply | None:
        """Return the entry, or None; a store that fails has none."""
        try:
            return self._store.get(fingerprint)
        except StoreFailed as exc:
            self._note(exc)
            return None

    def age_of(self, reply: CachedReply) -> float:
        """Return the seconds since an answer was kept."""
        return max(0.0, self._wall() - reply.created_at)

    def is_under_way(self, fingerprint: bytes) -> bool:
        """Return whether an answer to the same is being made here."""
        return fingerprint in self._flights

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

    def may_write(self, tenant: str, most: int) -> bool:
        """Count one more answer of a tenant, unless it has had this minute's `most` kept."""
        takes = self._quota.takes(tenant, most, self._wall())
        self.over_quota += not takes
        return takes

    def drop(self, fingerprint: bytes) -> bool:
        """Remove one entry from this process; return whether there was one."""
        try:
            return self._store.drop(fingerprint)
        except StoreFailed as exc:
            self._note(exc)
            return False

    def forget(self, scope: Scope) -> Tally:
        """Remove a scope's entries from this process, and let nobody join an answer begun before.

        Raises StoreFailed.
        """
        self._flights.close_all()
        return self._store.drop_where(scope)

    async def invalidate(self, scope: Scope, *, dry_run: bool = False) -> Tally:
        """Remove a scope's entries everywhere, those of answers begun before included.

        Returns what was found here or, where processes share a store, there; a
        dry run changes nothing. Raises StoreFailed.
        """
        if self.far is None:
            if dry_run:
                return self._store.drop_where(scope, dry_run=True)
            self.epochs.open(scope)
            return self.forget(scope)
        if dry_run:
            return await self.far.store.drop_where(scope, dry_run=True)
        self.forget(scope)
        return await self.far.invalidate(scope)

    @property
    def under_way(self) -> int:
        """Return how many answers others could join now."""
        return len(self._flights)

    def stats(self) -> ExactStats:
        """Return the counts so far."""
        return ExactStats(
            self.hits, self.led, self.followed, self.kept, self.over_quota, self.store_errors
        )

    def _note(self, error: StoreFailed) -> None:
        if not self.store_errors:
            _log.warning("the exact cache goes on without its store: %s", error)
        self.store_errors += 1
