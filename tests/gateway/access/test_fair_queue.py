"""Turns are fair among tenants, whatever the order of those who come and leave."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.access.fair_queue import ORDER, FairQueue, Waiter

MOST = 6
TENANTS = ["a", "b", "c"]


def _served(queue):
    """Let everybody in, one after the other; return who it was."""
    order = []
    while (waiter := queue.first(frozenset())) is not None:
        queue.serve(waiter)
        order.append(waiter.item)
    return order


def _waiting(*names, priority="normal", meters=("m",), most=100):
    queue = FairQueue(most)
    for number, tenant in enumerate(names):
        queue.enter(Waiter(f"{tenant}{number}", tenant, priority, meters))
    return queue


def test_tenants_take_turns_however_many_requests_each_has():
    assert _served(_waiting("a", "a", "a", "b", "c", "b")) == ["a0", "b3", "c4", "a1", "b5", "a2"]


def test_a_higher_priority_goes_first():
    queue = _waiting("a", priority="low")
    queue.enter(Waiter("b", "b", "normal", ["m"]))
    queue.enter(Waiter("c", "c", "high", ["m"]))

    assert _served(queue) == ["c", "b", "a0"]


def test_who_waits_for_a_meter_lets_those_pass_who_need_another():
    queue = _waiting("a", meters=["route", "key:a"])
    other, same = Waiter("b", "b", "normal", ["key:b"]), Waiter("c", "c", "high", ["route"])
    queue.enter(other)
    queue.enter(same)

    assert queue.first({"route"}) is other


def test_a_full_queue_makes_room_for_a_tenant_that_has_less_of_it():
    queue = _waiting("a", "a", "a", most=3)
    newcomer = Waiter("b", "b", "normal", ["m"])

    assert queue.enter(newcomer).item == "a2"
    assert queue.enter(again := Waiter("b", "b", "normal", ["m"])) is again
    assert _served(queue) == ["a0", "b", "a1"]


def test_a_full_queue_makes_room_for_a_higher_priority_and_for_no_lower_one():
    queue = _waiting("a", most=1)
    low, high = Waiter("l", "b", "low", ["m"]), Waiter("h", "b", "high", ["m"])

    assert queue.enter(low) is low
    assert queue.enter(high).item == "a0"


@given(st.lists(st.sampled_from(TENANTS), min_size=1, max_size=40))
def test_no_tenant_is_served_twice_while_another_that_waits_is_not_served_at_all(names):
    order = [item[0] for item in _served(_waiting(*names))]

    left = Counter(names)
    for at, tenant in enumerate(order):
        since = order[max(0, at - len(TENANTS)) : at]
        waiting = [other for other in TENANTS if left[other] and other != tenant]
        if tenant in since[-1:]:
            assert not waiting
        left[tenant] -= 1
    assert Counter(order) == Counter(names)


class Queue(RuleBasedStateMachine):
    """Nobody is lost or served twice, and each tenant's own requests keep their order."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[int] = FairQueue(MOST)
        self.inside: list[Waiter[int]] = []
        self.number = 0

    @rule(
        tenant=st.sampled_from(TENANTS),
        priority=st.sampled_from(ORDER),
        meters=st.sets(st.sampled_from("xyz"), min_size=1),
    )
    def enter(self, tenant, priority, meters):
        self.number += 1
        waiter = Waiter(self.number, tenant, priority, meters)
        was_full = len(self.inside) == MOST
        victim = self.queue.enter(waiter)
        assert (victim is not None) == was_full
        self.inside.append(waiter)
        if victim is not None:
            assert ORDER.index(victim.priority) >= ORDER.index(priority)
            self.inside.remove(victim)

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def leave(self, data):
        waiter = data.draw(st.sampled_from(self.inside))
        self.queue.leave(waiter)
        self.queue.leave(waiter)
        self.inside.remove(waiter)

    @rule(blocked=st.sets(st.sampled_from("xyz")))
    def serve(self, blocked):
        waiter = self.queue.first(blocked)
        free = [each for each in self.inside if not each.meters & blocked]
        assert (waiter is None) == (not free)
        if waiter is None:
            return
        assert ORDER.index(waiter.priority) == min(ORDER.index(each.priority) for each in free)
        own = [e for e in free if (e.tenant, e.priority) == (waiter.tenant, waiter.priority)]
        assert waiter.item == min(each.item for each in own)
        self.queue.serve(waiter)
        self.inside.remove(waiter)

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert len(self.queue) == len(self.inside) <= MOST
        for meter in "xyz":
            assert self.queue.wants({meter}) == any(meter in each.meters for each in self.inside)


TestQueue = Queue.TestCase
