"""What PostgreSQL adds to an index: it is shared, it outlives, and it may be away."""

from __future__ import annotations

import numpy as np
import pytest

from cache.index.pgvector import PgVectors
from cache.index.types import IndexAway
from cache.scope import Scope
from cache.semantic.lookup import SemanticCache
from cache.semantic.service import EmbeddingService
from tests.cache.semantic.test_lookup import Bench
from tests.support.postgres_server import PostgresServer
from tests.support.semantic import AtLeast, Lettered, SameDigits

WIDTH = 32


@pytest.fixture(scope="module")
def server():
    with PostgresServer() as server:
        yield server


@pytest.fixture
def url(server):
    return server.new_database()


def rows(count, seed=0):
    found = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def opened(url, owner="one", **options):
    return PgVectors(url, owner, WIDTH, **{"deadline_s": 20, **options})


def test_neither_owners_nor_scopes_find_each_others_vectors(url):
    one, other = opened(url), opened(url, "other")
    vectors = rows(300)
    one.of(b"a").add(range(100), vectors[:100])
    one.of(b"b").add(range(100, 200), vectors[100:200])
    other.of(b"a").add(range(200, 300), vectors[200:])

    for owner, scope, first in ((one, b"a", 0), (one, b"b", 100), (other, b"a", 200)):
        near = owner.of(scope).search(vectors[first + 7], 200)
        assert {each.id for each in near} == set(range(first, first + 100))
        assert near[0].id == first + 7
    assert one.of(b"c").search(vectors[0], 5) == []
    assert one.numbers().tolist() == list(range(200))
    one.close()
    other.close()


def test_a_large_scope_is_searched_through_the_graph(url, server):
    vectors, outside = rows(3000), opened(url)
    index = outside.of(b"a")
    index.add(range(3000), vectors)
    name = url.partition("@/")[2].partition("?")[0]
    server.say("ANALYZE frugal_vector_32", name)
    plan = server.say(
        "EXPLAIN SELECT id FROM frugal_vector_32 WHERE owner = 'one' AND scope = 'a' "
        "ORDER BY v <#> (SELECT v FROM frugal_vector_32 LIMIT 1) LIMIT 8",
        name,
    )
    assert "frugal_vector_32_near" in " ".join(line for (line,) in plan)

    asked = rows(40, seed=1)
    true = np.argsort(-(asked @ vectors.T), axis=1)[:, :5]
    found = [[near.id for near in index.search(row, 5)] for row in asked]
    met = sum(len(set(f) & set(t)) for f, t in zip(found, true.tolist(), strict=True))
    outside.close()
    assert met >= 0.9 * true.size


def test_what_is_kept_is_found_by_another_start(url):
    first = opened(url)
    first.of(b"a").add([1, 2], rows(2))
    first.close()
    second = opened(url)
    second.of(b"a").add([2, 3], rows(3)[1:])  # a number that is there already stays

    assert second.numbers().tolist() == [1, 2, 3]
    assert [near.id for near in second.of(b"a").search(rows(1)[0], 1)] == [1]
    second.close()


def test_a_server_that_ends_costs_an_error_and_is_found_again(url):
    with PostgresServer() as server:
        now = [0.0]
        vectors = opened(server.url(), clock=lambda: now[0])
        index = vectors.of(b"a")
        index.add([1], rows(1))
        server.kill()
        for _ in range(3):
            with pytest.raises(IndexAway):
                index.search(rows(1)[0], 1)
        assert vectors.failures == 1, "only the first of them asked"
        server.start()
        now[0] += 60.0

        assert [near.id for near in index.search(rows(1)[0], 1)] == [1]
        vectors.close()


def test_a_server_that_hangs_is_waited_for_once(url, server):
    vectors = opened(url, deadline_s=20)
    vectors.of(b"a").add([1], rows(1))
    vectors._deadline_s = 0.05
    with pytest.raises(IndexAway):
        vectors.run("SELECT pg_sleep(30)", ())
    with pytest.raises(IndexAway, match="left alone"):
        vectors.run("SELECT 1", ())
    vectors.close()


async def test_a_cache_keeps_its_vectors_there_and_goes_on_without(url, tmp_path):
    def cache(service):
        return SemanticCache(
            service, path=tmp_path / "answers.db", guards=SameDigits(),
            decider=lambda *_: AtLeast(), wall=lambda: 1000.0,
            outside=lambda owner, width: PgVectors(url, owner, width, deadline_s=20),
        )  # fmt: skip

    async with EmbeddingService(Lettered) as service:
        async with cache(service) as running:
            bench = Bench(running, AtLeast())
            await bench.keep("reset my password", "press the button")
            await bench.keep("lost my card", "call us")
            await bench.keep("lost my card", "for another", tenant="other")
        async with cache(service) as running:
            bench = Bench(running, AtLeast())
            assert await bench.find("my password: reset") == "press the button"
            assert await bench.find("my card: lost", tenant="other") == "for another"
            assert await running.drop(Scope(tenant="acme")) == 2
            assert await bench.find("my password: reset") is None
            assert await bench.find("lost my card", tenant="other") == "for another"
            identity = await running.with_store(lambda store, _: store.identity)
            vectors = PgVectors(url, identity, WIDTH, deadline_s=20)
            assert vectors.numbers().tolist() == [3]
            vectors.close()


async def test_a_cache_starts_and_answers_nothing_where_postgres_is_away(tmp_path):
    nowhere = "postgresql://nobody@/nothing?host=/nonexistent"
    async with (
        EmbeddingService(Lettered) as service,
        SemanticCache(
            service, path=tmp_path / "answers.db", guards=SameDigits(),
            decider=lambda *_: AtLeast(), wall=lambda: 1000.0,
            outside=lambda owner, width: PgVectors(nowhere, owner, width),
        ) as running,
    ):  # fmt: skip
        bench = Bench(running, AtLeast())
        await bench.keep("reset my password", "press the button")
        assert await bench.find("reset my password") is None
        assert running.stats.errors


async def test_what_was_kept_while_postgres_was_away_is_found_once_it_is_back(url, tmp_path):
    nowhere = "postgresql://nobody@/nothing?host=/nonexistent"
    now, opened = [0.0], []

    def outside(owner, width):
        opened.append(PgVectors(url, owner, width, deadline_s=20, clock=lambda: now[0]))
        return opened[0]

    async with (
        EmbeddingService(Lettered) as service,
        SemanticCache(
            service, path=tmp_path / "answers.db", guards=SameDigits(),
            decider=lambda *_: AtLeast(), wall=lambda: 1000.0, outside=outside,
        ) as running,
    ):  # fmt: skip
        bench = Bench(running, AtLeast())
        await bench.keep("reset my password", "press the button")
        (vectors,) = opened
        vectors.close()
        vectors._url, vectors._connection = nowhere, None
        await bench.keep("reset my password", "press the other button")
        await bench.keep("lost my card", "call us")
        await bench.keep("block my account", "write to us")
        assert await bench.find("lost my card") is None
        vectors._url = url
        now[0] += 100

        assert await bench.find("my card: lost") == "call us"
        assert await bench.find("my password: reset") == "press the other button"
        assert await bench.find("my account: block") == "write to us"
        await bench.keep("open an account", "with pleasure")
        assert await bench.find("an account: open") == "with pleasure"
