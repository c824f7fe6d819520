"""Exact while it is small, a graph once it is not, without a pause in between."""

from __future__ import annotations

from collections.abc import Sequence

from cache.index.codes import Codes, encoded
from cache.index.exact import ExactIndex
from cache.index.graph import GraphIndex
from cache.index.types import Near, Vectors

EXACT_BELOW = 20_000
_TAIL = 1_000
_MOVED_PER_ADDED = 4


class GrowingIndex:
    """New vectors go to the exact part; beyond `exact_below` the oldest move to a graph.

    Every vector added moves a few, so no one addition builds the whole graph.
    """

    __slots__ = ("_exact", "_exact_below", "_graph", "_width")

    def __init__(self, width: int, *, exact_below: int = EXACT_BELOW) -> None:
        self._width = width
        self._exact_below = exact_below
        self._exact = ExactIndex(width)
        self._graph: GraphIndex | None = None

    def __len__(self) -> int:
        return len(self._exact) + (len(self._graph) if self._graph else 0)

    def add(self, ids: Sequence[int], vectors: Vectors) -> None:
        """Add one vector a number."""
        self.add_codes(ids, encoded(vectors))

    def add_codes(self, ids: Sequence[int], codes: Codes) -> None:
        """Add vectors that are codes already."""
        self._exact.add_codes(ids, codes)
        if self._graph is None and len(self._exact) > self._exact_below:
            self._graph = GraphIndex(self._width)
        if self._graph is not None:
            self._move(self._graph, _MOVED_PER_ADDED * len(ids))

    def search(self, vector: Vectors, count: int) -> list[Near]:
        """Return up to `count` nearest, in falling similarity."""
        near = self._exact.search(vector, count)
        if self._graph is not None:
            near += self._graph.search(vector, count)
            near.sort(key=lambda found: -found.similarity)
        return near[:count]

    def drop(self, ids: Sequence[int]) -> int:
        """Remove vectors; return how many were there."""
        gone = self._exact.drop(ids)
        return gone + (self._graph.drop(ids) if self._graph is not None else 0)

    def _move(self, graph: GraphIndex, most: int) -> None:
        count = min(most, len(self._exact) - min(_TAIL, self._exact_below))
        if count > 0:
            ids, codes = self._exact.first(count)
            graph.add_codes(ids, codes)
            self._exact.drop(ids.tolist())
