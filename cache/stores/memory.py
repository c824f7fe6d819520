"""Entries in this process's memory, bounded in bytes."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from cache.types import CachedReply

DEFAULT_BYTES = 64 * 1024 * 1024


class _Slot(NamedTuple):
    reply: CachedReply
    expires_at: float
    size: int


class MemoryStore:
    """Keeps the entries used last, within `max_bytes`. `clock` is in monotonic seconds."""

    def __init__(
        self, max_bytes: int = DEFAULT_BYTES, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if max_bytes <= 0:
            raise ValueError(f"max_bytes: expected a positive size, found {max_bytes}")
        self.max_bytes = max_bytes
        self.size = 0
        self.evicted = 0
        self._clock = clock
        self._slots: OrderedDict[bytes, _Slot] = OrderedDict()

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
        self._slots.move_to_end(key)
        return slot.reply

    def put(self, key: bytes, reply: CachedReply, ttl: float) -> None:
        """Keep an entry for at most `ttl` seconds; one larger than the whole store is not kept."""
        self.drop(key)
        size = reply.size
        if size > self.max_bytes:
            return
        self._slots[key] = _Slot(reply, self._clock() + ttl, size)
        self.size += size
        while self.size > self.max_bytes:
            self.size -= self._slots.popitem(last=False)[1].size
            self.evicted += 1

    def drop(self, key: bytes) -> bool:
        """Remove an entry; return whether there was one."""
        slot = self._slots.pop(key, None)
        if slot is None:
            return False
        self.size -= slot.size
        return True

    def drop_partition(self, partition: bytes) -> int:
        """Remove the entries whose keys begin with `partition`; return how many."""
        keys = [key for key in self._slots if key.startswith(partition)]
        return sum(map(self.drop, keys))
