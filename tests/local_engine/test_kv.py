"""Rows of the cache: taken, grown, cleared, given back."""

from __future__ import annotations

from collections.abc import Callable

import torch

from local_engine.kv import KvCache, bytes_per_token
from local_engine.loader import LoadedModel

CPU = torch.device("cpu")
Load = Callable[[str], LoadedModel]


def cache_of(model: LoadedModel, rows: int = 3, context: int = 512) -> KvCache:
    return KvCache(model.config, rows, context, torch.float32, CPU)


def test_lowest_free_row_is_taken_first(loaded: Load) -> None:
    cache = cache_of(loaded("llama"))
    assert [cache.take() for _ in range(3)] == [0, 1, 2]
    assert not cache.has_free_row
    cache.release(2)
    cache.release(0)

    assert [cache.take(), cache.take()] == [0, 2]


def test_growing_keeps_what_was_written_and_stays_within_the_context(loaded: Load) -> None:
    cache = cache_of(loaded("llama"), context=400)
    k = torch.randn(2, 2, 16)
    cache.write(1, torch.tensor([0, 2]), torch.tensor([5, 255]), k, -k)
    cache.reserve(256)
    assert cache.capacity == 256
    cache.reserve(257)

    assert cache.capacity == 400
    assert torch.equal(cache.keys[1][2, :, 255], k[1])
    assert torch.equal(cache.values[1][0, :, 5], -k[0])
    assert not cache.keys[1][2, :, 256:].any()


def test_a_cleared_row_holds_nothing_of_the_one_before(loaded: Load) -> None:
    cache = cache_of(loaded("llama"))
    row = cache.take()
    nan = torch.full((1, 2, 16), float("nan"))
    cache.write(0, torch.tensor([row]), torch.tensor([3]), nan, nan)
    cache.release(row, clear=True)

    assert not cache.keys[0].any()
    assert not cache.values[0].any()


def test_cache_size_counts_keys_and_values_of_every_layer(loaded: Load) -> None:
    cache = cache_of(loaded("llama"))
    size = sum(t.nbytes for t in (*cache.keys, *cache.values))

    assert size == bytes_per_token(loaded("llama").config, torch.float32) * 3 * cache.capacity
