"""Tensors on their way from a checkpoint's files into a decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from local_engine.quant import Linear, Quantization, make_head, make_linear
from local_engine.weights import Weights


class PlainSource:
    """Float tensors, quantized as soon as they are read where that is asked."""

    def __init__(
        self, weights: Weights, dtype: torch.dtype, device: torch.device, scheme: Quantization
    ) -> None:
        self._weights = weights
        self._dtype = dtype
        self._device = device
        self._scheme: Quantization = scheme

    def tensor(self, name: str) -> Tensor:
        """Read a tensor in the type of the hidden states."""
        return self._weights.read(name, self._dtype).to(self._device)

    def precise(self, name: str) -> Tensor:
        """Read a tensor in fp32."""
        return self._weights.read(name, torch.float32).to(self._device)

    def linear(self, names: Sequence[str], *, has_bias: bool) -> Linear:
        """Read projections and stack them."""
        weight = torch.cat([self.tensor(f"{n}.weight") for n in names])
        bias = torch.cat([self.tensor(f"{n}.bias") for n in names]) if has_bias else None
        return make_linear(weight, bias, self._scheme)

    def head(self, weight: Tensor) -> Linear:
        """Make the product that gives the logits."""
        return make_head(weight, self._scheme)
