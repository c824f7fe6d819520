"""Tensors on their way from a checkpoint's files into a decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from local_engine.formats import Layout
from local_engine.quant import (
    Grid,
    Linear,
    Packed,
    Quantization,
    SideBySide,
    can_stack,
    grid_linear,
    make_head,
    make_linear,
    quantize,
    restore,
    stack,
    unpacked_grid,
)
from local_engine.quant_store import QuantStore
from local_engine.weights import Weights

Stored = Grid | Packed | Tensor


class PlainSource:
    """Float tensors, quantized as soon as they are read where that is asked.

    With a `store`, what was quantized before is taken from there.
    """

    def __init__(
        self,
        weights: Weights,
        dtype: torch.dtype,
        device: torch.device,
        scheme: Quantization,
        store: QuantStore | None = None,
    ) -> None:
        self._weights = weights
        self._dtype = dtype
        self._device = device
        self._scheme: Quantization = scheme
        self._store = store

    def tensor(self, name: str) -> Tensor:
        """Read a tensor in the type of the hidden states."""
        return self._weights.read(name, self._dtype).to(self._device)

    def precise(self, name: str) -> Tensor:
        """Read a tensor in fp32."""
        return self._weights.read(name, torch.float32).to(self._device)

    def linear(self, names: Sequence[str], *, has_bias: bool) -> Linear:
        """Read projections and stack them."""
        bias = self._bias(names) if has_bias else None
        if self._store is None or self._scheme in ("none", "as-stored"):
            return make_linear(self._weight(names), bias, self._scheme)
        key = "+".join(names)
        packed = self._store.find(key)
        if packed is None:
            packed = quantize(self._weight(names), self._scheme)
            self._store.keep(key, packed)
        return restore(packed.to(self._device), bias)

    def head(self, weight: Tensor) -> Linear:
        """Make the product that gives the logits."""
        return make_head(weight, self._scheme)

    def _weight(self, names: Sequence[str]) -> Tensor:
        return torch.cat([self.tensor(f"{n}.weight") for n in names])

    def _bias(self, names: Sequence[str]) -> Tensor:
        return torch.cat([self.tensor(f"{n}.bias") for n in names])


class StoredSource(PlainSource):
    """Tensors stored quantized: kept so under `as-stored`, expanded or made anew otherwise."""

    def __init__(
        self,
        weights: Weights,
        dtype: torch.dtype,
        device: torch.device,
        scheme: Quantization,
        layout: Layout,
    ) -> None:
        super().__init__(weights, dtype, device, scheme)
        self._layout = layout

    def tensor(self, name: str) -> Tensor:
        """Read a tensor, expanding it where it is stored quantized."""
        module = name.removesuffix(".weight")
        if module != name and self._layout.holds(self._weights, module):
            return expanded(self._layout.read(self._weights, module)).to(self._device, self._dtype)
        return super().tensor(name)

    def linear(self, names: Sequence[str], *, has_bias: bool) -> Linear:
        """Read projections, keeping the integers of the file where that is asked."""
        if self._scheme != "as-stored":
            return super().linear(names, has_bias=has_bias)
        if not all(self._layout.holds(self._weights, n) for n in names):
            return super().linear(names, has_bias=has_bias)
        bias = self._bias(names) if has_bias else None
        stored = [self._layout.read(self._weights, n) for n in names]
        return stored_linear(stored, bias, self._dtype, self._device)

    def head(self, weight: Tensor) -> Linear:
        """Make the product that gives the logits, in 8 bits where the file has few, too."""
        modules = ("lm_head", "model.embed_tokens")
        is_stored = any(self._layout.holds(self._weights, m) for m in modules)
        keeps = self._scheme == "as-stored" and is_stored
        return make_head(weight, "int8" if keeps else self._scheme)


def expanded(stored: Stored) -> Tensor:
    """Return a stored matrix in fp32: the reference for every product made of it."""
    if isinstance(stored, Grid):
        return stored.dequantize()
    if isinstance(stored, Tensor):
        return stored.float()
    if stored.kind == "int4":
        return unpacked_grid(stored).dequantize()
    return stored.values.float() * stored.scale.float()[:, None]


def stored_linear(
    stored: Sequence[Stored], bias: Tensor | None, dtype: torch.dtype, device: torch.device
) -> Linear:
    """Make one product of matrices as they are stored."""
    grids = [s for s in stored if isinstance(s, Grid)]
    if len(grids) == len(stored) and can_stack(grids):
        return grid_linear(stack(grids).to(device), bias)
    sizes = [len(s.q) if isinstance(s, Grid) else len(expanded(s)) for s in stored]
    biases = [None] * len(stored) if bias is None else list(torch.split(bias, sizes))
    parts = [_part(s, b, dtype, device) for s, b in zip(stored, biases, strict=True)]
    return parts[0] if len(parts) == 1 else SideBySide(parts)


def _part(stored: Stored, bias: Tensor | None, dtype: torch.dtype, device: torch.device) -> Linear:
    if isinstance(stored, Grid):
        return grid_linear(stored.to(device), bias)
    if isinstance(stored, Packed):
        return restore(stored.to(device), bias)
    return make_linear(stored.to(device, dtype), bias, "none")
