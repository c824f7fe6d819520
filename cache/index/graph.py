"""A navigable graph of neighbours (HNSW, Malkov and Yashunin 2016), for hundreds of thousands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.index.codes import Codes, cosine, encoded
from cache.index.loading import faiss_of_this_thread
from cache.index.types import Near, Vectors

LINKS = 16
_BUILD_BREADTH = 80
# The larger a graph, the more of its ways have to be looked down to find the nearest.
_SEARCH_BREADTH, _BROADER = 256, 512
_LARGE = 200_000
_MOST_DEAD = 0.25
_SPARE = 4  # times as many are asked for where some are dead


class GraphIndex:
    """Finds nearly all of the nearest, in time that grows with the logarithm.

    What is dropped stays in the graph as a way to others, and is passed over.
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
        end = self._count + len(ids)
        if end > len(self._ids):
            longer = np.empty(max(end, 2 * self._count), np.int64)
            longer[: self._count] = self._ids[: self._count]
            self._ids = longer
        self._ids[self._count : end] = ids
        self._faiss.add(codes.astype(np.float32))
        self._place.update((int(i), self._count + n) for n, i in enumerate(ids))
        self._count = end
        self._look_around()

    def search(self, vector: Vectors, count: int) -> list[Near]:
        """Return up to `count` nearest, in falling similarity."""
        if not self._place:
            return []
        wanted = min(self._count, _SPARE * count if self._count > len(self._place) else count)
        found, places = self._faiss.search(encoded(vector).astype(np.float32), wanted)
        near = [
            Near(int(self._ids[place]), cosine(float(score), self._width))
            for place, score in zip(places[0], found[0], strict=True)
            if place >= 0 and self._place.get(int(self._ids[place])) == place
        ]
        return near[:count]

    def drop(self, ids: Sequence[int]) -> int:
        """Remove vectors; return how many were there."""
        return sum(self._place.pop(number, None) is not None for number in ids)

    @property
    def breadth(self) -> int:
        """Return how many candidates a search keeps in view."""
        return int(self._faiss.hnsw.efSearch)

    @property
    def is_worn(self) -> bool:
        """Return whether so much of the graph is dead that it should be made anew."""
        return self._count - len(self._place) > _MOST_DEAD * self._count

    def take(self, count: int) -> tuple[NDArray[np.int64], Codes]:
        """Remove up to `count` vectors and return their numbers and codes."""
        ids = list(islice(self._place, count))
        places = np.array([self._place.pop(number) for number in ids], np.int64)
        codes: Codes = self._faiss.storage.reconstruct_batch(places)
        return np.array(ids, np.int64), codes

    def dumped(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Return the numbers in the order of the graph, -1 for the dead, and the graph."""
        faiss = faiss_of_this_thread()
        ids = np.full(self._count, -1, np.int64)
        for number, place in self._place.items():
            ids[place] = number
        return ids, faiss.serialize_index(self._faiss)

    @classmethod
    def restored(cls, width: int, ids: NDArray[np.int64], data: NDArray[np.uint8]) -> GraphIndex:
        """Return the graph that `dumped` gave; `data` must be known to be sound."""
        faiss = faiss_of_this_thread()
        graph = cls(width)
        graph._faiss = faiss.deserialize_index(data)
        graph._ids = ids.copy()
        graph._count = len(ids)
        graph._look_around()
        graph._place = {number: place for place, number in enumerate(ids.tolist()) if number >= 0}
        return graph

    @property
    def ids(self) -> Iterable[int]:
        """Return the numbers that are there."""
        return self._place.keys()

    def _empty(self) -> Any:
        faiss = faiss_of_this_thread()
        kind = faiss.ScalarQuantizer.QT_8bit_direct_signed
        index = faiss.IndexHNSWSQ(self._width, kind, LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _BUILD_BREADTH
        return index

    def _look_around(self) -> None:
        is_large = self._count >= _LARGE
        self._faiss.hnsw.efSearch = _BROADER if is_large else _SEARCH_BREADTH
