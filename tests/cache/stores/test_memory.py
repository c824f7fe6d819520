from __future__ import annotations

import gc
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.stores.memory import MemoryStore
from cache.types import CachedReply


def reply(size: int, parts: int = 1, worth: float = 1.0) -> CachedReply:
    """Make a reply that holds so many bytes in each of its parts."""
    bodies = tuple(bytes(size) for _ in range(parts))
    return CachedReply(bodies, parts > 1, "m", {"input": 1}, 0.0, "m:served", worth=worth)


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def names(store: MemoryStore, upto: int) -> list[int]:
    return [n for n in range(upto) if store.get(key(n)) is not None]


def test_the_entry_used_longest_ago_makes_room() -> None:
    store = MemoryStore(3 * reply(1000).size)
    for number in (0, 1, 2):
        store.put(key(number), reply(1000), ttl=60)
    store.get(key(0))
    store.put(key(3), reply(1000), ttl=60)

    assert names(store, 4) == [0, 2, 3]
    assert store.evicted == 1


def test_one_large_entry_makes_several_go() -> None:
    store = MemoryStore(4 * reply(1000).size)
    for number in range(4):
        store.put(key(number), reply(1000), ttl=60)
    store.put(key(4), reply(2500), ttl=60)

    assert names(store, 5) == [2, 3, 4]


def test_an_entry_larger_than_the_store_is_not_kept_nor_its_forerunner() -> None:
    store = MemoryStore(10_000)
    store.put(key(0), reply(1000), ttl=60)
    store.put(key(1), reply(1000), ttl=60)
    store.put(key(1), reply(20_000), ttl=60)

    assert names(store, 2) == [0]
    assert store.evicted == 0


def test_an_entry_that_has_expired_gives_its_room_back_when_asked_for() -> None:
    now = 0.0
    store = MemoryStore(10_000, clock=lambda: now)
    store.put(key(0), reply(1000), ttl=5)
    now = 5.0
    store.get(key(0))

    assert (len(store), store.size) == (0, 0)


def test_what_is_dear_outlives_what_is_cheap() -> None:
    store = MemoryStore(3 * reply(1000).size)
    store.put(key(0), reply(1000, worth=5.0), ttl=60)
    for number in range(1, 5):
        store.put(key(number), reply(1000, worth=1.0), ttl=60)

    assert names(store, 5) == [0, 3, 4]


def test_what_is_small_outlives_what_is_large() -> None:
    store = MemoryStore(reply(4000).size + 3 * reply(100).size)
    store.put(key(0), reply(100), ttl=60)
    store.put(key(1), reply(4000), ttl=60)
    for number in range(2, 5):
        store.put(key(number), reply(100), ttl=60)

    assert names(store, 5) == [0, 2, 3, 4]


def test_what_is_used_outlives_what_is_not() -> None:
    store = MemoryStore(3 * reply(1000).size)
    for number in range(20):
        store.put(key(number), reply(1000), ttl=60)
        store.get(key(0))

    assert names(store, 20)[0] == 0


def test_what_was_once_in_demand_goes_in_the_end() -> None:
    store = MemoryStore(3 * reply(1000).size)
    store.put(key(0), reply(1000), ttl=60)
    for _ in range(50):
        store.get(key(0))
    for number in range(1, 400):
        store.put(key(number), reply(1000), ttl=60)

    assert 0 not in names(store, 1)


def test_what_was_dropped_leaves_nothing_behind() -> None:
    store = MemoryStore()
    for number in range(1000):
        store.put(key(number % 7), reply(10), ttl=60)

    assert len(store) == 7
    assert len(store._heap) < 100


uses = st.lists(
    st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 3000), st.sampled_from([0.5, 1, 9])),
    max_size=80,
)


@given(uses)
def test_the_one_to_go_is_always_the_least_by_uses_worth_and_size(
    steps: list[tuple[bool, int, int, float]],
) -> None:
    store = MemoryStore(9000, clock=lambda: 0.0)
    kept: dict[int, CachedReply] = {}
    uses: dict[int, int] = {}
    priority: dict[int, float] = {}
    for is_use, number, size, worth in steps:
        if is_use:
            if store.get(key(number)) is not None:
                uses[number] += 1
                rate = kept[number].worth / kept[number].size
                priority[number] = store._age + uses[number] * rate
            continue
        kept.pop(number, None)
        store.put(key(number), put := reply(size, worth=worth), ttl=60)
        gone = {n for n in kept if key(n) not in store._slots}

        assert all(priority[g] <= priority[s] for g in gone for s in kept.keys() - gone)
        kept = {n: one for n, one in kept.items() if n not in gone} | {number: put}
        uses[number], priority[number] = 1, store._age + put.worth / put.size
        assert sum(one.size for one in kept.values()) == store.size <= store.max_bytes


@pytest.mark.parametrize("size", [0, -1])
def test_a_store_without_room_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="max_bytes: expected a positive size"):
        MemoryStore(size)


operations = st.lists(
    st.tuples(st.sampled_from("pgd"), st.integers(0, 5), st.integers(0, 3000), st.integers(1, 5)),
    max_size=60,
)


@given(operations)
def test_the_bytes_counted_are_those_held_and_never_more_than_allowed(
    steps: list[tuple[str, int, int, int]],
) -> None:
    store = MemoryStore(8000, clock=iter(range(10_000)).__next__)
    sizes: dict[int, int] = {}
    for kind, number, size, ttl in steps:
        if kind == "p":
            store.put(key(number), reply(size), ttl)
            sizes[number] = reply(size).size
        elif kind == "g":
            store.get(key(number))
        else:
            store.drop(key(number))

        held = [n for n in sizes if key(n) in store._slots]
        assert store.size == sum(sizes[n] for n in held) <= store.max_bytes
        assert len(store) == len(held)


@pytest.mark.parametrize(("size", "parts"), [(0, 1), (900, 1), (200, 60)])
def test_the_size_of_an_entry_is_about_what_it_takes_in_memory(size: int, parts: int) -> None:
    count = 300
    store = MemoryStore()
    gc.collect()
    tracemalloc.start()
    for number in range(count):
        store.put(key(number), reply(size, parts), ttl=60)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert 0.7 * store.size < taken < 1.2 * store.size
