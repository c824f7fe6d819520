from __future__ import annotations

import gc
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.stores.memory import MemoryStore
from cache.types import CachedReply


def reply(size: int, parts: int = 1) -> CachedReply:
    """Make a reply that holds so many bytes in each of its parts."""
    bodies = tuple(bytes(size) for _ in range(parts))
    return CachedReply(bodies, parts > 1, "m", {"input": 1}, 0.0, "m:served")


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
