"""Matrix products of the decoder, unquantized and int8 weight-only.

int8: q = round(w / s), s = max|w| / 127 per output channel; y = (x qᵀ) s.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

# Above this many rows a product is bound by arithmetic, where the weight-only
# kernel is up to three times slower than expanding the weight once.
_PACKED_ROWS = 16


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
        return F.linear(x, self.weight, self.bias)

    @property
    def nbytes(self) -> int:
        """Return the bytes that the weight takes."""
        return self.weight.nbytes


def int8_pack(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 values `[out, in]` and bf16 scales `[out]`."""
    scale = (weight.float().abs().amax(dim=1) / 127.0).clamp_min(1e-12).to(torch.bfloat16)
    # The scale is rounded first, so that the integers absorb its rounding error.
    ratio = weight.float() / scale.float()[:, None]
    return ratio.round().clamp(-127, 127).to(torch.int8), scale


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


class Int8Linear:
    """A product with an int8 weight and one bf16 scale per output channel."""

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> None:
        self.weight = weight
        self.scale = scale
        self.bias = bias
        self._has_kernel = has_int8_kernel(weight.device.type)

    def __call__(self, x: Tensor) -> Tensor:
        low = x.to(torch.bfloat16)
        if self._has_kernel and x.shape[0] <= _PACKED_ROWS:
            y = torch._weight_int8pack_mm(low.contiguous(), self.weight, self.scale)
        else:
            y = F.linear(low, self.weight.to(torch.bfloat16)).to(x.dtype) * self.scale
        y = y.to(x.dtype)
        return y if self.bias is None else y + self.bias

    @property
    def nbytes(self) -> int:
        """Return the bytes that weight and scales take."""
        return self.weight.nbytes + self.scale.nbytes


class Int8Head(Int8Linear):
    """An int8 product whose largest outputs are computed again in fp32.

    The kernel rounds what it gives to bf16: logits around 20 become multiples of 1/8,
    likely tokens tie, and confidence read from their distance is coarse. The few that
    matter are cheap to compute exactly; the error of the rest stays below 0.4 %.
    """

    exact = 64

    def __call__(self, x: Tensor) -> Tensor:
        y = super().__call__(x).float()
        best = y.topk(min(self.exact, y.shape[-1]), dim=-1).indices
        weight = self.weight[best].float() * self.scale[best].float()[..., None]
        values = torch.einsum("rk,rnk->rn", x.float(), weight)
        if self.bias is not None:
            values = values + self.bias.float()[best]
        return y.scatter_(1, best, values)


@functools.cache
def has_int8_kernel(device: str) -> bool:
    """Tell whether torch's weight-only kernel is there and computes what it should.

    The operator is private to torch, so it is tried on known numbers first.
    """
    if not hasattr(torch, "_weight_int8pack_mm"):
        return False
    x = torch.linspace(-1, 1, 3 * 64, device=device).reshape(3, 64).to(torch.bfloat16)
    weight = ((torch.arange(32 * 64, device=device) * 37) % 255 - 127).reshape(32, 64)
    scale = torch.linspace(0.001, 0.01, 32, device=device).to(torch.bfloat16)
    try:
        found = torch._weight_int8pack_mm(x, weight.to(torch.int8), scale).float()
    except RuntimeError:  # an operator without a kernel for this device raises a kind of it
        return False
    wanted = (x.float() @ weight.float().T) * scale.float()
    return bool((found - wanted).abs().max() <= 0.02 * wanted.abs().max())
