"""Tokens laid end to end, and attention against the sum written out."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from local_engine.batch import Batch, ChunkPart, DecodePart, Segment

CPU = torch.device("cpu")


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
