"""What each tenant's route has learnt: its decider and its cross-encoder's scores, kept on disk."""

from __future__ import annotations

import logging
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from cache.semantic.grey_zone import GreyZone
from cache.semantic.learnt import LearntTable, Lesson
from cache.semantic.types import Decider

MOST_DECIDERS = 256
"""Deciders held at once; whose tenant's route asked longest ago is let go of, and read again."""

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
    """The deciders of tenants' routes, made when they are first asked; used by the store's thread.

    Of those `most` are held, and such as have lessons that could not be written. One that comes
    back knows what it had learnt; what it had met but not yet heard the outcome of, it does not.
    """

    def __init__(
        self,
        table: LearntTable,
        decider: Callable[[str, str], Decider],
        wall: Callable[[], float],
        *,
        most: int = MOST_DECIDERS,
    ) -> None:
        self._most = most
        self._table = table
        self._make = decider
        self._wall = wall
        self._deciders: OrderedDict[tuple[str, str], Decider] = OrderedDict()
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
            self._make_room()
        self._deciders.move_to_end((tenant, route))
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

    def _make_room(self) -> None:
        """Let go of who was not asked for longest, once what it has learnt is written."""
        spare = len(self._deciders) - self._most
        if spare <= 0:
            return
        oldest = [*self._deciders][:spare]
        if not self._learning.isdisjoint(oldest):
            self.write()
        for place in oldest:
            is_kept = isinstance(self._deciders[place], Remembering) and place in self._learning
            if not is_kept:
                del self._deciders[place]
                self._zones.pop(place, None)
                self._learning.discard(place)

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
