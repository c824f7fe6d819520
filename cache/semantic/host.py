"""Embedders and semantic caches of one process, each opened once for all its policies."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING

from cache.semantic.answers import Place
from cache.semantic.calibration import default_calibration
from cache.semantic.decision import CalibratedDecider
from cache.semantic.embedder import Embedder, load_embedder
from cache.semantic.guards import AxisGuards
from cache.semantic.lent import Lent
from cache.semantic.lookup import SemanticCache
from cache.semantic.replica import Outbox, Replica
from cache.semantic.replica_scripts import SCRIPTS
from cache.semantic.service import EmbeddingService

if TYPE_CHECKING:
    from cache.index.pgvector import PgVectors

_DEADLINE_S = 0.5


class LocalHost:
    """Lends embedders and caches of this process; a reload that names them again gets the same."""

    def __init__(
        self,
        *,
        wall: Callable[[], float] = time.time,
        load: Callable[[str], Embedder] = load_embedder,
    ) -> None:
        self._wall = wall
        self._load = load
        self._services: Lent[str, EmbeddingService] = Lent(self._service)
        self._caches: Lent[Place, SemanticCache] = Lent(self._cache)

    def embedding(self, name: str) -> AbstractAsyncContextManager[EmbeddingService]:
        """Lend the embedder of a name. Raises EmbedderError."""
        return self._services.borrow(name)

    def answers(self, place: Place) -> AbstractAsyncContextManager[SemanticCache]:
        """Lend the answers kept in a place. Raises EmbedderError or OSError."""
        return self._caches.borrow(place)

    def _service(self, name: str) -> EmbeddingService:
        return EmbeddingService(partial(self._load, name))

    @asynccontextmanager
    async def _cache(self, place: Place) -> AsyncIterator[SemanticCache]:
        outbox = Outbox() if place.redis is not None else None
        async with (
            self.embedding(place.embedder) as service,
            SemanticCache(
                service,
                path=place.path,
                guards=AxisGuards(),
                decider=_decider,
                wall=self._wall,
                told=outbox,
                outside=_outside(place.postgres),
            ) as cache,
        ):
            if place.redis is None or outbox is None:
                yield cache
                return
            async with _replica(place.redis, cache, outbox):
                yield cache


@asynccontextmanager
async def _replica(url: str, cache: SemanticCache, outbox: Outbox) -> AsyncIterator[Replica]:
    """Keep a cache in step with the others that share a Redis."""
    from cache.stores.redis import RedisLink

    # Nobody waits for this link, so its deadline need not be as sharp as a request's.
    link = RedisLink(url, SCRIPTS, deadline_s=_DEADLINE_S)
    tag = blake2b(cache.version.encode(), digest_size=6).hexdigest().encode()
    replica = Replica(link, cache, outbox, tag)
    async with link, replica:
        yield replica


def _outside(url: str | None) -> Callable[[str, int], PgVectors] | None:
    if url is None:
        return None
    from cache.index.pgvector import PgVectors

    return partial(PgVectors, url)


def _decider(tenant: str, route: str) -> CalibratedDecider:
    return CalibratedDecider(default_calibration())
