from __future__ import annotations

import numpy as np
import pytest

from cache.fingerprint import fingerprint
from cache.index.codes import encoded
from cache.index.growing import GrowingIndex
from cache.semantic import mirror as mirrored
from cache.semantic.mirror import Mirror
from cache.semantic.snapshots import Snapshots
from cache.semantic.store import AnswerStore
from cache.types import CachedReply

WIDTH = 32
SCOPE = fingerprint("acme", "auto", "1", {})


def rows(count, seed=0):
    found = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def fill(store, vectors, first=0):
    reply = CachedReply((b"{}",), False, "m", {}, 1.0, "m:served")
    for number, vector in enumerate(vectors, start=first):
        store.put(
            SCOPE, f"question {number}", encoded(vector).tobytes(), reply,
            answer="so", expires_at=99.0,
        )  # fmt: skip


def opened(store, folder, now=2.0):
    return Mirror(store, WIDTH, lambda: now, Snapshots(folder / store.identity, WIDTH))


def caught_up(mirror):
    while mirror.load_more():
        pass
    return mirror


def nearest(mirror, vector):
    return [found.question for _, found in mirror.nearest(SCOPE, vector, 1)]


@pytest.fixture(autouse=True)
def cells_begin_early(monkeypatch):
    monkeypatch.setattr(mirrored, "GrowingIndex", Early)


class Early(GrowingIndex):
    """An index that is in cells at once."""

    def __init__(self, width):
        super().__init__(width, exact_below=10)


@pytest.fixture
def store(tmp_path):
    with AnswerStore(tmp_path / "a.db", "v1") as found:
        yield found


def test_cells_of_the_last_run_are_taken_up_again(tmp_path, store):
    vectors = rows(300)
    fill(store, vectors[:250])
    caught_up(opened(store, tmp_path)).save()
    fill(store, vectors[250:], first=250)

    again = opened(store, tmp_path)

    assert nearest(again, vectors[3]) == ["question 3"]
    caught_up(again)
    assert [nearest(again, vectors[n]) for n in (3, 120, 249, 250, 299)] == [
        [f"question {n}"] for n in (3, 120, 249, 250, 299)
    ]
    assert len(again._scopes[SCOPE]) == 300


def test_what_was_dropped_since_the_snapshot_is_not_found(tmp_path, store):
    vectors = rows(100)
    fill(store, vectors)
    caught_up(opened(store, tmp_path)).save()
    store.drop(range(1, 40))

    again = caught_up(opened(store, tmp_path))

    assert nearest(again, vectors[5]) != ["question 5"]
    assert nearest(again, vectors[80]) == ["question 80"]


def test_a_damaged_snapshot_is_as_if_there_were_none(tmp_path, store):
    vectors = rows(100)
    fill(store, vectors)
    caught_up(opened(store, tmp_path)).save()
    (path,) = (tmp_path / store.identity).glob("*.cells")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    again = opened(store, tmp_path)

    assert nearest(again, vectors[5]) == []
    assert nearest(caught_up(again), vectors[5]) == ["question 5"]


def test_a_snapshot_belongs_to_one_file_and_one_embedder(tmp_path, store):
    with (
        AnswerStore(tmp_path / "b.db", "v1") as another,
        AnswerStore(tmp_path / "a.db", "v2") as newer,
        AnswerStore(tmp_path / "a.db", "v1") as same,
    ):
        assert same.identity == store.identity
        assert len({store.identity, another.identity, newer.identity}) == 3
