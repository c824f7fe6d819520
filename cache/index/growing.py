"""Exact while it is small, in cells once it is not, without a pause in between."""

from __future__ import annotations

from collections.abc import Sequence

from cache.index.cells import CellIndex, cells_for
from cache.index.codes import Codes, encoded
from cache.index.exact import ExactIndex
from cache.index.types import Near, Vectors

EXACT_BELOW = 20_000
_TAIL = 1_000
_MOVED_PER_ADDED = 2
_TAKEN_PER_MOVED = 4
_MOVED_AT_ONCE = 32  # the exact part closes its ranks after each move, and that has a price


class GrowingIndex:
    """New vectors go to the exact part; beyond `exact_below` the oldest move to cells.

    Every vector added moves a few, so no one addition moves all. Worn cells are left in
    the same way for new ones.
    """

    __slots__ = ("_cells", "_due", "_exact", "_exact_below", "_width", "_worn")

    def __init__(self, width: int, *, exact_below: int = EXACT_BELOW) -> None:
        self._width = width
        self._exact_below = exact_below
        self._exact = ExactIndex(width)
        self._cells: CellIndex | None = None
        self._worn: CellIndex | None = None
        self._due = 0

    def __len__(self) -> int:
        return len(self._exact) + sum(map(len, self._in_cells))

    def add(self, ids: Sequence[int], vectors: Vectors) -> None:
        """Add one vector a number."""
        self.add_codes(ids, encoded(vectors))

    def add_codes(self, ids: Sequence[int], codes: Codes) -> None:
        """Add vectors that are codes already."""
        self._exact.add_codes(ids, codes)
        if self._cells is None and len(self._exact) > self._exact_below:
            centres = self._exact.sample(cells_for(len(self._exact)))
            self._cells = CellIndex(self._width, centres)
        if self._cells is not None:
            self._due += _MOVED_PER_ADDED * len(ids)
            if self._due >= _MOVED_AT_ONCE:
                self._move(self._cells, self._due)
                self._due = 0
                self._leave_if_worn(self._cells)

    def search(self, vector: Vectors, count: int) -> list[Near]:
        """Return up to `count` nearest, in falling similarity."""
        near = self._exact.search(vector, count)
        for cells in self._in_cells:
            near += cells.search(vector, count)
        near.sort(key=lambda found: -found.similarity)
        return near[:count]

    def drop(self, ids: Sequence[int]) -> int:
        """Remove vectors; return how many were there."""
        gone = self._exact.drop(ids) + sum(cells.drop(ids) for cells in self._in_cells)
        if self._cells is not None:
            self._leave_if_worn(self._cells)
        return gone

    @property
    def _in_cells(self) -> list[CellIndex]:
        return [cells for cells in (self._cells, self._worn) if cells is not None]

    @property
    def cells(self) -> CellIndex | None:
        """Return the part that is in cells, which may be kept and given to another index."""
        return self._worn or self._cells

    @classmethod
    def around(cls, width: int, cells: CellIndex) -> GrowingIndex:
        """Return an index that goes on from cells."""
        index = cls(width)
        index._cells = cells
        return index

    def _leave_if_worn(self, cells: CellIndex) -> None:
        if self._worn is None and len(cells) and cells.is_worn:
            self._worn = cells
            self._cells = CellIndex(self._width, cells.sample(cells_for(len(cells))))

    def _move(self, cells: CellIndex, most: int) -> None:
        if self._worn is not None:
            if len(self._worn):
                cells.add_codes(*self._worn.take(_TAKEN_PER_MOVED * most))
            else:
                self._worn = None
        count = min(most, len(self._exact) - min(_TAIL, self._exact_below))
        if count > 0:
            ids, codes = self._exact.first(count)
            cells.add_codes(ids, codes)
            self._exact.drop(ids.tolist())
