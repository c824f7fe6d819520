"""Linear layers: as loaded, quantized on the way in, or as somebody else quantized them."""

from __future__ import annotations

from local_engine.quant.codebook import Fp8Linear, Nf4Linear
from local_engine.quant.grid import Grid, can_stack, stack
from local_engine.quant.int4 import Int4Linear, has_int4_kernel
from local_engine.quant.int8 import Int8Head, Int8Linear, has_int8_kernel, has_integer_product
from local_engine.quant.linear import Linear, PlainLinear, SideBySide
from local_engine.quant.schemes import (
    SCHEMES,
    Packed,
    PackedKind,
    Quantization,
    bytes_per_weight,
    grid_linear,
    make_head,
    make_linear,
    native_product,
    quantize,
    restore,
    unpacked_grid,
)

__all__ = [
    "SCHEMES",
    "Fp8Linear",
    "Grid",
    "Int4Linear",
    "Int8Head",
    "Int8Linear",
    "Linear",
    "Nf4Linear",
    "Packed",
    "PackedKind",
    "PlainLinear",
    "Quantization",
    "SideBySide",
    "bytes_per_weight",
    "can_stack",
    "grid_linear",
    "has_int4_kernel",
    "has_int8_kernel",
    "has_integer_product",
    "make_head",
    "make_linear",
    "native_product",
    "quantize",
    "restore",
    "stack",
    "unpacked_grid",
]
