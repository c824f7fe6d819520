"""Products by Triton's kernels: how one is cut up, and where the stretches meet."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from local_engine.quant.triton_kernels import int4_kernel, int8_kernel, merge_kernel

_BLOCK = 1024
_MOST_SPLITS = 32
_WAVES = 4
"""Programs for each multiprocessor: enough to have reads under way while others wait."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How a product is cut: rows, outputs and inputs that one program takes at once."""

    rows: int
    outputs: int
    depth: int
    warps: int = 4


def int8_cut(rows: int) -> Cut:
    """Return how a product of so many rows with int8 weights is cut."""
    if rows == 1:
        return Cut(1, 16, 512)
    return Cut(max(16, triton.next_power_of_2(rows)), 32, 256) if rows <= 16 else Cut(64, 64, 128)


def int4_cut(rows: int, group: int) -> Cut:
    """Return the same for 4-bit weights, whose blocks lie within a group; outputs are bytes."""
    depth = min(group, 128)
    if rows == 1:
        return Cut(1, 128, depth)
    return Cut(16, 64, depth) if rows <= 16 else Cut(64, 64, min(depth, 64))


def int8_product(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    dtype: torch.dtype | None = None,
    cut: Cut | None = None,
) -> Tensor:
    """Return `(x weightᵀ) scale + bias` for int8 or fp8 `[outputs, inputs]`, a scale an output."""
    x = x.contiguous()
    (rows, inputs), outputs = x.shape, len(weight)
    cut = cut or int8_cut(rows)
    splits = _splits(rows, outputs, inputs, cut, x.device)
    out = torch.empty(rows, outputs, dtype=dtype or x.dtype, device=x.device)
    parts = out if splits == 1 else _room(splits, out)
    int8_kernel[_grid(rows, outputs, splits, cut)](
        x, weight, scale, _or(bias, scale), parts,
        rows, inputs, outputs, x.stride(0), weight.stride(0),
        ROWS=cut.rows, OUTPUTS=cut.outputs, DEPTH=cut.depth, SPLITS=splits,
        HAS_BIAS=bias is not None, num_warps=cut.warps,
    )  # fmt: skip
    return out if splits == 1 else _merged(parts, out, scale, bias)


def int4_product(
    x: Tensor,
    packed: Tensor,
    pair: Tensor,
    outputs: int,
    bias: Tensor | None = None,
    *,
    cut: Cut | None = None,
) -> Tensor:
    """Return the product with 4-bit weights as `Int4Linear` packs them off the CPU.

    `packed` is uint8 `[inputs, half]`, `pair` `[groups, 2 half, 2]` of scales and middles.
    """
    x = x.contiguous()
    (rows, inputs), half = x.shape, packed.shape[1]
    group = inputs // len(pair)
    cut = cut or int4_cut(rows, group)
    splits = _splits(rows, half, inputs, cut, x.device)
    out = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    parts = out if splits == 1 else _room(splits, out)
    int4_kernel[_grid(rows, half, splits, cut)](
        x, packed, pair, _or(bias, pair), parts,
        rows, inputs, outputs, half, x.stride(0),
        ROWS=cut.rows, OUTPUTS=cut.outputs, DEPTH=cut.depth, SPLITS=splits, GROUP=group,
        HAS_BIAS=bias is not None, num_warps=cut.warps,
    )  # fmt: skip
    return out if splits == 1 else _merged(parts, out, None, bias)


def _grid(rows: int, outputs: int, splits: int, cut: Cut) -> tuple[int, int, int]:
    return -(-outputs // cut.outputs), -(-rows // cut.rows), splits


def _splits(rows: int, outputs: int, inputs: int, cut: Cut, device: torch.device) -> int:
    """Return how many stretches keep the device busy, each at least two blocks long."""
    blocks = -(-outputs // cut.outputs) * -(-rows // cut.rows)
    wanted = -(-_WAVES * _multiprocessors(device) // blocks)
    return max(1, min(wanted, inputs // (2 * cut.depth), _MOST_SPLITS))


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":  # Triton's interpreter
        return 4
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def _room(splits: int, out: Tensor) -> Tensor:
    return torch.empty((splits, *out.shape), dtype=torch.float32, device=out.device)


def _or(bias: Tensor | None, other: Tensor) -> Tensor:
    """Return what stands where a kernel reads no bias."""
    return other if bias is None else bias


def _merged(parts: Tensor, out: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    merge_kernel[(-(-out.numel() // _BLOCK),)](
        parts, _or(scale, parts), _or(bias, parts), out, out.numel(), out.shape[1],
        SPLITS=len(parts), BLOCK=_BLOCK, HAS_SCALE=scale is not None, HAS_BIAS=bias is not None,
    )  # fmt: skip
    return out
