"""Embedders and semantic caches of one process, each opened once for all its policies."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cache.semantic.calibration import default_calibration
from cache.semantic.decision import CalibratedDecider
from cache.semantic.embedder import Embedder, load_embedder
from cache.semantic.guards import AxisGuards
from cache.semantic.lent import Lent
from cache.semantic.lookup import SemanticCache
from cache.semantic.service import EmbeddingService


@dataclass(frozen=True, slots=True)
class Place:
    """Which answers: the embedder's name, and the file they are kept in."""

    embedder: str
    path: Path | None


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
        async with (
            self.embedding(place.embedder) as service,
            SemanticCache(
                service, path=place.path, guards=AxisGuards(), decider=_deciders(), wall=self._wall
            ) as cache,
        ):
            yield cache


def _deciders() -> Callable[[str, str], CalibratedDecider]:
    calibration = default_calibration()
    known: dict[tuple[str, str], CalibratedDecider] = {}

    def decider(tenant: str, route: str) -> CalibratedDecider:
        found = known.get((tenant, route))
        if found is None:
            found = known[tenant, route] = CalibratedDecider(calibration)
        return found

    return decider
