"""Exact while it is small, a graph once it is not, without a pause in between."""

from __future__ import annotations

from collections.abc import Sequence

from cache.index.codes import Codes, encoded
from cache.index.exact import ExactIndex
from cache.index.graph import GraphIndex
from cache.index.types import Near, Vectors

EXACT_BELOW = 20_000
_TAIL = 1_000
_MOVED_PER_ADDED = 2
_MOVED_AT_ONCE = 32  # the exact part closes its ranks after each move, and that has a price


class GrowingIndex:
    """New vectors go to the exact part; beyond `exact_below` the oldest move to a graph.

    Every vector added moves a few, so no one addition builds the whole graph. A worn
    graph is left in the same way for a new one.
    """

    __slots__ = ("_due", "_exact", "_exact_below", "_graph", "_width", "_worn")

    def __init__(self, width: int, *, exact_below: int = EXACT_BELOW) -> None:
        self._width = width
        self._exact_below = exact_below
        self._exact = ExactIndex(width)
        self._graph: GraphIndex | None = None
        self._worn: GraphIndex | None = None
        self._due = 0

    def __len__(self) -> int:
        return len(self._exact) + sum(map(len, self._graphs))

    def add(self, ids: Sequence[int], vectors: Vectors) -> None:
        """Add one vector a number."""
        self.add_codes(ids, encoded(vectors))

    def add_codes(self, ids: Sequence[int], codes: Codes) -> None:
        """Add vectors that are codes already."""
        self._exact.add_codes(ids, codes)
        if self._graph is None and len(self._exact) > self._exact_below:
            self._graph = GraphIndex(self._width)
        if self._graph is not None:
            self._due += _MOVED_PER_ADDED * len(ids)
            if self._due >= _MOVED_AT_ONCE:
                self._move(self._graph, self._due)
                self._due = 0

    def search(self, vector: Vectors, count: int) -> list[Near]:
        """Return up to `count` nearest, in falling similarity."""
        near = self._exact.search(vector, count)
        for graph in self._graphs:
            near += graph.search(vector, count)
        near.sort(key=lambda found: -found.similarity)
        return near[:count]

    def drop(self, ids: Sequence[int]) -> int:
        """Remove vectors; return how many were there."""
        gone = self._exact.drop(ids) + sum(graph.drop(ids) for graph in self._graphs)
        if self._graph is not None and self._graph.is_worn and self._worn is None:
            self._worn, self._graph = self._graph, GraphIndex(self._width)
        return gone

    @property
    def _graphs(self) -> list[GraphIndex]:
        return [graph for graph in (self._graph, self._worn) if graph is not None]

    @property
    def graph(self) -> GraphIndex | None:
        """Return the part that is a graph, which may be kept and given to another index."""
        return self._worn or self._graph

    @classmethod
    def around(cls, width: int, graph: GraphIndex) -> GrowingIndex:
        """Return an index that goes on from a graph."""
        index = cls(width)
        index._graph = graph
        return index

    def _move(self, graph: GraphIndex, most: int) -> None:
        if self._worn is not None and len(self._worn):
            graph.add_codes(*self._worn.take(most))
            return
        self._worn = None
        count = min(most, len(self._exact) - min(_TAIL, self._exact_below))
        if count > 0:
            ids, codes = self._exact.first(count)
            graph.add_codes(ids, codes)
            self._exact.drop(ids.tolist())
