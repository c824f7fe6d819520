"""Which code computes attention here: Triton's kernels where they are right, else torch."""

from __future__ import annotations

import functools
import importlib.util
import logging

import torch
from torch import Tensor

from local_engine.attention import paged
from local_engine.attention.spec import AttentionSpec
from local_engine.batch import Batch, Segment
from local_engine.kv import KvShape, PagedKv

log = logging.getLogger(__name__)

_TOLERANCE = 2e-2
"""In bf16, beside values of about one."""


def write_and_attend(
    layer: int, q: Tensor, k: Tensor, v: Tensor, step: Batch, cache: PagedKv, spec: AttentionSpec
) -> Tensor:
    """Store this step's keys and values of a layer, then attend to all that is visible.

    `q` is `[tokens, heads, d]`, `k` and `v` `[tokens, kv_heads, d]`, with positions already
    turned in. Returns `[tokens, heads * d]`.
    """
    cache.write(layer, step.slots, k, v)
    if q.is_cuda and cache.is_plain and has_kernels(q.device):
        from local_engine.attention import triton_paged

        return triton_paged.attend(q, layer, step, cache, spec).flatten(1)
    return paged.attend(q, layer, step, cache, spec).flatten(1)


@functools.cache
def has_kernels(device: torch.device) -> bool:
    """Tell whether Triton's kernels run on a device and give there what torch gives.

    Compiled for a device that nobody has tried, a kernel may fail or, worse, be wrong, so
    a small step is computed both ways first.
    """
    if importlib.util.find_spec("triton") is None:
        return False
    try:
        distance = _distance(device)
    except Exception as exc:  # whatever a compiler throws, torch's own attention is there
        log.warning("Triton's attention does not run on %s, torch's is used: %s", device, exc)
        return False
    if distance > _TOLERANCE:
        log.warning("Triton's attention is off by %.3f on %s, torch's is used", distance, device)
    return distance <= _TOLERANCE


def _distance(device: torch.device) -> float:
    """Compute a decoding token and a chunk both ways; return the largest difference."""
    from local_engine.attention import triton_paged

    generator = torch.Generator().manual_seed(0)
    # Triton's interpreter, which stands in for a GPU in tests, knows no bf16.
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
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
