"""What every cache store promises, over all of them."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from cache.exact import ExactCache
from cache.far import Far
from cache.fingerprint import CORPUS_MARK, corpus_partition, partition, writer_mark
from cache.freshness import Freshness
from cache.scope import Scope, Tally
from cache.stores.memory import MemoryStore
from cache.stores.redis import RedisLink
from cache.stores.scripts import SCRIPTS
from cache.stores.shared import SharedStore
from cache.types import CachedReply
from tests.support.far import BytesCodec
from tests.support.redis_server import RedisServer

T = TypeVar("T")


class Time:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Store(Protocol):
    """A store as the suite uses it: whatever waits and whatever does not."""

    async def get(self, key: bytes) -> CachedReply | None: ...

    async def put(self, key: bytes, reply: CachedReply, ttl: float) -> None: ...

    async def drop(self, key: bytes) -> bool: ...

    async def drop_where(self, scope: Scope, *, dry_run: bool = False) -> Tally: ...


class Plain:
    """A store whose methods may wait or not."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*arguments: Any, **options: Any) -> Any:
            done = getattr(self._store, name)(*arguments, **options)
            return await done if inspect.isawaitable(done) else done

        return call


class Levels:
    """Memory in front of Redis, as requests use them: each a seat."""

    def __init__(self, cache: ExactCache[bytes]) -> None:
        self._cache = cache

    async def get(self, key: bytes) -> CachedReply | None:
        with self._cache.seat(key, Freshness(1e6), max_entry=1 << 20) as seat:
            if seat.may_look_further:
                await seat.look_further()
            return seat.hit

    async def put(self, key: bytes, reply: CachedReply, ttl: float) -> None:
        with self._cache.seat(key, Freshness(ttl), max_entry=1 << 20, skips=True) as seat:
            await seat.look_further()
            seat.keep(reply)

    async def drop(self, key: bytes) -> bool:
        return (await self.drop_where(Scope(key=key))).entries == 1

    async def drop_where(self, scope: Scope, *, dry_run: bool = False) -> Tally:
        return await self._cache.invalidate(scope, dry_run=dry_run)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with RedisServer(Path(tmp_path_factory.mktemp("redis"))) as server:
        yield server


@asynccontextmanager
async def memory(server: RedisServer, time: Time) -> AsyncIterator[Store]:
    yield Plain(MemoryStore(clock=time))


@asynccontextmanager
async def redis(server: RedisServer, time: Time) -> AsyncIterator[Store]:
    async with RedisLink(server.url, SCRIPTS, deadline_s=60) as link:
        yield Redis(SharedStore(link))


class Redis(Plain):
    """Entries in Redis, put as a leader does, with its lease."""

    async def put(self, key: bytes, reply: CachedReply, ttl: float) -> None:
        claim = await self._store.claim(key, b"p.1", 5, skip=True)
        await self._store.put(key, reply, ttl, token=claim.token)


@asynccontextmanager
async def two_levels(server: RedisServer, time: Time) -> AsyncIterator[Store]:
    link = RedisLink(server.url, SCRIPTS, deadline_s=60)
    far = Far(SharedStore(link), BytesCodec())
    async with link, far:
        yield Levels(ExactCache(MemoryStore(clock=time), size_of=len, far=far, wall=lambda: 0.0))


STORES = {"memory": memory, "redis": redis, "two levels": two_levels}


@pytest.fixture(params=sorted(STORES))
async def store(
    request: pytest.FixtureRequest, server: RedisServer, time: Time
) -> AsyncIterator[Store]:
    server.flush()
    async with STORES[request.param](server, time) as store:
        yield store


def reply(text: str = "hello", *, streamed: bool = False, **labels: Any) -> CachedReply:
    parts = (b"data: 1\n\n", text.encode()) if streamed else (text.encode(),)
    return CachedReply(
        parts=parts,
        streamed=streamed,
        model=labels.pop("model", "large"),
        usage={"input": 12, "output": 3, "compute_s": 0.25, "estimated": False},
        created_at=labels.pop("created_at", 1_700_000_000.5),
        path="tiny:0.41:escalated,large:served",
        usage_event=b"data: 2\n\n" if streamed else None,
        **labels,
    )


def key(name: str, partition: bytes = b"\0" * 8) -> bytes:
    return partition + name.encode().ljust(24, b"\0")


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_was_put_is_found_as_it_was(store: Store, streamed: bool) -> None:
    kept = reply(streamed=streamed, route="auto", tags=("a", "b"), worth=0.5)
    await store.put(key("a"), kept, ttl=60)

    assert await store.get(key("a")) == kept


async def test_a_long_answer_is_found_as_it_was(store: Store) -> None:
    await store.put(key("a"), reply("word " * 20_000), ttl=60)

    assert await store.get(key("a")) == reply("word " * 20_000)


async def test_what_was_never_put_is_absent(store: Store) -> None:
    await store.put(key("a"), reply(), ttl=60)

    assert await store.get(key("b")) is None


async def test_a_later_entry_takes_the_place_of_an_earlier_one(store: Store) -> None:
    await store.put(key("a"), reply("old"), ttl=60)
    await store.put(key("a"), reply("new"), ttl=60)

    assert await store.get(key("a")) == reply("new")


async def test_a_dropped_entry_is_absent(store: Store) -> None:
    await store.put(key("a"), reply(), ttl=60)

    assert await store.drop(key("a"))
    assert not await store.drop(key("a"))
    assert await store.get(key("a")) is None


async def test_a_partition_is_dropped_whole_and_alone(store: Store) -> None:
    ours, theirs = partition("acme"), partition("other")
    for name in ("a", "b"):
        await store.put(key(name, ours), reply(), ttl=60)
        await store.put(key(name, theirs), reply(), ttl=60)

    assert (await store.drop_where(Scope(tenant="acme"))).entries == 2
    assert (await store.drop_where(Scope(tenant="acme"))).entries == 0
    assert await store.get(key("a", ours)) is None
    assert await store.get(key("a", theirs)) is not None
    assert await store.get(key("b", theirs)) is not None


async def test_a_tenant_is_dropped_with_what_it_paid_for_in_a_corpus(store: Store) -> None:
    corpus = corpus_partition("docs")
    await store.put(key("a", corpus), reply(tags=(writer_mark("acme"),)), ttl=60)
    await store.put(key("b", corpus), reply(tags=(writer_mark("other"),)), ttl=60)
    await store.put(key("a", partition("acme")), reply(), ttl=60)

    assert (await store.drop_where(Scope(tenant="docs"))).entries == 0
    assert (await store.drop_where(Scope(tenant="acme"))).entries == 2
    assert await store.get(key("b", corpus)) is not None


async def test_a_tenant_whose_partition_looks_like_a_corpus_is_dropped_once(store: Store) -> None:
    odd = next(name for name in map(str, range(10_000)) if partition(name).startswith(CORPUS_MARK))
    await store.put(key("a", partition(odd)), reply(), ttl=60)
    await store.put(key("b", corpus_partition("docs")), reply(), ttl=60)

    assert (await store.drop_where(Scope(tenant=odd))).entries == 1
    assert await store.get(key("b", corpus_partition("docs"))) is not None


@pytest.mark.parametrize(
    "scope",
    [
        Scope(route="auto"),
        Scope(model="small"),
        Scope(tag="draft"),
        Scope(key=key("a")),
        Scope(before=1500.0),
        Scope(route="auto", model="small", tag="draft"),
    ],
)
async def test_a_scope_names_its_entries_and_no_others(store: Store, scope: Scope) -> None:
    meant = reply(route="auto", model="small", tags=("draft", "x"), created_at=1000.0)
    await store.put(key("a"), meant, ttl=60)
    await store.put(key("b"), reply(route="other", tags=("x",), created_at=2000.0), ttl=60)

    assert (await store.drop_where(scope, dry_run=True)).entries == 1
    assert await store.get(key("a")) == meant
    assert (await store.drop_where(scope)).entries == 1
    assert await store.get(key("a")) is None
    assert await store.get(key("b")) is not None


async def test_the_empty_scope_names_everything(store: Store) -> None:
    for name in "abc":
        await store.put(key(name), reply(), ttl=60)

    assert (await store.drop_where(Scope())).entries == 3
    assert [await store.get(key(name)) for name in "abc"] == [None] * 3


# What time does to an entry, where time is ours to tell


def test_an_entry_lives_as_long_as_it_was_given(time: Time) -> None:
    store = MemoryStore(clock=time)
    store.put(key("short"), reply(), ttl=10)
    store.put(key("long"), reply(), ttl=20)
    time.now += 9.5
    assert store.get(key("short")) is not None

    time.now += 0.5

    assert store.get(key("short")) is None
    assert store.get(key("long")) is not None


def test_reading_does_not_prolong_a_life(time: Time) -> None:
    store = MemoryStore(clock=time)
    store.put(key("a"), reply(), ttl=10)
    for _ in range(4):
        time.now += 2.5
        store.get(key("a"))

    assert store.get(key("a")) is None


def test_putting_again_begins_a_new_life(time: Time) -> None:
    store = MemoryStore(clock=time)
    store.put(key("a"), reply(), ttl=10)
    time.now += 9
    store.put(key("a"), reply(), ttl=10)
    time.now += 9

    assert store.get(key("a")) is not None


async def test_redis_is_told_how_long_an_entry_lives(server: RedisServer) -> None:
    server.flush()
    async with RedisLink(server.url, SCRIPTS, deadline_s=60) as link:
        await SharedStore(link).put(key("a"), reply(), ttl=100)
        (name,) = await link.call(b"KEYS", b"frugal:e:*")
        left = await link.call(b"PTTL", name)

    assert 0 < left <= 100_000
