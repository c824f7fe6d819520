"""Compares with every vector: right for some tens of thousands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.index.codes import Codes, cosine, drawn, encoded
from cache.index.loading import faiss_of_this_thread
from cache.index.types import Near, Vectors

_SMALL = 256
_FIRST = 1


class ExactIndex:
    """Small ones are an array of their own; larger ones are compared by faiss.

    Most scopes of a cache hold a handful of questions, and an empty faiss index
    weighs more than ten of them.
    """

    __slots__ = ("_count", "_faiss", "_ids", "_rows", "_width")

    def __init__(self, width: int) -> None:
        self._width = width
        self._ids: NDArray[np.int64] = np.empty(_FIRST, np.int64)
        self._rows: Codes = np.empty((_FIRST, width), np.int8)
        self._count = 0
        self._faiss: Any = None

    def __len__(self) -> int:
        return self._count

    def add(self, ids: Sequence[int], vectors: Vectors) -> None:
        """Add one vector a number."""
        self.add_codes(ids, encoded(vectors))

    def add_codes(self, ids: Sequence[int], codes: Codes) -> None:
        """Add vectors that are codes already."""
        end = self._count + len(ids)
        self._make_room(end)
        self._ids[self._count : end] = ids
        if self._faiss is not None:
            self._faiss.add(codes.astype(np.float32))
        else:
            self._rows[self._count : end] = codes
        self._count = end
        if self._faiss is None and end > _SMALL:
            self._grow_up()

    def search(self, vector: Vectors, count: int) -> list[Near]:
        """Return up to `count` nearest, in falling similarity."""
        count = min(count, self._count)
        if not count:
            return []
        asked = encoded(vector).astype(np.float32)
        if self._faiss is not None:
            found, places = self._faiss.search(asked, count)
            near, where = found[0], places[0]
        else:
            all_near = self._rows[: self._count].astype(np.float32) @ asked[0]
            where = np.argsort(-all_near, kind="stable")[:count]
            near = all_near[where]
        ids = self._ids[where]
        return [Near(int(i), cosine(float(n), self._width)) for i, n in zip(ids, near, strict=True)]

    def drop(self, ids: Sequence[int]) -> int:
        """Remove vectors; return how many were there."""
        gone = np.isin(self._ids[: self._count], np.asarray(ids, np.int64))
        places = np.flatnonzero(gone)
        if len(places):
            self._remove(places, ~gone)
        return len(places)

    def first(self, count: int) -> tuple[NDArray[np.int64], Codes]:
        """Return numbers and codes of the oldest vectors."""
        count = min(count, self._count)
        if self._faiss is not None:
            return self._ids[:count].copy(), self._faiss.reconstruct_n(0, count)
        return self._ids[:count].copy(), self._rows[:count].copy()

    def sample(self, count: int) -> Codes:
        """Return the codes of vectors drawn from those that are there."""
        places = drawn(np.arange(self._count, dtype=np.int64), count)
        if self._faiss is not None:
            codes: Codes = self._faiss.reconstruct_batch(places)
            return codes
        return self._rows[places].copy()

    def _remove(self, places: NDArray[np.intp], stays: NDArray[np.bool_]) -> None:
        if self._faiss is not None:
            self._faiss.remove_ids(np.asarray(places, np.int64))
        else:
            self._rows = self._rows[: self._count][stays]
        self._ids = self._ids[: self._count][stays]
        self._count = len(self._ids)

    def _make_room(self, end: int) -> None:
        if end > len(self._ids):
            self._ids = _longer(self._ids, end)
        if self._faiss is None and end > len(self._rows):
            self._rows = _longer(self._rows, end)

    def _grow_up(self) -> None:
        faiss = faiss_of_this_thread()
        kind = faiss.ScalarQuantizer.QT_8bit_direct_signed
        self._faiss = faiss.IndexScalarQuantizer(self._width, kind, faiss.METRIC_INNER_PRODUCT)
        self._faiss.add(self._rows[: self._count].astype(np.float32))
        self._rows = np.empty((0, self._width), np.int8)


def _longer(array: NDArray[Any], end: int) -> NDArray[Any]:
    longer = np.empty((max(end, 2 * len(array)), *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer
