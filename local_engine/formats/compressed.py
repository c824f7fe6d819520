"""compressed-tensors (llm-compressor): packed integers, plain int8, and fp8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from local_engine.errors import CheckpointError
from local_engine.fields import Fields
from local_engine.formats.layout import FLOATS, INTEGERS, Layout, Need, sorted_order, unpack_words
from local_engine.quant import Grid, Packed
from local_engine.weights import Weights

_FORMATS = {"pack-quantized": "int", "int-quantized": "int", "float-quantized": "float"}


@dataclass(frozen=True, slots=True)
class _Scheme:
    path: Path
    bits: int
    group_size: int | None
    strategy: str

    def groups(self, module: str, columns: int) -> int:
        """Return how many scales a row has."""
        if self.group_size is None:
            return 1
        if columns % self.group_size:
            raise CheckpointError(
                self.path, f"{module}: {columns} inputs do not fill groups of {self.group_size}"
            )
        return columns // self.group_size

    def scale_shape(self, module: str, rows: int, columns: int) -> tuple[int, ...]:
        if self.strategy == "tensor":
            return (1,)
        return rows, self.groups(module, columns)


def read_compressed(fields: Fields) -> Layout:
    """Read `quantization_config`; raises `CheckpointError` where one scheme does not fit all."""
    form = fields.text("format", "")
    if form not in _FORMATS:
        raise fields.fail("format", f"one of {', '.join(_FORMATS)}", form)
    groups = list(fields.section("config_groups").values.values())
    if not groups or not all(isinstance(g, Mapping) for g in groups):
        raise fields.fail("config_groups", "groups of modules", groups)
    weights = [g.get("weights") for g in groups]
    if not isinstance(weights[0], Mapping) or any(w != weights[0] for w in weights[1:]):
        raise fields.fail("config_groups", "one scheme of weights for all modules", weights)
    scheme = _scheme(Fields(fields.path, weights[0]), _FORMATS[form])
    if form == "pack-quantized":
        return PackedLayout(scheme)
    return IntLayout(scheme) if form == "int-quantized" else FloatLayout(scheme)


def _scheme(weights: Fields, kind: str) -> _Scheme:
    if weights.text("type", "int") != kind:
        raise weights.fail("type", kind, weights.values.get("type"))
    strategy = weights.text("strategy", "")
    if strategy not in ("tensor", "channel", "group"):
        raise weights.fail("strategy", "tensor, channel or group", strategy)
    bits = weights.integer("num_bits", 1, 16)
    if bits not in ((8,) if kind == "float" else (4, 8)):
        raise weights.fail("num_bits", "8" if kind == "float" else "4 or 8", bits)
    size = weights.integer("group_size", 16, 1 << 17) if strategy == "group" else None
    if kind == "float" and size is not None:
        raise weights.fail("strategy", "tensor or channel for fp8", strategy)
    return _Scheme(weights.path, bits, size, strategy)


@dataclass(frozen=True, slots=True)
class PackedLayout:
    """weight_packed int32 `[out, in * bits / 32]`, integers stored with half the range added."""

    scheme: _Scheme

    def holds(self, weights: Weights, module: str) -> bool:
        """Tell whether the module is stored quantized."""
        return f"{module}.weight_packed" in weights

    def needs(self, weights: Weights, module: str, rows: int, columns: int) -> dict[str, Need]:
        """Name the tensors of a module."""
        del weights
        per_word = 32 // self.scheme.bits
        shape = self.scheme.scale_shape(module, rows, columns)
        groups = self.scheme.groups(module, columns)
        zeros = (-(-rows // per_word), groups)
        return {
            f"{module}.weight_packed": Need((rows, -(-columns // per_word)), INTEGERS),
            f"{module}.weight_scale": Need(shape, FLOATS),
            f"{module}.weight_zero_point": Need(zeros, INTEGERS, is_optional=True),
            f"{module}.weight_shape": Need((2,), frozenset({"I64", "I32"})),
            f"{module}.weight_g_idx": Need((columns,), INTEGERS, is_optional=True),
        }

    def read(self, weights: Weights, module: str) -> Grid:
        """Return the integers of a module."""
        bits, path = self.scheme.bits, self.scheme.path
        words = weights.raw(f"{module}.weight_packed")
        rows, columns = weights.raw(f"{module}.weight_shape").tolist()
        if rows != len(words) or not 0 < columns <= words.shape[1] * 32 // bits:
            raise CheckpointError(path, f"{module}.weight_shape: does not fit weight_packed")
        q = unpack_words(words, bits)[:, :columns].contiguous()
        scale = _scale(weights, module, rows)
        zero = torch.full_like(scale, 1 << (bits - 1))
        if f"{module}.weight_zero_point" in weights:
            packed = weights.raw(f"{module}.weight_zero_point").t().contiguous()
            zero = unpack_words(packed, bits).t()[:rows].float()
        order = None
        if f"{module}.weight_g_idx" in weights:
            g_idx = weights.raw(f"{module}.weight_g_idx")
            if bool((g_idx >= 0).all()):  # -1 throughout says that there is no order
                order = sorted_order(path, module, g_idx, columns // scale.shape[1])
        return Grid(q if order is None else q[:, order], scale, -zero * scale, bits, order)


@dataclass(frozen=True, slots=True)
class _ByteLayout:
    """weight `[out, in]` of one byte each, and weight_scale."""

    scheme: _Scheme

    def holds(self, weights: Weights, module: str) -> bool:
        """Tell whether the module is stored quantized."""
        return f"{module}.weight_scale" in weights

    def _needs(self, module: str, rows: int, columns: int, dtype: str) -> dict[str, Need]:
        shape = self.scheme.scale_shape(module, rows, columns)
        return {
            f"{module}.weight": Need((rows, columns), frozenset({dtype})),
            f"{module}.weight_scale": Need(shape, FLOATS),
            # What activations are scaled by is not needed: they stay as they are here.
            f"{module}.input_scale": Need((1,), FLOATS, is_optional=True),
        }


@dataclass(frozen=True, slots=True)
class IntLayout(_ByteLayout):
    """Integers in int8."""

    def needs(self, weights: Weights, module: str, rows: int, columns: int) -> dict[str, Need]:
        """Name the tensors of a module."""
        del weights
        shape, zero = self.scheme.scale_shape(module, rows, columns), frozenset({"I8"})
        return self._needs(module, rows, columns, "I8") | {
            f"{module}.weight_zero_point": Need(shape, zero, is_optional=True),
            f"{module}.input_zero_point": Need((1,), zero, is_optional=True),
        }

    def read(self, weights: Weights, module: str) -> Grid:
        """Return the integers of a module."""
        q = (weights.raw(f"{module}.weight").to(torch.int16) + 128).to(torch.uint8)
        scale = _scale(weights, module, len(q))
        zero = torch.zeros_like(scale)
        if f"{module}.weight_zero_point" in weights:
            zero = weights.raw(f"{module}.weight_zero_point").float().expand_as(scale)
        return Grid(q, scale, -(128 + zero) * scale, 8)


@dataclass(frozen=True, slots=True)
class FloatLayout(_ByteLayout):
    """Numbers in e4m3."""

    def needs(self, weights: Weights, module: str, rows: int, columns: int) -> dict[str, Need]:
        """Name the tensors of a module."""
        del weights
        return self._needs(module, rows, columns, "F8_E4M3")

    def read(self, weights: Weights, module: str) -> Packed:
        """Return the values of a module."""
        values = weights.raw(f"{module}.weight")
        return Packed("fp8", values, _scale(weights, module, len(values))[:, 0].contiguous())


def _scale(weights: Weights, module: str, rows: int) -> Tensor:
    scale = weights.read(f"{module}.weight_scale", torch.float32)
    return scale.view(1, 1).expand(rows, 1).contiguous() if scale.dim() == 1 else scale
