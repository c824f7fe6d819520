"""Weights as the native loops read them, and their products with few rows."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from local_engine.native.library import Native, Weight
from local_engine.native.memory import settled

BF16_LINE = 32
_INT8_LINE = 64
_INT4_LINE = 128


class NativeProduct(Protocol):
    """A product as decoder.c calls it, too: `kind` says which loop, `call` holds the weight."""

    @property
    def kind(self) -> int:
        """Return which of decoder.c's kinds it is."""

    @property
    def call(self) -> Weight:
        """Return where the weight lies, for as long as this lives."""

    def __call__(self, x: Tensor, dtype: torch.dtype) -> Tensor: ...


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


class Bf16Product:
    """bf16 `[out, in]`, the inputs a whole number of lines, read where it lies; rows are bf16."""

    kind = 0

    def __init__(self, native: Native, weight: Tensor, bias: Tensor | None = None) -> None:
        self._native = native
        self._held = weight
        self._bias = None if bias is None else bias.float().contiguous()
        pointers = (_pointer(weight), None, _pointer(self._bias))
        lines = weight.shape[1] // BF16_LINE
        self.call = Weight(weight.shape[1], len(weight), lines, 0, *pointers)

    def __call__(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Return `x weightᵀ + bias`."""
        return self._native.multiply(self._native.bf16, self.call, x, dtype)


class Int8Product:
    """int8 `[out, in]` with an fp32 scale an output; the inputs are padded to whole lines."""

    kind = 1

    def __init__(
        self, native: Native, weight: Tensor, scale: Tensor, bias: Tensor | None = None
    ) -> None:
        outputs, self._columns = weight.shape
        self._native = native
        self._held = settled(F.pad(weight, (0, -self._columns % _INT8_LINE)))
        self._scale = scale.float().contiguous()
        self._bias = None if bias is None else bias.float().contiguous()
        lines = self._held.shape[1] // _INT8_LINE
        pointers = map(_pointer, (self._held, self._scale, self._bias))
        self.call = Weight(self._columns, outputs, lines, 0, *pointers)

    def __call__(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Return `x weightᵀ scale + bias`."""
        return self._native.multiply(self._native.int8, self.call, x, dtype)

    @property
    def weight(self) -> Tensor:
        """Return the integers `[out, in]`."""
        return self._held[:, : self._columns]

    @property
    def nbytes(self) -> int:
        """Return the bytes that the integers take."""
        return self._held.nbytes


class Int4Product:
    """4-bit `[out, in]` in groups, w = (q - 8) scale + middle, as int4.c lays them out."""

    kind = 2

    def __init__(
        self, native: Native, q: Tensor, scale: Tensor, middle: Tensor, bias: Tensor | None = None
    ) -> None:
        """Take uint8 `q` `[out, in]`, `scale` and `middle` `[out, in / group]`."""
        outputs, self._columns = q.shape
        self._native = native
        self._group = self._columns // scale.shape[1]
        padding = -self._columns % max(_INT4_LINE, self._group)
        pair = torch.stack((scale, middle), dim=-1).to(torch.bfloat16)
        self._pair = settled(F.pad(pair, (0, 0, 0, padding // self._group)))
        self._held = settled(_packed(F.pad(q, (0, padding))))
        self._bias = None if bias is None else bias.float().contiguous()
        pointers = map(_pointer, (self._held, self._pair, self._bias))
        lines = self._held.shape[1]
        self.call = Weight(self._columns, outputs, lines, self._group, *pointers)

    def __call__(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Return `x weightᵀ + bias`."""
        return self._native.multiply(self._native.int4, self.call, x, dtype)

    def expanded(self) -> Tensor:
        """Return the weight as bf16 `[out, in]`."""
        q = _unpacked(self._held).view(len(self._held), -1, self._group)
        scale, middle = self._pair[..., :1], self._pair[..., 1:]
        return torch.addcmul(middle, q, scale).flatten(1)[:, : self._columns]

    @property
    def nbytes(self) -> int:
        """Return the bytes that integers and scales take."""
        return self._held.nbytes + self._pair.nbytes


def _packed(q: Tensor) -> Tensor:
    """Pack `[out, in]` to int16 `[out, lines, 32]`: number j holds columns 32 n + j of a line."""
    parts = q.view(len(q), -1, 4, 32).to(torch.int32)
    shifts = torch.tensor([0, 4, 8, 12], dtype=torch.int32)[:, None]
    return (parts << shifts).sum(2).to(torch.int16)


def _unpacked(packed: Tensor) -> Tensor:
    """Return q - 8 as bf16 `[out, in]`."""
    shifts = torch.tensor([0, 4, 8, 12], dtype=torch.int16)[:, None]
    return (((packed[:, :, None] >> shifts) & 15) - 8).flatten(1).to(torch.bfloat16)
