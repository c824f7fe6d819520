"""Products with weights in 4-bit NormalFloat or 8-bit float: small in memory, expanded to compute.

NF4 (QLoRA, arXiv 2305.14314): sixteen quantiles of a normal distribution, times the
largest magnitude of a block of 64 inputs. fp8: e4m3 with one scale per output.
"""

from __future__ import annotations

import functools
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor

from local_engine.quant.paths import MOST_ROWS, has_fp8_product, takes_triton

NF4_BLOCK = 64
_FP8 = torch.float8_e4m3fn
_FP8_LARGEST = 448.0


@functools.cache
def nf4_levels() -> tuple[float, ...]:
    """Return the sixteen levels, exactly zero among them, scaled to [-1, 1].

    Eight quantiles below zero and nine above, sharing the zero, between the tails that
    leave half of an average step of the two sides outside (paper, section 3).
    """
    tail = 1 - (1 / 30 + 1 / 32) / 2
    inverse = NormalDist().inv_cdf
    above = [inverse(0.5 + (tail - 0.5) * i / 8) for i in range(1, 9)]
    below = [-inverse(0.5 + (tail - 0.5) * i / 7) for i in range(7, 0, -1)]
    return tuple(v / above[-1] for v in (*below, 0.0, *above))


def nf4_pack(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return nibbles uint8 `[out, in / 2]` (even input low) and fp32 peaks `[out, in / 64]`."""
    blocks = weight.float().view(len(weight), -1, NF4_BLOCK)
    peaks = blocks.abs().amax(-1).clamp_min(1e-12)
    levels = torch.tensor(nf4_levels(), device=weight.device)
    borders = (levels[1:] + levels[:-1]) / 2
    q = torch.bucketize(blocks / peaks[..., None], borders).to(torch.uint8).view(weight.shape)
    return q[:, 0::2] | q[:, 1::2] << 4, peaks


class Nf4Linear:
    """A product with NF4 weights, expanded for every call."""

    def __init__(self, packed: Tensor, peaks: Tensor, bias: Tensor | None = None) -> None:
        self.packed = packed
        self.peaks = peaks
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.dequantize(x.dtype), self.bias)

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """Return the weight `[out, in]`."""
        levels = torch.tensor(nf4_levels(), dtype=dtype, device=self.packed.device)
        q = torch.stack((self.packed & 15, self.packed >> 4), dim=-1).flatten(1)
        blocks = levels[q.int()].view(len(q), -1, NF4_BLOCK)
        return (blocks * self.peaks[..., None].to(dtype)).view(len(q), -1)

    @property
    def nbytes(self) -> int:
        """Return the bytes that nibbles and peaks take."""
        return self.packed.nbytes + self.peaks.nbytes


def fp8_pack(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return e4m3 values `[out, in]` and fp32 scales `[out]`."""
    scale = (weight.float().abs().amax(1) / _FP8_LARGEST).clamp_min(1e-12)
    return (weight.float() / scale[:, None]).to(_FP8), scale


class Fp8Linear:
    """A product with fp8 weights; expanded to compute where no kernel reads them as they are."""

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> None:
        self.weight = weight
        self.scale = scale
        self.bias = bias
        self._is_triton = takes_triton(weight.device) and has_fp8_product(weight.device)

    def __call__(self, x: Tensor) -> Tensor:
        if self._is_triton and len(x) <= MOST_ROWS:
            from local_engine.quant.triton_products import int8_product

            return int8_product(x, self.weight, self.scale, self.bias)
        # The scale goes to the result: in bf16 the expanded e4m3 values are exact.
        y = F.linear(x, self.weight.to(x.dtype)).float() * self.scale
        y = y.to(x.dtype)
        return y if self.bias is None else y + self.bias

    def dequantize(self, dtype: torch.dtype) -> Tensor:
        """Return the weight `[out, in]`."""
        return (self.weight.float() * self.scale[:, None]).to(dtype)

    @property
    def nbytes(self) -> int:
        """Return the bytes that values and scales take."""
        return self.weight.nbytes + self.scale.nbytes
