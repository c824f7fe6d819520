"""Which code computes attention here: Triton's kernels where they are right, else torch."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from local_engine.attention import native_paged, paged
from local_engine.attention.spec import AttentionSpec
from local_engine.batch import Batch, Segment
from local_engine.kv import KvShape, PagedKv
from local_engine.native import Native, native_for
from local_engine.native.library import LANES
from local_engine.trial import agrees, passes, trial_dtype, worst

TOLERANCE = 2e-2
"""In bf16, beside values of about one."""


def write_and_attend(
    layer: int, q: Tensor, k: Tensor, v: Tensor, step: Batch, cache: PagedKv, spec: AttentionSpec
) -> Tensor:
    """Store this step's keys and values of a layer, then attend to all that is visible.

    `q` is `[tokens, heads, d]`, `k` and `v` `[tokens, kv_heads, d]`, with positions already
    turned in. Returns `[tokens, heads * d]`.
    """
    cache.write(layer, step.slots, k, v)
    return attend_written(layer, q, step, cache, spec)


def attend_written(
    layer: int, q: Tensor, step: Batch, cache: PagedKv, spec: AttentionSpec
) -> Tensor:
    """Attend where this step's keys and values are stored already."""
    if q.is_cuda and cache.is_plain and has_kernels(q.device):
        from local_engine.attention import triton_paged

        return triton_paged.attend(q, layer, step, cache, spec).flatten(1)
    if step.walk is not None and (native := _native_for(q, cache)) is not None:
        return native_paged.attend(native, q, layer, step.walk, cache, spec).flatten(1)
    return paged.attend(q, layer, step, cache, spec).flatten(1)


def _native_for(q: Tensor, cache: PagedKv) -> Native | None:
    """Return the native loops where they know the cache and the heads, and sums may round."""
    is_fit = cache.is_plain and q.dtype == torch.bfloat16
    native = native_for(q.device) if is_fit and not q.shape[-1] % LANES else None
    return native if native is not None and has_native_attention(native) else None


@functools.cache
def has_native_attention(native: Native) -> bool:
    """Tell whether the native loops give what torch gives."""
    return agrees(
        "native attention", torch.device("cpu"), 1e-5, lambda device: _native_distance(native)
    )


def _native_distance(native: Native) -> float:
    """Compute tokens over scattered pages both ways; return the largest difference."""
    generator = torch.Generator().manual_seed(0)
    cache = PagedKv(KvShape(1, 2, 64), 12, torch.float32, torch.device("cpu"))
    for pool in (cache.keys[0], cache.values[0]):
        pool.copy_(torch.randn(pool.shape, generator=generator))
    step = Batch([Segment([7, 2, 9, 4, 1], 70, (0,), unbroken=5), Segment([3], 0, (0,))], cache)
    q = torch.randn(2, 6, 64, generator=generator)
    distances = []
    for window, cap in ((None, None), (20, 2.0)):
        spec = AttentionSpec(0.125, window, cap)
        assert step.walk is not None
        ours = native_paged.attend(native, q, 0, step.walk, cache, spec)
        distances.append(float((ours - paged.attend(q, 0, step, cache, spec)).abs().max()))
    return worst(*distances)


@functools.cache
def has_kernels(device: torch.device) -> bool:
    """Tell whether Triton's kernels run on a device and give there what torch gives."""
    return passes("attention", device, TOLERANCE, distance)


def distance(device: torch.device) -> float:
    """Compute a decoding token and a chunk both ways; return the largest difference."""
    from local_engine.attention import triton_paged

    generator = torch.Generator().manual_seed(0)
    dtype = trial_dtype(device)
    cache = PagedKv(KvShape(1, 2, 64), 12, dtype, device)
    for pool in (cache.keys[0], cache.values[0]):
        pool.copy_(torch.randn(pool.shape, generator=generator))
    segments = [
        Segment([7, 2, 9, 4, 1], 70, (0,), unbroken=5),
        Segment([3, 8, 5], 20, (0,) * 25, unbroken=3),
    ]
    step, spec = Batch(segments, cache), AttentionSpec(0.125)
    q = torch.randn(26, 6, 64, generator=generator).to(device, dtype)
    ours = triton_paged.attend(q, 0, step, cache, spec)
    return float((ours - paged.attend(q, 0, step, cache, spec)).abs().max())
