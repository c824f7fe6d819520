"""Matrix products of the decoder: what one is, as it was loaded, and several beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from local_engine.native import native_for
from local_engine.native.products import BF16_LINE, Bf16Product
from local_engine.quant.plain import plain_product


class Linear(Protocol):
    """Map `[rows, in]` to `[rows, out]` in the dtype of the input."""

    def __call__(self, x: Tensor) -> Tensor: ...

    @property
    def nbytes(self) -> int:
        """Return the bytes that the weight takes."""


# From here on torch's product of a bf16 weight is as quick as the native loops.
_NATIVE_ROWS = 4


class PlainLinear:
    """A product with the weight as it was loaded."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight = weight
        self.bias = bias
        is_fit = weight.dtype == torch.bfloat16 and weight.is_contiguous()
        is_fit = is_fit and not weight.shape[1] % BF16_LINE
        native = native_for(weight.device) if is_fit else None
        self.native = None if native is None else Bf16Product(native, weight, bias)

    def __call__(self, x: Tensor) -> Tensor:
        if self.native is not None and len(x) <= _NATIVE_ROWS and x.dtype == torch.bfloat16:
            return self.native(x, x.dtype)
        return plain_product(x, self.weight, self.bias)

    @property
    def nbytes(self) -> int:
        """Return the bytes that the weight takes."""
        return self.weight.nbytes


class SideBySide:
    """Several products of one input, their outputs one after another.

    For weights that cannot be one product, as their groups are not alike.
    """

    def __init__(self, parts: Sequence[Linear]) -> None:
        self._parts = parts

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self._parts], dim=-1)

    @property
    def nbytes(self) -> int:
        """Return the bytes that the weights take."""
        return sum(part.nbytes for part in self._parts)
