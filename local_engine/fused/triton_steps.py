"""The fused steps of a layer, on Triton's kernels."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from local_engine.fused.triton_kernels import add_norm_kernel, gate_kernel, turn_kernel
from local_engine.kv import PagedKv

_BLOCK = 1024


def add_norm(x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return `x + delta` and its norm, both `[rows, width]` in the type of x."""
    rows, width = x.shape
    total = x if delta is None else torch.empty_like(x)
    out = torch.empty_like(x)
    block = triton.next_power_of_2(width)
    add_norm_kernel[(rows,)](
        x, x if delta is None else delta, weight, total, out, width, eps,
        BLOCK=block, HAS_DELTA=delta is not None, num_warps=min(16, max(4, block // 512)),
    )  # fmt: skip
    return total, out


def turn_and_write(
    layer: int,
    qkv: Tensor,
    turn: tuple[Tensor, Tensor],
    norm: Tensor | None,
    eps: float,
    slots: Tensor,
    cache: PagedKv,
    heads: int,
) -> Tensor:
    """Return the turned queries `[rows, heads, d]` of `[rows, heads and both kv heads, d]`.

    Keys, turned, and values go to each row's slot. `norm` holds the weights of the norm of
    every query and key head, `[heads + kv_heads, d]`.
    """
    keys, values = cache.keys[layer], cache.values[layer]
    rows, _, size = qkv.shape
    kv_heads = keys.shape[1]
    cos, sin = turn
    q = torch.empty(rows, heads, size, dtype=qkv.dtype, device=qkv.device)
    turn_kernel[(rows, heads + 2 * kv_heads)](
        qkv, cos, sin, cos if norm is None else norm, slots, q, keys, values,
        eps, qkv.stride(0), keys.stride(0), cos.shape[-1],
        HEADS=heads, KV_HEADS=kv_heads, D=size, WIDTH=triton.next_power_of_2(size),
        HAS_NORM=norm is not None, num_warps=1,
    )  # fmt: skip
    return q


def gate(gate_up: Tensor, *, is_gelu: bool) -> Tensor:
    """Return `act(first half) * second half` of each row; gelu is that by tanh."""
    rows, both = gate_up.shape
    out = torch.empty(rows, both // 2, dtype=gate_up.dtype, device=gate_up.device)
    gate_kernel[(-(-out.numel() // _BLOCK),)](
        gate_up.contiguous(), out, out.numel(), both // 2, BLOCK=_BLOCK, IS_GELU=is_gelu
    )
    return out
