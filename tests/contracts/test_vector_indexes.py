"""One suite for everything that finds nearest vectors."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.index import VectorIndex, cells
from cache.index.cells import CellIndex, cells_for
from cache.index.codes import encoded
from cache.index.exact import ExactIndex
from cache.index.growing import GrowingIndex
from cache.index.pgvector import PgVectors
from tests.support.postgres_server import PostgresServer

WIDTH = 32
OWNERS = count(1)
KINDS = {
    "exact": ExactIndex,
    "cells": lambda width: CellIndex(width, encoded(rows(8, seed=2))),
    "growing": GrowingIndex,
    "growing early": lambda width: GrowingIndex(width, exact_below=20),
}


def rows(count: int, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


@pytest.fixture(scope="module")
def postgres():
    with PostgresServer() as server:
        yield server


@pytest.fixture
def in_postgres(postgres):
    vectors = PgVectors(postgres.url(), f"owner {next(OWNERS)}", WIDTH, deadline_s=20)
    yield vectors
    vectors.close()


@pytest.fixture(params=[*KINDS, "pgvector"])
def index(request) -> VectorIndex:
    if request.param == "pgvector":
        return request.getfixturevalue("in_postgres").of(b"scope")
    return KINDS[request.param](WIDTH)


def test_an_empty_index_finds_nothing(index):
    assert index.search(rows(1), 5) == []
    assert index.drop([1, 2]) == 0
    assert len(index) == 0


def test_what_was_added_is_its_own_nearest(index):
    vectors = rows(600)
    index.add(range(600), vectors)

    found = [index.search(vector, 3)[0] for vector in vectors[::60]]

    assert [near.id for near in found] == list(range(0, 600, 60))
    assert all(
        abs(near.similarity - v @ v) < 0.03 for near, v in zip(found, vectors[::60], strict=True)
    )


def test_nearest_come_first_and_are_the_true_ones(index):
    vectors = rows(900)
    for start in range(0, 900, 50):
        index.add(range(start, start + 50), vectors[start : start + 50])
    asked = rows(40, seed=1)

    found = [index.search(each, 5) for each in asked]

    true = np.argsort(-(asked @ vectors.T), axis=1)[:, :5]
    met = sum(len({near.id for near in f} & set(t)) for f, t in zip(found, true, strict=True))
    assert met >= 0.9 * true.size
    assert all(f == sorted(f, key=lambda near: -near.similarity) for f in found)


def test_dropped_vectors_are_never_found_again(index):
    vectors = rows(400)
    index.add(range(400), vectors)

    assert index.drop(range(0, 400, 2)) == 200
    assert index.drop(range(0, 400, 2)) == 0
    assert len(index) == 200
    met = {near.id for vector in vectors for near in index.search(vector, 4)}
    assert all(number % 2 for number in met)
    assert len(met) > 190


def test_a_number_may_come_back_after_it_was_dropped(index):
    first, second = rows(2)
    index.add([7], first)
    index.drop([7])
    index.add([7], second)

    (near,) = index.search(second, 3)
    assert near.id == 7
    assert near.similarity > 0.9


def test_worn_cells_are_left_for_new_ones_while_vectors_are_added():
    index = GrowingIndex(WIDTH, exact_below=20)
    vectors = rows(900)
    index.add(range(400), vectors[:400])
    index.drop(range(300))
    for number in range(400, 900):
        index.add([number], vectors[number])

    assert len(index) == 600
    assert index.cells is not None
    assert not index.cells.is_worn
    found = [index.search(vectors[number], 1)[0].id for number in range(300, 900, 20)]
    assert found == list(range(300, 900, 20))
    assert all(near.id >= 300 for near in index.search(vectors[0], 50))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=60))
def test_any_sequence_leaves_what_a_dictionary_would_hold(kind, steps):
    index = KINDS[kind](WIDTH)
    vectors = rows(41)
    kept: set[int] = set()
    for is_add, number in steps:
        if is_add and number not in kept:
            index.add([number], vectors[number])
            kept.add(number)
        elif not is_add:
            assert index.drop([number]) == (number in kept)
            kept.discard(number)

    assert len(index) == len(kept)
    assert {near.id for near in index.search(vectors[0], 100)} == kept


def crowded(count: int) -> np.ndarray:
    """Return vectors that crowd around few topics, which no search may get lost among."""
    topics, noise = rows(5, seed=3), np.random.default_rng(4).normal(size=(count, WIDTH))
    found = topics[np.arange(count) % 5] + 0.1 * noise
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_cells_find_a_paraphrase_among_crowds_without_looking_everywhere():
    vectors = crowded(8000)
    index = CellIndex(WIDTH, encoded(vectors[:: 8000 // cells_for(8000)]))
    index.add(range(8000), vectors)
    asked = vectors[::80] + 0.01 * rows(100, seed=5)

    found = [index.search(row, 1)[0].id for row in asked]

    assert sum(a == b for a, b in zip(found, range(0, 8000, 80), strict=True)) >= 98
    assert index.probed < cells_for(8000)


def test_fuller_cells_are_looked_into_less_and_a_copy_does_alike(monkeypatch):
    monkeypatch.setattr(cells, "_LOOKED_AT", 1000)
    monkeypatch.setattr(cells, "_MEASURED_EVERY", 100)
    index = CellIndex(WIDTH, encoded(rows(200)))
    index.add(range(900), rows(900))
    before = index.probed
    index.add(range(900, 9000), rows(8100, seed=1))
    again = CellIndex.restored(WIDTH, *index.dumped())

    assert before > index.probed == again.probed
    assert again.search(rows(1), 3) == index.search(rows(1), 3)


def test_cells_that_grew_too_full_are_left_for_more_of_them():
    index = GrowingIndex(WIDTH, exact_below=20)
    vectors = crowded(4000)
    for start in range(0, 4000, 20):
        index.add(range(start, start + 20), vectors[start : start + 20])

    assert index.cells is not None
    assert not index.cells.is_worn
    assert len(index) == 4000
    found = [index.search(vectors[number], 1)[0].id for number in range(0, 4000, 100)]
    assert found == list(range(0, 4000, 100))
