"""AWQ in its gemm layout: words along the outputs, their nibbles in an order of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from local_engine.errors import CheckpointError
from local_engine.fields import Fields
from local_engine.formats.layout import FLOATS, INTEGERS, Need, unpack_words
from local_engine.quant import Grid
from local_engine.weights import Weights

# Output 8c + j of a word lies in nibble _NIBBLE[j].
_NIBBLE = (0, 4, 1, 5, 2, 6, 3, 7)


@dataclass(frozen=True, slots=True)
class AwqLayout:
    """qweight `[in, out / 8]`, qzeros `[groups, out / 8]`, scales `[groups, out]`."""

    path: Path
    group_size: int

    @classmethod
    def of(cls, fields: Fields) -> AwqLayout:
        """Read `quantization_config`; raises `CheckpointError`."""
        bits = fields.integer("bits" if "bits" in fields else "w_bit", 1, 16)
        if bits != 4:
            raise fields.fail("bits", "4", bits)
        version = fields.text("version", "gemm")
        if version.lower() != "gemm":
            raise fields.fail("version", "gemm", version)
        if not fields.flag("zero_point", default=True):
            raise fields.fail("zero_point", "true", False)
        size = fields.integer("group_size" if "group_size" in fields else "q_group_size", -1, 4096)
        if size != -1 and size < 16:
            raise fields.fail("group_size", "-1 or at least 16", size)
        return cls(fields.path, size)

    def holds(self, weights: Weights, module: str) -> bool:
        """Tell whether the module is stored quantized."""
        return f"{module}.qweight" in weights

    def needs(self, weights: Weights, module: str, rows: int, columns: int) -> dict[str, Need]:
        """Name the tensors of a module."""
        del weights
        group = columns if self.group_size == -1 else self.group_size
        if columns % group or rows % 8:
            raise CheckpointError(
                self.path, f"{module}: {rows} x {columns} does not fill groups of {group}"
            )
        groups = columns // group
        return {
            f"{module}.qweight": Need((columns, rows // 8), INTEGERS),
            f"{module}.qzeros": Need((groups, rows // 8), INTEGERS),
            f"{module}.scales": Need((groups, rows), FLOATS),
        }

    def read(self, weights: Weights, module: str) -> Grid:
        """Return the integers of a module."""
        q = _unpack(weights.raw(f"{module}.qweight")).t().contiguous()
        zero = _unpack(weights.raw(f"{module}.qzeros")).t().float()
        scale = weights.read(f"{module}.scales", torch.float32).t().contiguous()
        return Grid(q, scale, -zero * scale, 4)


def _unpack(words: Tensor) -> Tensor:
    nibbles = unpack_words(words, 4).view(len(words), -1, 8)
    return nibbles[:, :, _NIBBLE].flatten(1)
