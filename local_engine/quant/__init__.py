"""Linear layers: as loaded, or quantized on the way in."""

from __future__ import annotations

from local_engine.quant.linear import (
    Int8Head,
    Int8Linear,
    Linear,
    PlainLinear,
    Quantization,
    has_int8_kernel,
    make_head,
    make_linear,
)

__all__ = [
    "Int8Head",
    "Int8Linear",
    "Linear",
    "PlainLinear",
    "Quantization",
    "has_int8_kernel",
    "make_head",
    "make_linear",
]
