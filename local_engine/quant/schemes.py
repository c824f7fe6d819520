"""Which form a weight takes for a scheme, as tensors that can be kept, and as a product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from local_engine.native import settled
from local_engine.native.products import NativeProduct
from local_engine.quant.codebook import NF4_BLOCK, Fp8Linear, Nf4Linear, fp8_pack, nf4_pack
from local_engine.quant.grid import GROUPS, Grid, fit_group, int4_grid
from local_engine.quant.int4 import Int4Linear
from local_engine.quant.int8 import Int8Head, Int8Linear, int8_pack
from local_engine.quant.linear import Linear, PlainLinear

Quantization = Literal[
    "none", "as-stored", "int8", "int4", "int4-g32", "int4-g64", "int4-g128", "nf4", "fp8"
]
PackedKind = Literal["int8", "int4", "nf4", "fp8"]
SCHEMES: tuple[Quantization, ...] = (
    "none",
    "as-stored",
    "int8",
    "int4",
    "int4-g32",
    "int4-g64",
    "int4-g128",
    "nf4",
    "fp8",
)
_INT4_GROUPS = {"int4": 64, "int4-g32": 32, "int4-g64": 64, "int4-g128": 128}


@dataclass(frozen=True, slots=True)
class Packed:
    """A quantized weight as tensors to keep: `kind` says what they mean."""

    kind: PackedKind
    values: Tensor
    scale: Tensor
    offset: Tensor | None = None

    def to(self, device: torch.device) -> Packed:
        """Return the same weight on a device."""
        offset = None if self.offset is None else self.offset.to(device)
        return Packed(self.kind, self.values.to(device), self.scale.to(device), offset)


def quantize(weight: Tensor, scheme: Quantization) -> Packed:
    """Quantize a `[out, in]` weight.

    One whose inputs no group divides becomes int8, which asks nothing of them.
    """
    columns = weight.shape[1]
    if scheme in _INT4_GROUPS and (group := fit_group(columns, _INT4_GROUPS[scheme])):
        grid = int4_grid(weight, group)
        q = grid.q[:, 0::2] | grid.q[:, 1::2] << 4
        return Packed("int4", q, grid.scale, grid.offset)
    if scheme == "nf4" and columns % NF4_BLOCK == 0:
        return Packed("nf4", *nf4_pack(weight))
    if scheme == "fp8":
        return Packed("fp8", *fp8_pack(weight))
    return Packed("int8", *int8_pack(weight))


def restore(packed: Packed, bias: Tensor | None) -> Linear:
    """Make a product of a quantized weight."""
    match packed.kind:
        case "int4":
            return Int4Linear(unpacked_grid(packed), bias)
        case "nf4":
            return Nf4Linear(packed.values, packed.scale, bias)
        case "fp8":
            return Fp8Linear(packed.values, packed.scale, bias)
        case "int8":
            return Int8Linear(packed.values, packed.scale, bias)


def unpacked_grid(packed: Packed) -> Grid:
    """Return the integers of a 4-bit weight, one a byte."""
    q = torch.stack((packed.values & 15, packed.values >> 4), dim=-1).flatten(1)
    offset = torch.zeros_like(packed.scale) if packed.offset is None else packed.offset
    return Grid(q, packed.scale, offset, 4)


def make_linear(weight: Tensor, bias: Tensor | None, scheme: Quantization) -> Linear:
    """Wrap a `[out, in]` weight as the policy asks."""
    if scheme in ("none", "as-stored"):
        return PlainLinear(settled(weight), bias)
    return restore(quantize(weight, scheme), bias)


def make_head(weight: Tensor, scheme: Quantization) -> Linear:
    """Wrap the product that gives the logits.

    It has 8 bits in every scheme: a wrong step here is a wrong token.
    """
    if scheme in ("none", "as-stored"):
        return PlainLinear(settled(weight))
    return Int8Head(*int8_pack(weight))


def grid_linear(grid: Grid, bias: Tensor | None) -> Linear:
    """Make a product of integers that somebody else chose, keeping them where that can be.

    4 bits keep their integers in groups that the kernel knows; other integers are
    rounded again, to 8 bits a channel.
    """
    group = fit_group(grid.group, GROUPS[-1])
    if grid.bits == 4 and group is not None:
        times = grid.group // group
        scale, offset = (t.repeat_interleave(times, dim=1) for t in (grid.scale, grid.offset))
        return Int4Linear(Grid(grid.q, scale, offset, 4, grid.order), bias)
    is_plain_int8 = grid.bits == 8 and grid.scale.shape[1] == 1 and grid.order is None
    if is_plain_int8 and torch.equal(grid.offset, -128 * grid.scale):
        values = (grid.q.to(torch.int16) - 128).to(torch.int8)
        return Int8Linear(values, grid.scale[:, 0].to(torch.bfloat16), bias)
    return Int8Linear(*int8_pack(grid.dequantize()), bias)


def bytes_per_weight(scheme: Quantization, dtype: torch.dtype) -> float:
    """Return about what a number of a matrix takes in memory."""
    if scheme in ("none", "as-stored"):
        return dtype.itemsize
    return 0.625 if scheme in _INT4_GROUPS or scheme == "nf4" else 1.0


def native_product(linear: Linear) -> NativeProduct | None:
    """Return the native loop that does all of a product for few rows, if one does."""
    if isinstance(linear, PlainLinear):
        return linear.native
    if isinstance(linear, Int8Linear):
        return linear.native
    return linear.native if isinstance(linear, Int4Linear) and linear.order is None else None
