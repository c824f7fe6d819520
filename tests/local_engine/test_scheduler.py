"""Sharing a step, keeping rows, and laying tokens end to end."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from local_engine.batch import Batch, ChunkPart, DecodePart, Segment
from local_engine.kv import KvCache, bytes_per_token
from local_engine.loader import LoadedModel
from local_engine.scheduler import plan_step

CPU = torch.device("cpu")


@given(needs=st.lists(st.integers(1, 300), max_size=12), budget=st.integers(1, 256))
def test_decoding_always_advances_and_prompts_share_the_budget_in_order(
    needs: list[int], budget: int
) -> None:
    takes = plan_step(needs, budget)

    prompts = [(n, t) for n, t in zip(needs, takes, strict=True) if n > 1]
    assert all(t == 1 for n, t in zip(needs, takes, strict=True) if n == 1)
    assert all(0 <= t <= n for n, t in prompts)
    assert sum(t for _, t in prompts) == min(budget, sum(n for n, _ in prompts))
    unfinished = [i for i, (n, t) in enumerate(prompts) if t < n]
    assert not any(t for i in unfinished[:1] for _, t in prompts[i + 1 :])


def test_nothing_to_do_plans_nothing() -> None:
    assert plan_step([], 10) == []


def cache_of(model: LoadedModel, rows: int = 3, context: int = 512) -> KvCache:
    return KvCache(model.config, rows, context, torch.float32, CPU)


def test_lowest_free_row_is_taken_first(loaded) -> None:
    cache = cache_of(loaded("llama"))
    assert [cache.take() for _ in range(3)] == [0, 1, 2]
    assert not cache.has_free_row
    cache.release(2)
    cache.release(0)

    assert [cache.take(), cache.take()] == [0, 2]


def test_growing_keeps_what_was_written_and_stays_within_the_context(loaded) -> None:
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


def test_a_cleared_row_holds_nothing_of_the_one_before(loaded) -> None:
    cache = cache_of(loaded("llama"))
    row = cache.take()
    nan = torch.full((1, 2, 16), float("nan"))
    cache.write(0, torch.tensor([row]), torch.tensor([3]), nan, nan)
    cache.release(row, clear=True)

    assert not cache.keys[0].any()
    assert not cache.values[0].any()


def test_cache_size_counts_keys_and_values_of_every_layer(loaded) -> None:
    cache = cache_of(loaded("llama"))
    size = sum(t.nbytes for t in (*cache.keys, *cache.values))

    assert size == bytes_per_token(loaded("llama").config, torch.float32) * 3 * cache.capacity


def test_single_tokens_form_one_part_and_chunks_one_each() -> None:
    segments = [Segment(0, 9, (4,)), Segment(2, 3, (5,)), Segment(1, 0, (6, 7, 8))]
    batch = Batch.of(segments, CPU)

    assert batch.ids.tolist() == [4, 5, 6, 7, 8]
    assert batch.positions.tolist() == [9, 3, 0, 1, 2]
    assert batch.rows.tolist() == [0, 2, 1, 1, 1]
    assert batch.last.tolist() == [0, 1, 4]
    assert batch.longest == 10
    decode, chunk = batch.parts
    assert isinstance(decode, DecodePart)
    assert isinstance(chunk, ChunkPart)
    assert (decode.count, decode.height, decode.length) == (2, 3, 10)
    assert (chunk.begin, chunk.count, chunk.row, chunk.end) == (2, 3, 1, 3)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attend one query `[heads, d]` to `[kv_heads, length, d]`, written out."""
    group = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    weights = (torch.einsum("hd,hld->hl", q, k) * q.shape[-1] ** -0.5).softmax(-1)
    return torch.einsum("hl,hld->hd", weights, v)


@given(seed=st.integers(0, 10**6), data=st.data())
def test_attention_of_both_parts_equals_the_written_out_sum(seed: int, data: st.DataObject) -> None:
    torch.manual_seed(seed)
    rows = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=5, unique=True))
    rows.sort()
    ends = [data.draw(st.integers(1, 20)) for _ in rows]
    keys, values = torch.randn(5, 2, 24, 8), torch.randn(5, 2, 24, 8)
    q = torch.randn(len(rows), 4, 8)
    segments = [Segment(r, e - 1, (0,)) for r, e in zip(rows, ends, strict=True)]
    found = DecodePart.of(segments, CPU).attend(q, keys, values)
    for n, (row, end) in enumerate(zip(rows, ends, strict=True)):
        wanted = attention(q[n], keys[row, :, :end], values[row, :, :end])
        assert torch.allclose(found[n], wanted, atol=1e-5)

    start, count = data.draw(st.integers(0, 10)), data.draw(st.integers(2, 8))
    chunk = ChunkPart.of(0, Segment(rows[0], start, (0,) * count), CPU)
    q = torch.randn(count, 4, 8)
    found = chunk.attend(q, keys, values)
    for n in range(count):
        end = start + n + 1
        wanted = attention(q[n], keys[rows[0], :, :end], values[rows[0], :, :end])
        assert torch.allclose(found[n], wanted, atol=1e-5)
