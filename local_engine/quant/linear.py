"""Matrix products of the decoder: what one is, as it was loaded, and several beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from local_engine.quant.plain import plain_product


class Linear(Protocol):
    """Map `[rows, in]` to `[rows, out]` in the dtype of the input."""

    def __call__(self, x: Tensor) -> Tensor: ...

    @property
    def nbytes(self) -> int:
        """Return the bytes that the weight takes."""


class PlainLinear:
    """A product with the weight as it was loaded."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight = weight
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
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
