"""What the cache keeps, where it keeps it, and what can go wrong.

CacheError
├ StoreFailed    a store could not be read or written; the answer goes on without it
├ LeaderFailed   the request that was followed ended without a whole answer
└ FellBehind     too much of a shared answer waits for one who reads it too slowly
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from cache.scope import Scope, Tally

# What CPython adds to the bytes themselves: an object's head and the tuple's pointer to it,
# and once an entry the key, the reply, its usage and its place in the store.
_PART_OVERHEAD = 41
_ENTRY_OVERHEAD = 900

MOST_BEHIND = 4 * 1024 * 1024
"""Bytes of an answer under way that are held for one who reads it more slowly than others."""


class CacheError(Exception):
    """Root of this package's errors."""


class StoreFailed(CacheError):
    """A store could not be read or written."""


class LeaderFailed(CacheError):
    """The request that was followed ended without a whole answer.

    `error` is what it failed of, or None when its client left.
    """

    def __init__(self, error: BaseException | None) -> None:
        reason = f"failed: {error}" if isinstance(error, Exception) else "was given up"
        super().__init__(f"an equal request, whose answer this one was to share, {reason}")
        self.error = error


class FellBehind(CacheError):
    """More than `most` bytes of an answer that others read, too, waited for one of its readers."""

    def __init__(self, most: int) -> None:
        super().__init__(
            f"{most} bytes of the answer waited to be read, more than are held; read it faster"
        )


@dataclass(frozen=True, slots=True)
class CachedReply:
    """A whole answer, as it may be served again.

    `parts` is one JSON body, or the events of a stream in order, without the
    closing `[DONE]`. An event that only a client asking for usage may see stands
    apart, in `usage_event`. `usage` holds token counts by bucket, and the tier, `created_at`
    seconds since the epoch, `path` the models met on the way. `worth` says what
    it would cost to get the answer again, in one unit for all entries of a store;
    `route` and `tags` are what it can be invalidated by, beside its model.
    """

    parts: tuple[bytes, ...]
    streamed: bool
    model: str
    usage: Mapping[str, float | int | bool | str]
    created_at: float
    path: str
    usage_event: bytes | None = None
    worth: float = 1.0
    route: str = ""
    tags: tuple[str, ...] = ()

    def events(self, *, include_usage: bool) -> tuple[bytes, ...]:
        """Return the parts to send, with the event about usage where it was asked for."""
        if include_usage and self.usage_event is not None:
            return (*self.parts, self.usage_event)
        return self.parts

    @property
    def size(self) -> int:
        """Return about how many bytes of memory the entry holds."""
        parts = self.parts
        bodies = sum(map(len, parts)) + _PART_OVERHEAD * len(parts) + len(self.usage_event or b"")
        return bodies + len(self.path) + _ENTRY_OVERHEAD


class CacheStore(Protocol):
    """Where exact answers are kept in this process: the extension point `cache store`.

    Keys are fingerprints, which begin with their tenant's partition. No method
    waits: what lies across a network stands behind such a store (`cache.far`).
    Any may raise StoreFailed. An entry that cannot be read whole is dropped and
    counts as absent.
    """

    def get(self, key: bytes) -> CachedReply | None:
        """Return the entry, unless it is absent or older than its time to live."""
        ...

    def put(self, key: bytes, reply: CachedReply, ttl: float) -> None:
        """Keep an entry for at most `ttl` seconds, in place of any older one."""
        ...

    def drop(self, key: bytes) -> bool:
        """Remove an entry; return whether there was one."""
        ...

    def drop_where(self, scope: Scope, *, dry_run: bool = False) -> Tally:
        """Remove the entries of a scope; return what they were. A dry run only counts."""
        ...
