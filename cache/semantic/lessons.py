"""What each tenant's route has learnt: its decider and its cross-encoder's scores, kept on disk."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from cache.semantic.grey_zone import GreyZone
from cache.semantic.learnt import LearntTable, Lesson
from cache.semantic.types import Decider

_WRITTEN_AT_ONCE = 64
_PAIRS = "pairs"
_log = logging.getLogger(__name__)


@runtime_checkable
class Remembering(Protocol):
    """A decider whose lessons can be kept."""

    @property
    def basis(self) -> str:
        """Return what tells lessons that it can build on from others."""
        ...

    def news(self) -> Sequence[Lesson]:
        """Return what was learnt and is not `kept` yet."""
        ...

    def kept(self) -> None:
        """Learn that the news stand on disk."""
        ...

    def recall(self, lessons: Sequence[Lesson]) -> int:
        """Build on earlier lessons, what is oldest first; return how many made no sense."""
        ...


class Lessons:
    """The deciders of all routes, each made when it is first asked; used by the store's thread."""

    def __init__(
        self,
        table: LearntTable,
        decider: Callable[[str, str], Decider],
        wall: Callable[[], float],
    ) -> None:
        self._table = table
        self._make = decider
        self._wall = wall
        self._deciders: dict[tuple[str, str], Decider] = {}
        self._zones: dict[tuple[str, str], tuple[str, GreyZone]] = {}
        self._unwritten = 0
        self._learning: set[tuple[str, str]] = set()

    def decider(self, tenant: str, route: str) -> Decider:
        """Return who decides for a tenant's route, with what it had learnt before."""
        found = self._deciders.get((tenant, route))
        if found is None:
            found = self._deciders[tenant, route] = self._make(tenant, route)
            if isinstance(found, Remembering):
                lessons = self._table.recall(tenant, route, found.basis)
                own = [lesson for lesson in lessons if lesson.kind != _PAIRS]
                self._say(found.recall(own), tenant, route)
        return found

    def zone(self, tenant: str, route: str, model: str) -> GreyZone:
        """Return what is known of a model's scores on a route; another model begins anew."""
        known, zone = self._zones.get((tenant, route), ("", None))
        if zone is None or known != model:
            zone = self._recalled(tenant, route, model)
            self._zones[tenant, route] = model, zone
        return zone

    def learn(self, tenant: str, route: str, entry_id: str, was_right: bool) -> None:
        """Take note of what became of an answer."""
        self.decider(tenant, route).observe(entry_id, was_right)
        if (known := self._zones.get((tenant, route))) is not None:
            known[1].observe(entry_id, was_right)
        self._learning.add((tenant, route))
        self._unwritten += 1
        if self._unwritten >= _WRITTEN_AT_ONCE:
            self.write()

    def write(self) -> None:
        """Keep what was learnt; a file that cannot be written to is tried again later."""
        try:
            self._write()
        except sqlite3.Error as exc:
            _log.warning("what was learnt is not kept yet: %s", exc)

    def _write(self) -> None:
        self._unwritten = 0
        for tenant, route in tuple(self._learning):
            decider = self._deciders.get((tenant, route))
            if not isinstance(decider, Remembering):
                continue
            lessons = [*decider.news()]
            model, zone = self._zones.get((tenant, route), ("", None))
            if zone is not None:
                lessons.append(Lesson(_PAIRS, model, zone.dumped()))
            self._table.write(tenant, route, decider.basis, lessons, self._wall())
            decider.kept()
            self._learning.discard((tenant, route))

    def _recalled(self, tenant: str, route: str, model: str) -> GreyZone:
        zone, decider = GreyZone(), self.decider(tenant, route)
        if isinstance(decider, Remembering):
            for lesson in self._table.recall(tenant, route, decider.basis):
                if (lesson.kind, lesson.name) == (_PAIRS, model):
                    self._say(not zone.recall(lesson.state), tenant, route)
        return zone

    def _say(self, senseless: int, tenant: str, route: str) -> None:
        if senseless:
            _log.warning(
                "route %s, tenant %s: passed over %d things learnt that make no sense",
                route, tenant, senseless,
            )  # fmt: skip
