"""Pages of keys and values: written, read in one piece or many, copied, cleared."""

from __future__ import annotations

import torch

from local_engine.kv import Int8Kv, KvShape, PagedKv, bytes_per_token, make_kv

CPU = torch.device("cpu")
SHAPE = KvShape(layers=3, kv_heads=2, head_dim=8)


def cache_of(pages: int = 4, dtype: torch.dtype = torch.float32) -> PagedKv:
    return PagedKv(SHAPE, pages, dtype, CPU, page_size=4)


def test_what_is_written_is_read_in_one_piece_or_by_slots() -> None:
    cache = cache_of()
    k = torch.randn(3, 2, 8)
    cache.write(1, torch.tensor([5, 6, 13]), k, -k)

    keys, values = cache.read(1, slice(5, 7))
    assert torch.equal(keys, k[None, :2].transpose(1, 2))
    assert torch.equal(values, -keys)
    keys, values = cache.read(1, torch.tensor([[13, 5], [0, 6]]))
    assert keys.shape == (2, 2, 2, 8)
    assert torch.equal(keys[0].transpose(0, 1), k[[2, 0]])
    assert not values[1, :, 0].any()
    assert not cache.keys[0].any()


def test_reading_in_one_piece_copies_nothing() -> None:
    cache = cache_of()

    assert cache.read(2, slice(4, 9))[0].data_ptr() == cache.keys[2][4].data_ptr()


def test_a_copied_page_is_equal_in_every_layer_and_its_own() -> None:
    cache = cache_of()
    for layer in range(3):
        k = torch.randn(4, 2, 8)
        cache.write(layer, torch.arange(4, 8), k, k + 1)
    cache.copy(1, 3)
    for layer in range(3):
        assert torch.equal(cache.keys[layer][4:8], cache.keys[layer][12:16])
        assert torch.equal(cache.values[layer][4:8], cache.values[layer][12:16])
    cache.write(0, torch.tensor([12]), torch.zeros(1, 2, 8), torch.zeros(1, 2, 8))

    assert cache.keys[0][4].any()


def test_a_cleared_page_holds_nothing_of_the_one_before() -> None:
    cache = cache_of()
    nan = torch.full((1, 2, 8), float("nan"))
    cache.write(0, torch.tensor([9]), nan, nan)
    cache.clear([2])

    assert not cache.keys[0].any()
    assert not cache.values[0].any()


def test_cache_size_counts_keys_and_values_of_every_layer() -> None:
    cache = cache_of(pages=4)
    size = sum(t.nbytes for t in (*cache.keys, *cache.values))

    assert size == bytes_per_token(SHAPE, torch.float32) * (4 + 1) * 4


def test_int8_values_are_within_half_a_step_and_take_what_is_said() -> None:
    cache = make_kv("int8", SHAPE, 2, torch.float32, CPU)
    k, v = torch.randn(2, 5, 2, 8)
    cache.write(1, torch.arange(16, 21), k, v)
    one_piece = cache.read(1, slice(16, 21))
    by_slots = cache.read(1, torch.arange(16, 21)[None])

    for x, piece, gathered in zip((k, v), one_piece, by_slots, strict=True):
        assert torch.equal(piece, gathered)
        step = x.abs().amax(-1, keepdim=True) / 127
        assert ((piece[0].transpose(0, 1) - x).abs() <= step * 0.51 + x.abs() * 2**-8).all()
    size = sum(store.nbytes for store in cache._stores)
    assert size == bytes_per_token(SHAPE, torch.float32, "int8") * 3 * 16


def test_int8_pages_are_copied_and_cleared_with_their_scales() -> None:
    cache = Int8Kv(SHAPE, 3, torch.float32, CPU, page_size=4)
    k = torch.randn(1, 2, 8)
    cache.write(0, torch.tensor([4]), k, torch.full((1, 2, 8), float("nan")))
    cache.copy(1, 3)
    assert torch.equal(cache.read(0, slice(12, 13))[0], cache.read(0, slice(4, 5))[0])
    cache.clear([1, 3])

    assert not any(store.any() for store in cache._stores)
