"""Attention over pages against the sum written out."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from local_engine.attention import AttentionSpec, write_and_attend
from local_engine.batch import Batch, Segment
from local_engine.kv import KvShape, PagedKv
from local_engine.pages import PageTable

SIZE = 4
SHAPE = KvShape(layers=2, kv_heads=2, head_dim=8)
CPU = torch.device("cpu")


def written_out(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, spec: AttentionSpec
) -> torch.Tensor:
    """Attend one query `[heads, d]` to all it sees of `[length, kv_heads, d]`."""
    if spec.window is not None:
        k, v = k[-spec.window :], v[-spec.window :]
    group = q.shape[0] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = torch.einsum("hd,lhd->hl", q, k) * spec.scale
    if spec.soft_cap is not None:
        scores = spec.soft_cap * torch.tanh(scores / spec.soft_cap)
    return torch.einsum("hl,lhd->hd", scores.softmax(-1), v).flatten()


SPECS = st.builds(
    AttentionSpec,
    scale=st.sampled_from((8**-0.5, 0.2)),
    window=st.none() | st.integers(1, 24),
    soft_cap=st.none() | st.just(1.5),
)


@given(seed=st.integers(0, 10**6), spec=SPECS, data=st.data())
def test_every_token_attends_to_what_came_before_it_wherever_that_lies(
    seed: int, spec: AttentionSpec, data: st.DataObject
) -> None:
    torch.manual_seed(seed)
    pages = torch.randperm(60).add(1).tolist()
    if data.draw(st.booleans()):
        pages.sort()
    cache = PagedKv(SHAPE, 60, torch.float32, CPU, SIZE)
    counts = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    segments, texts = [], []
    for count in sorted(counts):
        start = data.draw(st.integers(0, 28))
        table = PageTable()
        for _ in range(-(-(start + count) // SIZE)):
            table.append(pages.pop(0))
        k, v = torch.randn(2, start + count, 2, 8)
        slots = torch.tensor([table.pages[n // SIZE] * SIZE + n % SIZE for n in range(start)])
        cache.write(1, slots.long(), k[:start], v[:start])
        segments.append(Segment(table.pages, start, (0,) * count, table.unbroken))
        texts.append((start, count, k, v))
    q = torch.randn(sum(counts), 4, 8)
    new_k, new_v = (torch.cat([t[n][t[0] :] for t in texts]) for n in (2, 3))
    found = write_and_attend(1, q, new_k, new_v, Batch(segments, cache), cache, spec)

    row = 0
    for start, count, k, v in texts:
        for end in range(start + 1, start + count + 1):
            wanted = written_out(q[row], k[:end], v[:end], spec)
            assert torch.allclose(found[row], wanted, atol=1e-5)
            row += 1
    assert not cache.keys[0].any()


def test_padding_reads_nothing_that_is_not_finite() -> None:
    cache = PagedKv(SHAPE, 8, torch.float32, CPU, SIZE)
    cache.write(0, torch.tensor([33]), *torch.full((2, 1, 2, 8), math.nan))
    segments = [Segment([n], 0, (0,)) for n in range(1, 5)] + [Segment([5, 6], 4, (0,))]
    q, kv = torch.randn(5, 4, 8), torch.randn(5, 2, 8)
    batch = Batch(segments, cache)

    assert write_and_attend(0, q, kv, kv, batch, cache, AttentionSpec(0.3)).isfinite().all()
