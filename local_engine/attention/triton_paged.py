"""Attention over pages by Triton's kernels: how a step is cut up for them."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from local_engine.attention.spec import AttentionSpec
from local_engine.attention.triton_kernels import decode_kernel, merge_kernel, prefill_kernel
from local_engine.batch import Batch
from local_engine.kv import PagedKv

_KEYS = 64
_ROWS = 64
_SPLIT_TOKENS = 512
_MOST_SPLITS = 16


def attend(q: Tensor, layer: int, step: Batch, cache: PagedKv, spec: AttentionSpec) -> Tensor:
    """Attend `[tokens, heads, d]` to the pages of a layer; return the same shape."""
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    layout = step.layout
    if layout.decoding:
        _decode(q, out, layer, step, cache, spec)
    if len(layout.tiles(_tile(q, cache))):
        _prefill(q, out, layer, step, cache, spec)
    return out


def _tile(q: Tensor, cache: PagedKv) -> int:
    """Return how many query tokens one program takes."""
    group: int = q.shape[1] // cache.keys[0].shape[1]
    return max(1, _ROWS // group)


def _decode(
    q: Tensor, out: Tensor, layer: int, step: Batch, cache: PagedKv, spec: AttentionSpec
) -> None:
    keys, values = cache.keys[layer], cache.values[layer]
    layout, kv_heads, size = step.layout, keys.shape[1], keys.shape[2]
    group = q.shape[1] // kv_heads
    padded = max(16, triton.next_power_of_2(group))
    width = max(16, triton.next_power_of_2(size))
    splits = min(_MOST_SPLITS, max(1, layout.longest // _SPLIT_TOKENS))
    shape = (layout.decoding, kv_heads, splits, padded)
    sums = torch.empty((*shape, width), dtype=torch.float32, device=q.device)
    peaks = torch.empty((2, *shape), dtype=torch.float32, device=q.device)
    grid = (layout.decoding, kv_heads, splits)
    decode_kernel[grid](
        q, keys, values, sums, peaks[0], peaks[1], layout.tables, layout.ends,
        spec.scale, spec.window or 0, spec.soft_cap or 0.0,
        q.stride(0), q.stride(1), keys.stride(0), keys.stride(1), layout.tables.stride(0),
        GROUP=group, D=size, PAGE=cache.page_size, KEYS=_KEYS, PADDED=padded, WIDTH=width,
        SPLITS=splits, HAS_WINDOW=spec.window is not None, HAS_CAP=spec.soft_cap is not None,
    )  # fmt: skip
    merge_kernel[grid[:2]](
        sums, peaks[0], peaks[1], out, out.stride(0), out.stride(1),
        GROUP=group, D=size, PADDED=padded, WIDTH=width, SPLITS=splits,
    )  # fmt: skip


def _prefill(
    q: Tensor, out: Tensor, layer: int, step: Batch, cache: PagedKv, spec: AttentionSpec
) -> None:
    keys, values = cache.keys[layer], cache.values[layer]
    layout, kv_heads, size = step.layout, keys.shape[1], keys.shape[2]
    group = q.shape[1] // kv_heads
    tile = _tile(q, cache)
    tiles = layout.tiles(tile)
    prefill_kernel[(len(tiles), kv_heads)](
        q, keys, values, out, tiles, layout.tables,
        spec.scale, spec.window or 0, spec.soft_cap or 0.0,
        q.stride(0), q.stride(1), keys.stride(0), keys.stride(1), layout.tables.stride(0),
        out.stride(0), out.stride(1),
        GROUP=group, D=size, PAGE=cache.page_size, KEYS=_KEYS,
        ROWS=max(16, triton.next_power_of_2(tile * group)),
        WIDTH=max(16, triton.next_power_of_2(size)),
        HAS_WINDOW=spec.window is not None, HAS_CAP=spec.soft_cap is not None,
    )  # fmt: skip
