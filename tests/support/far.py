"""Several processes that share a cache, as far as one process can show them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from cache.exact import ExactCache
from cache.far import Far, Timing
from cache.stores.memory import MemoryStore
from cache.stores.redis import RedisLink
from cache.stores.scripts import SCRIPTS
from cache.stores.shared import SharedStore
from cache.types import CachedReply
from tests.support.redis_server import RedisServer

QUICK = Timing(lease_s=0.3, grace_s=10)


class BytesCodec:
    """Pieces that are bytes already."""

    def dump(self, piece: bytes) -> bytes:
        """Return the piece."""
        return piece

    def load(self, data: bytes) -> bytes:
        """Return the piece. Raises ValueError for one that says `broken`."""
        if data == b"broken":
            raise ValueError("expected a piece, found a broken one")
        return data

    def pieces(self, reply: CachedReply) -> Sequence[bytes]:
        """Return the parts."""
        return reply.parts


@asynccontextmanager
async def process(
    server: RedisServer, *, timing: Timing = QUICK, deadline_s: float = 2.0
) -> AsyncIterator[ExactCache[bytes]]:
    """Yield the cache of one process among those that share the server.

    The deadline is long, since a test machine may be slow; tests of the deadline set it.
    """
    link = RedisLink(server.url, SCRIPTS, deadline_s=deadline_s)
    far = Far(SharedStore(link), BytesCodec(), timing=timing)
    async with link, far:
        yield ExactCache(MemoryStore(), size_of=len, far=far)
