"""Products of few rows with a weight as it was loaded, for CPUs with bf16 arithmetic.

On one core of a Xeon with AMX, `linear` reads a bf16 weight of 768 columns at 6.9 GB/s,
whatever the rows; `mv` reads it at 10.9, and the product the other way round at 10 to 11
from two rows to sixteen. Above some thirty rows turning the result back costs the gain.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

_FEW = 32


def plain_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return `x weightᵀ + bias` by the quickest way for so many rows."""
    if weight.dtype != torch.bfloat16 or x.shape[0] > _FEW or not _prefers_columns(x.device.type):
        return F.linear(x, weight, bias)
    if x.shape[0] == 1:
        y = torch.mv(weight, x[0])[None]
    else:
        y = torch.mm(weight, x.t()).t().contiguous()
    return y if bias is None else y + bias


@functools.cache
def _prefers_columns(device: str) -> bool:
    """Tell whether products run on a CPU that computes in bf16."""
    return device == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
