"""Linear layers: as loaded, or quantized on the way in."""

from __future__ import annotations

from local_engine.quant.linear import (
    Int8Linear,
    Linear,
    PlainLinear,
    Quantization,
    make_linear,
)

__all__ = ["Int8Linear", "Linear", "PlainLinear", "Quantization", "make_linear"]
