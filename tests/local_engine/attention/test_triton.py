"""Triton's kernels against the torch path, run by Triton's interpreter where there is no GPU."""

# ruff: noqa: E402 - kernels are imported only where they can be run

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch

from tests.local_engine.interpreter import require_interpreter

require_interpreter()

from local_engine.attention import AttentionSpec, paths, triton_paged, write_and_attend
from local_engine.attention.triton_paged import attend
from local_engine.batch import Batch, Segment
from local_engine.kv import KvShape, PagedKv

CPU = torch.device("cpu")
SIZE = 16
CASES = [
    [(70, 1)],
    [(5, 1), (130, 1), (64, 1)],
    [(0, 40)],
    [(9, 1), (0, 3), (100, 75)],
]
SPECS = [
    AttentionSpec(0.25),
    AttentionSpec(0.25, window=48),
    AttentionSpec(0.25, soft_cap=2.0),
    AttentionSpec(0.25, window=5, soft_cap=2.0),
]
SHAPES = [(4, 2, 16), (7, 1, 40)]


def segments_of(case: list[tuple[int, int]], pages: Iterator[int]) -> list[Segment]:
    """Lay out (start, count) on scattered pages."""
    made = []
    for start, count in case:
        own = list(itertools.islice(pages, -(-(start + count) // SIZE)))
        made.append(Segment(own, start, (0,) * count, unbroken=len(own)))
    return made


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernels_equal_the_torch_path(
    case: list[tuple[int, int]], spec: AttentionSpec, shape: tuple[int, int, int]
) -> None:
    heads, kv_heads, size = shape
    generator = torch.Generator().manual_seed(1)
    cache = PagedKv(KvShape(1, kv_heads, size), 30, torch.float32, CPU, SIZE)
    cache.keys[0][SIZE:] = torch.randn(cache.keys[0][SIZE:].shape, generator=generator)
    cache.values[0][SIZE:] = torch.randn(cache.values[0][SIZE:].shape, generator=generator)
    segments = segments_of(case, iter(torch.randperm(30, generator=generator).add(1).tolist()))
    batch = Batch(segments, cache)
    q = torch.randn(len(batch.ids), heads, size, generator=generator)
    k, v = torch.randn(2, len(batch.ids), kv_heads, size, generator=generator)
    wanted = write_and_attend(0, q, k, v, batch, cache, spec)

    found = attend(q, 0, batch, cache, spec)

    assert torch.allclose(found.flatten(1), wanted, atol=1e-5)


def test_a_long_context_is_split_and_merged() -> None:
    generator = torch.Generator().manual_seed(2)
    cache = PagedKv(KvShape(1, 1, 16), 130, torch.float32, CPU, SIZE)
    cache.keys[0][:] = torch.randn(cache.keys[0].shape, generator=generator)
    cache.values[0][:] = torch.randn(cache.values[0].shape, generator=generator)
    pages = torch.randperm(130, generator=generator).add(1).tolist()
    batch = Batch([Segment(pages[:2], 20, (0,), 2), Segment(pages[2:], 1999, (0,), 128)], cache)
    q, (k, v) = torch.randn(2, 2, 16, generator=generator), torch.randn(2, 2, 1, 16)
    spec = AttentionSpec(0.3)
    wanted = write_and_attend(0, q, k, v, batch, cache, spec)

    assert torch.allclose(attend(q, 0, batch, cache, spec).flatten(1), wanted, atol=1e-5)


def test_kernels_are_tried_on_a_device_before_they_are_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(paths, "has_kernels", paths.has_kernels.__wrapped__)
    assert paths.has_kernels(CPU)
    right = triton_paged.attend

    def broken(*inputs: object) -> torch.Tensor:
        raise RuntimeError("no such instruction")

    def wrong(*inputs: object) -> torch.Tensor:
        return right(*inputs) + 1  # type: ignore[arg-type]

    for bad in (broken, wrong):
        monkeypatch.setattr(triton_paged, "attend", bad)
        assert not paths.has_kernels(CPU)
    assert "no such instruction" in caplog.text
    assert "off by" in caplog.text
