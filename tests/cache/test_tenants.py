"""No tenant ever meets another's answer: by fingerprint, by partition, and where it is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cache.codec import Corrupt, Stored, dump, load
from cache.exact import ExactCache
from cache.fingerprint import PARTITION_BYTES, fingerprint, partition, writer_mark
from cache.freshness import Freshness
from cache.scope import Scope
from cache.stores.memory import MemoryStore
from cache.types import CachedReply
from tests.support.far import process
from tests.support.redis_server import RedisServer

# Names that try to run into what stands beside them, and any others.
tenants = st.sampled_from(["a", "a,", 'a","r', "a:r", "", " a", "A", "ä", "a\u0308"]) | st.text(
    max_size=12
)
json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
bodies = st.dictionaries(st.sampled_from(["messages", "model", "user", "seed", "tenant"]), json)
names = st.sampled_from(["r", "s", 'r","a', ""])


def said(tenant: str) -> CachedReply:
    return CachedReply((tenant.encode(),), False, "m", {}, 0.0, "m:served", route="r")


@settings(max_examples=1000)
@given(tenants, tenants, names, names, bodies, bodies)
def test_fingerprints_of_two_tenants_differ_in_the_partition_and_in_the_digest(
    one: str, other: str, route: str, revision: str, body: dict[str, Any], theirs: dict[str, Any]
) -> None:
    assume(one != other)
    ours = fingerprint(one, route, revision, body)
    for asked in (body, theirs):
        for r in (route, revision):
            key = fingerprint(other, r, revision, asked)
            assert key[:PARTITION_BYTES] != ours[:PARTITION_BYTES]
            assert key[PARTITION_BYTES:] != ours[PARTITION_BYTES:]
    assert ours.startswith(partition(one))


@settings(max_examples=300)
@given(st.lists(st.tuples(tenants, st.integers(0, 3), st.booleans()), max_size=30))
def test_whatever_tenants_ask_in_turns_each_is_answered_with_its_own(
    asked: list[tuple[str, int, bool]],
) -> None:
    cache: ExactCache[bytes] = ExactCache(MemoryStore(20_000), size_of=len)
    for tenant, number, forgets in asked:
        key = fingerprint(tenant, "r", "1", {"n": number})
        with cache.seat(key, Freshness(1e12), max_entry=10_000) as seat:
            if seat.hit is not None:
                assert seat.hit == said(tenant)
            else:
                seat.keep(said(tenant))
        if forgets:
            others = {t for t, _, _ in asked if t != tenant}
            held = {t: cache.find(fingerprint(t, "r", "1", {"n": 0})) for t in others}
            cache.forget(Scope(tenant=tenant))
            assert {t: cache.find(fingerprint(t, "r", "1", {"n": 0})) for t in others} == held


corpora = st.none() | tenants
places = st.tuples(tenants, corpora, names)


def key_of(place: tuple[str, str | None, str], asked: dict[str, Any]) -> bytes:
    tenant, corpus, route = place
    return fingerprint(tenant, route, "1", asked, corpus=corpus)


@settings(max_examples=1000)
@given(places, places, bodies)
def test_tenants_meet_in_a_corpus_of_one_route_and_nowhere_else(
    one: tuple[str, str | None, str], other: tuple[str, str | None, str], body: dict[str, Any]
) -> None:
    owners = [(tenant if corpus is None else None, corpus) for tenant, corpus, _ in (one, other)]
    ours, theirs = key_of(one, body), key_of(other, body)
    is_one_owner = owners[0] == owners[1]

    assert (ours == theirs) == (is_one_owner and one[2] == other[2])
    assert (ours[:PARTITION_BYTES] == theirs[:PARTITION_BYTES]) == is_one_owner
    if ours != theirs:
        assert ours[PARTITION_BYTES:] != theirs[PARTITION_BYTES:]


@settings(max_examples=300)
@given(st.lists(st.tuples(places, st.integers(0, 2), st.booleans()), max_size=30))
def test_with_corpora_each_is_answered_by_those_it_shares_with_and_forgotten_with_who_paid(
    asked: list[tuple[tuple[str, str | None, str], int, bool]],
) -> None:
    cache: ExactCache[bytes] = ExactCache(MemoryStore(200_000), size_of=len)
    held: dict[tuple[str | None, str | None, str, int], str] = {}
    for place, number, forgets in asked:
        tenant, corpus, route = place
        known = (tenant if corpus is None else None, corpus, route, number)
        with cache.seat(key_of(place, {"n": number}), Freshness(1e12), max_entry=10_000) as seat:
            assert (seat.hit is None) == (known not in held)
            if seat.hit is None:
                tags = () if corpus is None else (writer_mark(tenant),)
                seat.keep(replace(said(tenant), tags=tags))
                held[known] = tenant
            else:
                assert seat.hit.parts == (held[known].encode(),)
        if forgets:
            cache.forget(Scope(tenant=tenant))
            held = {each: payer for each, payer in held.items() if payer != tenant}


@settings(max_examples=300)
@given(tenants, tenants, bodies)
def test_an_entry_put_in_the_place_of_another_tenants_is_not_read(
    one: str, other: str, body: dict[str, Any]
) -> None:
    assume(one != other)
    ours, theirs = (fingerprint(tenant, "r", "1", body) for tenant in (one, other))
    data = dump(ours, Stored(said(one), 1e12, 0))

    assert load(ours, data).reply == said(one)
    with pytest.raises(Corrupt):
        load(theirs, data)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(Path(tmp_path_factory.mktemp("redis"))) as server:
        yield server


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(asked=st.lists(st.tuples(tenants, st.integers(0, 2), st.booleans()), max_size=20))
def test_processes_that_share_a_redis_answer_each_tenant_with_its_own(
    server: RedisServer, asked: list[tuple[str, int, bool]]
) -> None:
    async def ask_in_turns() -> None:
        server.flush()
        async with process(server) as one, process(server) as two:
            for tenant, number, is_second in asked:
                cache = two if is_second else one
                key = fingerprint(tenant, "r", "1", {"n": number})
                with cache.seat(key, Freshness(1e12), max_entry=10_000) as seat:
                    if seat.may_look_further:
                        await seat.look_further()
                    if seat.hit is not None:
                        assert seat.hit == said(tenant)
                    else:
                        assert seat.is_leader
                        seat.keep(said(tenant))

    asyncio.run(ask_in_turns())
