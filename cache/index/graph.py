"""A navigable graph of neighbours (HNSW, Malkov and Yashunin 2016), for hundreds of thousands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.index.codes import Codes, cosine, encoded
from cache.index.types import Near, Vectors

LINKS = 16
_BUILD_BREADTH = 80
_SEARCH_BREADTH = 96
_MOST_DEAD = 0.25
_SPARE = 4  # times as many are asked for where some are dead


class GraphIndex:
    """Finds nearly all of the nearest, in time that grows with the logarithm.

    What is dropped stays in the graph as a way to others, and is passed over
    until a quarter is dead; then the graph is built anew.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._faiss = self._empty()
        self._ids: NDArray[np.int64] = np.empty(0, np.int64)
        self._count = 0
        self._place: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._place)

    def add(self, ids: Sequence[int], vectors: Vectors) -> None:
        """Add one vector a number."""
        self.add_codes(ids, encoded(vectors))

    def add_codes(self, ids: Sequence[int] | NDArray[np.int64], codes: Codes) -> None:
        """Add vectors that are codes already."""
        import faiss

        faiss.omp_set_num_threads(1)  # of this thread; more would take the gateway's core
        end = self._count + len(ids)
        if end > len(self._ids):
            longer = np.empty(max(end, 2 * self._count), np.int64)
            longer[: self._count] = self._ids[: self._count]
            self._ids = longer
        self._ids[self._count : end] = ids
        self._faiss.add(codes.astype(np.float32))
        self._place.update((int(i), self._count + n) for n, i in enumerate(ids))
        self._count = end

    def search(self, vector: Vectors, count: int) -> list[Near]:
        """Return up to `count` nearest, in falling similarity."""
        if not self._place:
            return []
        wanted = min(self._count, _SPARE * count if self._dead else count)
        found, places = self._faiss.search(encoded(vector).astype(np.float32), wanted)
        near = [
            Near(int(self._ids[place]), cosine(float(score), self._width))
            for place, score in zip(places[0], found[0], strict=True)
            if place >= 0 and self._place.get(int(self._ids[place])) == place
        ]
        return near[:count]

    def drop(self, ids: Sequence[int]) -> int:
        """Remove vectors; return how many were there."""
        gone = sum(self._place.pop(i, None) is not None for i in ids)
        if self._dead > _MOST_DEAD * self._count:
            self._rebuild()
        return gone

    @property
    def _dead(self) -> int:
        return self._count - len(self._place)

    def _rebuild(self) -> None:
        places = np.fromiter(self._place.values(), np.int64, len(self._place))
        codes = self._faiss.storage.reconstruct_batch(places) if len(places) else None
        ids = self._ids[places]
        self._faiss, self._count, self._place = self._empty(), 0, {}
        if codes is not None:
            self.add_codes(ids, codes)

    def _empty(self) -> Any:
        import faiss

        kind: Any = faiss.ScalarQuantizer.QT_8bit_direct_signed
        index: Any = faiss.IndexHNSWSQ(self._width, kind, LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _BUILD_BREADTH
        index.hnsw.efSearch = _SEARCH_BREADTH
        return index
