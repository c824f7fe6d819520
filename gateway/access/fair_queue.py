"""Whose turn it is among those who wait for a limit: a pure queue, fair among tenants.

Higher priorities go first. Within one, tenants take turns, however many requests
each has waiting, and the requests of a tenant go in order. Who waits for a meter
that is not free lets others pass who need another one, and nobody who needs the
same. A full queue makes room for who has a higher priority, or for a tenant that
has less of it: the newest request of the tenant with the most has to go (McKenney,
"Stochastic Fairness Queueing", 1990).
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Set
from typing import Generic, TypeVar

from policies.limits import Priority

ORDER: tuple[Priority, ...] = ("high", "normal", "low")
T = TypeVar("T")


class Waiter(Generic[T]):
    """One request that waits; `meters` are the ids of all that it needs."""

    __slots__ = ("item", "meters", "priority", "tenant")

    def __init__(self, item: T, tenant: str, priority: Priority, meters: Iterable[str]) -> None:
        self.item = item
        self.tenant = tenant
        self.priority: Priority = priority
        self.meters = frozenset(meters)


_Tenants = OrderedDict[str, deque[Waiter[T]]]


class FairQueue(Generic[T]):
    """At most `most` waiters, in the order of their turns."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._tenants: dict[Priority, _Tenants[T]] = {each: OrderedDict() for each in ORDER}
        self._wanted: Counter[str] = Counter()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def wants(self, meters: Set[str]) -> bool:
        """Return whether somebody waits who needs one of these."""
        return self._length > 0 and any(self._wanted[each] for each in meters)

    def enter(self, waiter: Waiter[T]) -> Waiter[T] | None:
        """Let somebody wait; return who may not: nobody, another one, or the newcomer."""
        victim: Waiter[T] | None = None
        if self._length >= self._most:
            victim = self._victim(waiter)
            if victim is waiter:
                return waiter
            self.leave(victim)
        self._tenants[waiter.priority].setdefault(waiter.tenant, deque()).append(waiter)
        self._wanted.update(waiter.meters)
        self._length += 1
        return victim

    def leave(self, waiter: Waiter[T]) -> None:
        """Forget a waiter, if it is still here."""
        queue = self._tenants[waiter.priority].get(waiter.tenant)
        if queue is None or waiter not in queue:
            return
        queue.remove(waiter)
        if not queue:
            del self._tenants[waiter.priority][waiter.tenant]
        self._wanted.subtract(waiter.meters)
        self._wanted += Counter()  # forgets what nobody wants
        self._length -= 1

    def first(self, blocked: Set[str]) -> Waiter[T] | None:
        """Return whose turn it is among those who need nothing of `blocked`."""
        for priority in ORDER:
            for queue in self._tenants[priority].values():
                for waiter in queue:
                    if waiter.meters.isdisjoint(blocked):
                        return waiter
        return None

    def serve(self, waiter: Waiter[T]) -> None:
        """Let a waiter go in: then it is the turn of the other tenants."""
        tenants = self._tenants[waiter.priority]
        self.leave(waiter)
        if waiter.tenant in tenants:
            tenants.move_to_end(waiter.tenant)

    def _victim(self, newcomer: Waiter[T]) -> Waiter[T]:
        lowest = next(each for each in reversed(ORDER) if self._tenants[each])
        if ORDER.index(lowest) < ORDER.index(newcomer.priority):
            return newcomer
        tenants = self._tenants[lowest]
        longest = max(tenants.values(), key=len)
        if lowest == newcomer.priority:
            own = tenants.get(newcomer.tenant, ())
            if len(longest) <= len(own) + 1:
                return newcomer
        return longest[-1]
