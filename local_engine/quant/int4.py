"""Products with 4-bit weights in groups, by the native loops or on torch's packed kernel.

Both hold weights as w = (q - 8) s + z, with s and z per group of inputs.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from local_engine.native import native_for
from local_engine.native.products import Int4Product
from local_engine.quant.grid import GROUPS, Grid
from local_engine.quant.paths import MOST_ROWS, takes_triton

# Above this many rows one expansion of the weight is cheaper than the packed kernel,
# whose time grows with the rows.
_PACKED_ROWS = 48
# The same for the native loops, on a Xeon with AMX.
_NATIVE_ROWS = 192
_BLOCK = 64


class Int4Linear:
    """A product with 4-bit weights, half a byte each beside two bf16 numbers a group."""

    def __init__(self, grid: Grid, bias: Tensor | None = None) -> None:
        if grid.bits != 4 or grid.group not in GROUPS:
            raise ValueError(f"expected 4 bits in groups of {GROUPS}, found {grid.bits} bits")
        self.bias = bias
        self.order = grid.order
        self.outputs = len(grid.q)
        self.group = grid.group
        self.native: Int4Product | None = None
        self._has_kernel = self._is_triton = False
        if (native := native_for(grid.q.device)) is not None:
            middle = grid.offset + 8 * grid.scale
            self.native = Int4Product(native, grid.q, grid.scale, middle, bias)
            return
        self._has_kernel = has_int4_kernel(grid.q.device.type)
        self._is_triton = not self._has_kernel and takes_triton(grid.q.device)
        padding = -self.outputs % _BLOCK
        q = F.pad(grid.q, (0, 0, 0, padding), value=8)
        pair = torch.stack((grid.scale, grid.offset + 8 * grid.scale), dim=-1)
        # [in / group, out, 2], as the kernel reads it.
        self.pair = F.pad(pair, (0, 0, 0, 0, 0, padding)).transpose(0, 1).to(torch.bfloat16)
        self.pair = self.pair.contiguous()
        self.packed = _pack(q) if self._has_kernel else _pack_plain(q)

    def __call__(self, x: Tensor) -> Tensor:
        if self.order is not None:
            x = x[:, self.order]
        if self._is_triton and len(x) <= MOST_ROWS:
            from local_engine.quant.triton_products import int4_product

            return int4_product(x, self.packed, self.pair, self.outputs, self.bias)
        if self.native is not None and len(x) <= _NATIVE_ROWS:
            return self.native(x, x.dtype)
        low = x.to(torch.bfloat16)
        if self._has_kernel and len(x) <= _PACKED_ROWS:
            full: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
                low.contiguous(), self.packed, self.group, self.pair
            )
        else:
            full = low @ self.expanded()
        y = full[:, : self.outputs].to(x.dtype)
        return y if self.bias is None else y + self.bias

    def expanded(self) -> Tensor:
        """Return the weight as bf16 `[in, out]`, outputs perhaps padded."""
        if self.native is not None:
            return self.native.expanded().t()
        q = _unpack_blocks(self.packed) if self._has_kernel else _unpack_plain(self.packed)
        groups, padded, _ = self.pair.shape
        scale, middle = self.pair[:, None, :, 0], self.pair[:, None, :, 1]
        grouped = q.view(groups, self.group, padded)
        return torch.addcmul(middle, grouped, scale).view(-1, padded)

    @property
    def nbytes(self) -> int:
        """Return the bytes that integers and scales take."""
        if self.native is not None:
            return self.native.nbytes
        return self.packed.nbytes + self.pair.nbytes


def _pack(q: Tensor) -> Tensor:
    packed: Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(q.to(torch.int32), 1)
    return packed


def _pack_plain(q: Tensor) -> Tensor:
    """Pack `[out, in]` to `[in, out / 2]`: outputs of the lower half in the low nibbles."""
    low, high = q.t().chunk(2, dim=1)
    return (low | high << 4).contiguous()


def _unpack_plain(packed: Tensor) -> Tensor:
    """Return q - 8 as bf16 `[in, out]`."""
    return torch.cat((packed & 15, packed >> 4), dim=1).to(torch.bfloat16) - 8


def _unpack_blocks(packed: Tensor) -> Tensor:
    """Undo the kernel's packing: blocks of 64 outputs, for each input 32 bytes.

    A byte holds outputs d and d + 32 of its block. `has_int4_kernel` checks that.
    """
    padded, half = packed.shape
    blocks = packed.view(padded // _BLOCK, 2 * half, _BLOCK // 2)
    q = torch.cat((blocks & 15, blocks >> 4), dim=-1).to(torch.bfloat16) - 8
    return q.transpose(0, 1).reshape(2 * half, padded)


@functools.cache
def has_int4_kernel(device: str) -> bool:
    """Tell whether torch's kernel is there, computes what it should, and packs as we unpack.

    The operators are private to torch, and their packing depends on the processor, so
    both are tried on known numbers first.
    """
    if device != "cpu" or not hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu"):
        return False
    q = ((torch.arange(128 * 64) * 37 + 11) % 16).reshape(128, 64).to(torch.uint8)
    pair = torch.stack((torch.linspace(0.01, 0.1, 256), torch.linspace(-1, 1, 256)), dim=-1)
    pair = pair.view(2, 128, 2).to(torch.bfloat16)
    x = torch.linspace(-1, 1, 3 * 64).reshape(3, 64).to(torch.bfloat16)
    try:
        packed = _pack(q)
        found = torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, 32, pair).float()
    except RuntimeError:  # an operator without a kernel for this processor raises a kind of it
        return False
    if packed.shape != (128, 32) or not torch.equal(_unpack_blocks(packed), q.t().float() - 8):
        return False
    grouped = (q.t().float() - 8).view(2, 32, 128)
    weight = grouped * pair[:, None, :, 0].float() + pair[:, None, :, 1].float()
    wanted = x.float() @ weight.view(64, 128)
    return bool((found - wanted).abs().max() <= 0.02 * wanted.abs().max())
