"""Attention of single tokens over pages where they lie, in the native loops."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from local_engine.attention.spec import AttentionSpec
from local_engine.batch import Walk
from local_engine.kv import PagedKv
from local_engine.native import Native
from local_engine.native.library import structure


def attend(
    native: Native,
    q: Tensor,
    layer: int,
    walk: Walk,
    cache: PagedKv,
    spec: AttentionSpec,
) -> Tensor:
    """Attend one token of each sequence, `[sequences, heads, d]`; return the same shape."""
    q = q.contiguous()
    out = torch.empty_like(q)
    keys, values = cache.keys[layer], cache.values[layer]
    walks = (place.buffer_info()[0] for place in (walk.pages, walk.begins, walk.ends))
    tensors = (q.data_ptr(), keys.data_ptr(), values.data_ptr(), out.data_ptr())
    sequences, heads, size = q.shape
    sizes = (sequences, heads, keys.shape[1], size, cache.page_size, spec.window or 0)
    settings = (spec.scale, spec.soft_cap or 0.0, q.dtype == torch.bfloat16, native.threads)
    call = _Attention(*tensors, *walks, *sizes, *settings)
    if native.library.frugal_attend(ctypes.byref(call)):
        raise MemoryError("no memory for attention")
    return out


_Attention = structure(
    "_Attention",
    pointers="q keys values out pages begins ends",
    longs="sequences heads kv_heads size page_size window",
    floats="scale cap",
    ints="is_bf16 threads",
)
