"""Entries in this process's memory, bounded in bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from heapq import heapify, heappop, heappush

from cache.scope import Scope, Tally
from cache.types import CachedReply

DEFAULT_BYTES = 64 * 1024 * 1024


class _Slot:
    """One entry and how dear it is."""

    __slots__ = ("expires_at", "priority", "reply", "size", "uses", "worth_per_byte")

    def __init__(self, reply: CachedReply, expires_at: float, age: float) -> None:
        self.reply = reply
        self.expires_at = expires_at
        self.size = reply.size
        self.uses = 1
        self.worth_per_byte = reply.worth / self.size
        self.priority = age + self.worth_per_byte


class MemoryStore:
    """Keeps what saves most for its room, within `max_bytes`. `clock` is in monotonic seconds.

    When room is needed, the entry goes whose uses x worth / size is least. What
    the last one to go had is added to all that comes or is used after it, so an
    entry that was once in demand does not stay for ever (GreedyDual-Size with
    frequency: Cherkasova, 1998, HPL-98-69).
    """

    def __init__(
        self, max_bytes: int = DEFAULT_BYTES, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if max_bytes <= 0:
            raise ValueError(f"max_bytes: expected a positive size, found {max_bytes}")
        self.max_bytes = max_bytes
        self.size = 0
        self.evicted = 0
        self._clock = clock
        self._slots: dict[bytes, _Slot] = {}
        # Priorities only grow, so the heap may lag behind them: whoever is taken from it
        # with an outdated one is put back. A hit then costs no more than two additions.
        self._heap: list[tuple[float, int, bytes, _Slot]] = []
        self._count = 0
        self._age = 0.0

    def __len__(self) -> int:
        return len(self._slots)

    def get(self, key: bytes) -> CachedReply | None:
        """Return the entry, unless it is absent or older than its time to live."""
        slot = self._slots.get(key)
        if slot is None:
            return None
        if slot.expires_at <= self._clock():
            self.drop(key)
            return None
        slot.uses += 1
        slot.priority = self._age + slot.uses * slot.worth_per_byte
        return slot.reply

    def put(self, key: bytes, reply: CachedReply, ttl: float) -> None:
        """Keep an entry for at most `ttl` seconds; one larger than the whole store is not kept."""
        if key in self._slots:
            self.drop(key)
        slot = _Slot(reply, self._clock() + ttl, 0.0)
        if slot.size > self.max_bytes:
            return
        self.size += slot.size
        if self.size > self.max_bytes:
            self._make_room()
        slot.priority += self._age
        self._slots[key] = slot
        self._count += 1
        heappush(self._heap, (slot.priority, self._count, key, slot))

    def drop(self, key: bytes) -> bool:
        """Remove an entry; return whether there was one."""
        slot = self._slots.pop(key, None)
        if slot is None:
            return False
        self.size -= slot.size
        if len(self._heap) > 2 * len(self._slots) + 64:
            self._heap = [each for each in self._heap if self._slots.get(each[2]) is each[3]]
            heapify(self._heap)
        return True

    def drop_where(self, scope: Scope, *, dry_run: bool = False) -> Tally:
        """Remove the entries of a scope; return what they were. A dry run only counts."""
        matches, now = scope.matcher(), self._clock()
        alive = ((key, slot) for key, slot in self._slots.items() if slot.expires_at > now)
        found = [(key, slot.size) for key, slot in alive if matches(key, slot.reply)]
        if not dry_run:
            for key, _ in found:
                self.drop(key)
        return Tally(len(found), sum(size for _, size in found))

    def _make_room(self) -> None:
        """Let go of the least until the rest fits, which one more entry may not yet be part of."""
        heap, slots = self._heap, self._slots
        while self.size > self.max_bytes:
            priority, _, key, slot = heappop(heap)
            if slots.get(key) is not slot:
                continue
            if priority != slot.priority:
                self._count += 1
                heappush(heap, (slot.priority, self._count, key, slot))
                continue
            del slots[key]
            self.size -= slot.size
            self._age = priority
            self.evicted += 1
