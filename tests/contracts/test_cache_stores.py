"""What every cache store promises, over all of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cache.fingerprint import partition
from cache.scope import Scope
from cache.stores.memory import MemoryStore
from cache.types import CachedReply, CacheStore


class Time:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


STORES: dict[str, Callable[[Time], CacheStore]] = {
    "memory": lambda time: MemoryStore(clock=time),
}


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest, time: Time) -> CacheStore:
    return STORES[request.param](time)


def reply(text: str = "hello", *, streamed: bool = False) -> CachedReply:
    parts = (b"data: 1\n\n", text.encode()) if streamed else (text.encode(),)
    return CachedReply(
        parts=parts,
        streamed=streamed,
        model="large",
        usage={"input": 12, "output": 3, "compute_s": 0.25},
        created_at=1_700_000_000.5,
        path="tiny:0.41:escalated,large:served",
        usage_event=b"data: 2\n\n" if streamed else None,
    )


def key(name: str, partition: bytes = b"\0" * 8) -> bytes:
    return partition + name.encode().ljust(24, b"\0")


@pytest.mark.parametrize("streamed", [False, True])
def test_what_was_put_is_found_as_it_was(store: CacheStore, streamed: bool) -> None:
    store.put(key("a"), reply(streamed=streamed), ttl=60)

    assert store.get(key("a")) == reply(streamed=streamed)


def test_what_was_never_put_is_absent(store: CacheStore) -> None:
    store.put(key("a"), reply(), ttl=60)

    assert store.get(key("b")) is None


def test_a_later_entry_takes_the_place_of_an_earlier_one(store: CacheStore) -> None:
    store.put(key("a"), reply("old"), ttl=60)
    store.put(key("a"), reply("new"), ttl=60)

    assert store.get(key("a")) == reply("new")


def test_an_entry_lives_as_long_as_it_was_given(store: CacheStore, time: Time) -> None:
    store.put(key("short"), reply(), ttl=10)
    store.put(key("long"), reply(), ttl=20)
    time.now += 9.5
    assert store.get(key("short")) is not None

    time.now += 0.5

    assert store.get(key("short")) is None
    assert store.get(key("long")) is not None


def test_reading_does_not_prolong_a_life(store: CacheStore, time: Time) -> None:
    store.put(key("a"), reply(), ttl=10)
    for _ in range(4):
        time.now += 2.5
        store.get(key("a"))

    assert store.get(key("a")) is None


def test_putting_again_begins_a_new_life(store: CacheStore, time: Time) -> None:
    store.put(key("a"), reply(), ttl=10)
    time.now += 9
    store.put(key("a"), reply(), ttl=10)
    time.now += 9

    assert store.get(key("a")) is not None


def test_a_dropped_entry_is_absent(store: CacheStore) -> None:
    store.put(key("a"), reply(), ttl=60)

    assert store.drop(key("a"))
    assert not store.drop(key("a"))
    assert store.get(key("a")) is None


def test_a_partition_is_dropped_whole_and_alone(store: CacheStore) -> None:
    ours, theirs = partition("acme"), partition("other")
    for name in ("a", "b"):
        store.put(key(name, ours), reply(), ttl=60)
        store.put(key(name, theirs), reply(), ttl=60)

    assert store.drop_where(Scope(tenant="acme")).entries == 2
    assert store.drop_where(Scope(tenant="acme")).entries == 0
    assert store.get(key("a", ours)) is None
    assert store.get(key("a", theirs)) is not None
    assert store.get(key("b", theirs)) is not None
