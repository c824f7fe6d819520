"""The fused steps of a layer, in the native loops: bf16 or fp32, widths multiples of 16."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from local_engine.kv import PagedKv
from local_engine.native import Native
from local_engine.native.library import structure


@dataclass(frozen=True, slots=True)
class NativeSteps:
    """Norms, positions and gates of a layer, each in one call."""

    native: Native

    def add_norm(
        self, x: Tensor, delta: Tensor | None, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """Return `x + delta` and its norm, both `[rows, width]` in the type of x."""
        x, delta = x.contiguous(), None if delta is None else delta.contiguous()
        total = x if delta is None else torch.empty_like(x)
        out = torch.empty_like(x)
        pointers = (x.data_ptr(), _pointer(delta), weight.data_ptr())
        outs = (total.data_ptr(), out.data_ptr())
        call = _Norm(*pointers, *outs, *x.shape, eps, _is_bf16(x), _is_bf16(weight))
        self.native.library.frugal_norm(ctypes.byref(call))
        return total, out

    def turn_and_write(
        self,
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

        Keys, turned, and values go to each row's slot. `norm` holds the weights of the norm
        of every query and key head, `[heads + kv_heads, d]`.
        """
        qkv = qkv.contiguous()
        keys, values = cache.keys[layer], cache.values[layer]
        rows, _, size = qkv.shape
        cos, sin = turn
        q = torch.empty(rows, heads, size, dtype=qkv.dtype)
        reads = (qkv.data_ptr(), cos.data_ptr(), sin.data_ptr(), _pointer(norm))
        writes = (q.data_ptr(), keys.data_ptr(), values.data_ptr(), slots.data_ptr())
        sizes = (rows, heads, keys.shape[1], size, cos.shape[-1], qkv.stride(0))
        is_bf16, norm_is_bf16 = _is_bf16(qkv), norm is not None and _is_bf16(norm)
        call = _Turn(*reads, *writes, *sizes, eps, is_bf16, norm_is_bf16)
        self.native.library.frugal_turn(ctypes.byref(call))
        return q

    def gate(self, gate_up: Tensor, *, is_gelu: bool) -> Tensor:
        """Return `act(first half) * second half` of each row; gelu is that by tanh."""
        gate_up = gate_up.contiguous()
        rows, both = gate_up.shape
        out = torch.empty(rows, both // 2, dtype=gate_up.dtype)
        places = (gate_up.data_ptr(), out.data_ptr())
        call = _Gate(*places, rows, both // 2, _is_bf16(gate_up), is_gelu)
        self.native.library.frugal_gate(ctypes.byref(call))
        return out


_Norm = structure(
    "_Norm",
    pointers="x delta weight sum out",
    longs="rows width",
    floats="eps",
    ints="is_bf16 weight_is_bf16",
)
_Turn = structure(
    "_Turn",
    pointers="qkv cos sin norm q keys values slots",
    longs="rows heads kv_heads size turned stride",
    floats="eps",
    ints="is_bf16 norm_is_bf16",
)
_Gate = structure(
    "_Gate", pointers="both out", longs="rows width", floats="", ints="is_bf16 is_gelu"
)


def _is_bf16(tensor: Tensor) -> bool:
    return tensor.dtype == torch.bfloat16


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
