"""What policies share of embedders and caches, and what routers are given."""

from __future__ import annotations

import json

import pytest

from cache.semantic.embedder import EmbedderError
from cache.semantic.host import LocalHost
from gateway import meanings as module
from gateway.access.keys import ANONYMOUS
from gateway.cascading import Cascading
from gateway.clock import Clock
from gateway.entry import Entry
from gateway.features import Embedding
from gateway.meanings import Meanings, check_extra
from gateway.request import parse_chat
from gateway.resilience.resilience import Resilience
from policies.problems import PolicyError
from tests.policies.support import load, routes
from tests.support.gateway_app import asking
from tests.support.semantic import Lettered

WITH_CACHE = routes("  r: {model: tiny, cache: {semantic: {max_error: 0.01}}}")
WITHOUT = routes("  r: {model: tiny}")


@pytest.fixture
def loaded():
    return []


@pytest.fixture
def meanings(loaded):
    def load_letters(name):
        loaded.append(name)
        return Lettered(name)

    return Meanings(Clock(), LocalHost(load=load_letters))


async def test_another_policy_that_names_the_same_embedder_does_not_load_it_again(
    meanings, loaded, tmp_path
):
    path = tmp_path / "ledger.db"
    async with meanings.of(load(WITH_CACHE), path, wants_vectors=False) as old:
        async with meanings.of(load(WITH_CACHE), path, wants_vectors=True) as new:
            assert new.near.cache is old.near.cache
        assert await old.embedding.embed("abc") is not None

    assert loaded == ["all-MiniLM-L6-v2"]


async def test_another_embedder_is_loaded_beside_the_one_at_work(meanings, loaded, tmp_path):
    other = load(WITH_CACHE.replace("max_error: 0.01", "embedder: other"))
    path = tmp_path / "ledger.db"
    async with (
        meanings.of(load(WITH_CACHE), path, wants_vectors=False) as old,
        meanings.of(other, path, wants_vectors=False) as new,
    ):
        assert new.embedding.version() == "other" != old.embedding.version()

    assert loaded == ["all-MiniLM-L6-v2", "other"]


async def test_a_router_alone_gets_vectors_and_no_cache(meanings, loaded, tmp_path):
    async with meanings.of(load(WITHOUT), tmp_path / "l.db", wants_vectors=True) as meaning:
        assert meaning.near is None
        assert (await meaning.embedding.embed("abc")).shape == (32,)
        assert await meaning.embedding.embed("fail") is None
        assert await meaning.embedding.embed("x" * 200) is None

    assert not list(tmp_path.iterdir())


async def test_nothing_is_loaded_where_nobody_asks(meanings, loaded, tmp_path):
    async with meanings.of(load(WITHOUT), tmp_path / "l.db", wants_vectors=False) as meaning:
        assert meaning.embedding is None

    assert loaded == []


async def test_a_router_goes_without_where_no_embedder_can_be_had(tmp_path, caplog):
    def refuse(name):
        raise EmbedderError("no such model")

    meanings = Meanings(Clock(), LocalHost(load=refuse))
    async with meanings.of(load(WITHOUT), tmp_path / "l.db", wants_vectors=True) as meaning:
        assert meaning.embedding is None

    assert "routers go without vectors: no such model" in caplog.text


class SeenEnough(Exception):
    """What is told before any model would be called."""


class Curious:
    """A router that looks at the vector, and goes no further."""

    def __init__(self, *, wants_vector):
        self.wants_vector = wants_vector

    def start(self, facts, features=None):
        """Begin a request."""
        self.seen = features.question, features.known_vector
        raise SeenEnough


@pytest.mark.parametrize("wants_vector", [True, False])
async def test_a_router_finds_the_vector_computed_where_it_wants_it(wants_vector):
    policy = load(WITHOUT)
    router = Curious(wants_vector=wants_vector)
    letters = Lettered()

    async def embed(text):
        return letters.embed([text])[0]

    embedding = Embedding(lambda: "letters", embed)
    resilience = Resilience(Clock())
    cascading = Cascading(policy, {"r": router}, {}, resilience, None, None, embedding)
    request = parse_chat(json.dumps(asking("abc", "r")).encode(), {}, "req_1")
    entry = Entry(request, ANONYMOUS, "r", policy.routes["r"], Clock())

    with pytest.raises(SeenEnough):
        await anext(cascading.run(entry))
    question, vector = router.seen
    assert question == "abc"
    assert (vector is not None) == wants_vector == bool(letters.calls)


def test_a_policy_without_a_semantic_cache_needs_no_extra(monkeypatch):
    monkeypatch.setattr(module, "_NEEDED", ("no_such_package",))

    check_extra(load(WITHOUT))


def test_a_missing_extra_is_told_with_the_route_and_what_to_install(monkeypatch):
    check_extra(load(WITH_CACHE))
    monkeypatch.setattr(module, "_NEEDED", ("faiss", "no_such_package"))

    with pytest.raises(PolicyError) as told:
        check_extra(load(WITH_CACHE))
    words = str(told.value)
    assert "routes.r.cache.semantic" in words
    assert "found no no_such_package" in words
    assert "frugal-gateway[semantic]" in words
