"""The vectors of a store's entries in memory, one index a scope, kept up with its tail."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cache.index.growing import GrowingIndex
from cache.index.types import IndexAway, Near, Vectors
from cache.semantic.snapshots import Snapshots
from cache.semantic.store import AnswerStore, Gone, Place, Question

if TYPE_CHECKING:
    from cache.index.pgvector import PgVectorIndex, PgVectors

_LOADED_AT_ONCE = 16  # a lookup may wait for so many to be placed
_ROUNDS = 4
_log = logging.getLogger(__name__)


class Mirror:
    """What can be searched of a store that other processes write to as well.

    Numbers rise as entries are added, so what others added is what stands beyond the
    last number taken in. What others dropped is noticed when it is found. With vectors
    `outside` nothing is held here but their numbers. Used by the store's thread alone.
    """

    def __init__(
        self,
        store: AnswerStore,
        width: int,
        wall: Callable[[], float],
        snapshots: Snapshots | None = None,
        outside: PgVectors | None = None,
    ) -> None:
        self._store = store
        self._width = width
        self._wall = wall
        self._outside = outside
        self._scopes: dict[bytes, GrowingIndex | PgVectorIndex] = {}
        self._last = 0
        self._seen = -1
        self._own: set[int] = set()
        self._snapshots = snapshots
        known = [_numbers(outside)]
        for scope, cells in snapshots.load() if snapshots else ():
            self._scopes[scope] = GrowingIndex.around(width, cells)
            known.append(np.fromiter(cells.ids, np.int64, len(cells)))
        self._known = np.sort(np.concatenate(known))

    @property
    def width(self) -> int:
        """Return how many numbers a vector has."""
        return self._width

    def follow(self) -> bool:
        """Take in a bounded share of what others added; return whether anything had changed.

        What cannot be taken in, since the vectors stand outside and are out of reach, is
        taken in by a later call.
        """
        seen = self._store.changes_of_others()
        if seen == self._seen:
            return False
        with suppress(IndexAway):
            if not self.load_more():
                self._seen = seen
        return True

    def load_more(self) -> bool:
        """Take in the next entries of the store; return whether there may be more."""
        places = self._store.after(self._last, self._wall(), _LOADED_AT_ONCE)
        self._place([place for place in places if not self._has(place.id)])
        if places:
            self._last = places[-1].id
            self._own = {number for number in self._own if number > self._last}
        return len(places) == _LOADED_AT_ONCE

    def add_own(self, place: Place, old: int | None) -> None:
        """Take in an entry that this process has just put into the store, in place of an old one.

        Raises IndexAway; the entry is then taken in by `follow`.
        """
        try:
            self.forget([Gone(old, place.scope)] if old is not None else [])
            self._place([place])
        except IndexAway:
            self._seen = -1
            raise
        if self._store.changes_of_others() == self._seen:
            self._last = place.id
        else:
            self._own.add(place.id)  # others may have added some before it

    def save(self) -> None:
        """Keep the cells, so that another start need not build them. Raises OSError."""
        for scope, index in self._scopes.items() if self._snapshots else ():
            if self._snapshots and isinstance(index, GrowingIndex) and index.cells is not None:
                self._snapshots.save(scope, index.cells)

    def nearest(self, scope: bytes, vector: Vectors, count: int) -> list[tuple[Near, Question]]:
        """Return the nearest entries of a scope that are still there, in falling similarity."""
        for _ in range(_ROUNDS):
            index = self._index(scope)
            near = index.search(vector, count) if index is not None else []
            found = self._store.questions([each.id for each in near], self._wall())
            missing = [Gone(each.id, scope) for each in near if each.id not in found]
            if not missing:
                return [(each, found[each.id]) for each in near]
            self.forget(missing)
        return []

    def forget(self, gone: Sequence[Gone]) -> None:
        """Remove entries from the indexes."""
        by_scope: dict[bytes, list[int]] = {}
        for each in gone:
            by_scope.setdefault(each.scope, []).append(each.id)
        for scope, ids in by_scope.items():
            index = self._index(scope)
            if index is not None and index.drop(ids) and not len(index):
                self._scopes.pop(scope, None)
                if self._snapshots:
                    self._snapshots.drop(scope)

    def _index(self, scope: bytes) -> GrowingIndex | PgVectorIndex | None:
        return self._outside.of(scope) if self._outside else self._scopes.get(scope)

    def _has(self, number: int) -> bool:
        """Return whether an entry came with a snapshot, or is our own."""
        at = int(np.searchsorted(self._known, number))
        is_known = at < len(self._known) and self._known[at] == number
        return is_known or number in self._own

    def _place(self, places: Sequence[Place]) -> None:
        by_scope: dict[bytes, list[Place]] = {}
        for place in places:
            by_scope.setdefault(place.scope, []).append(place)
        for scope, group in by_scope.items():
            index = self._index(scope)
            if index is None:
                index = self._scopes[scope] = GrowingIndex(self._width)
            codes = np.frombuffer(b"".join(place.codes for place in group), np.int8)
            index.add_codes([place.id for place in group], codes.reshape(-1, self._width))


def _numbers(outside: PgVectors | None) -> NDArray[np.int64]:
    """Return which vectors stand outside; none where that cannot be told, which costs time only."""
    try:
        return outside.numbers() if outside else np.empty(0, np.int64)
    except IndexAway as exc:
        _log.warning("the semantic cache starts without its index: %s", exc)
        return np.empty(0, np.int64)
