"""GPTQ: words along the inputs, zeros along the outputs, groups maybe in another order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from local_engine.errors import CheckpointError
from local_engine.fields import Fields
from local_engine.formats.layout import FLOATS, INTEGERS, Need, sorted_order, unpack_words
from local_engine.quant import Grid
from local_engine.weights import Weights


@dataclass(frozen=True, slots=True)
class GptqLayout:
    """qweight `[in * bits / 32, out]`, qzeros `[groups, out * bits / 32]`, scales, g_idx.

    The first version of the format stores a zero point one too low; a symmetric file
    tells by its zeros which it is, whatever its label (Qwen's are labelled wrongly).
    """

    path: Path
    bits: int
    group_size: int
    is_symmetric: bool
    is_second_version: bool

    @classmethod
    def of(cls, fields: Fields) -> GptqLayout:
        """Read `quantization_config`; raises `CheckpointError`."""
        bits = fields.integer("bits", 2, 8)
        if bits not in (4, 8):
            raise fields.fail("bits", "4 or 8", bits)
        version = fields.text("checkpoint_format", "gptq")
        if version not in ("gptq", "gptq_v2"):
            raise fields.fail("checkpoint_format", "gptq or gptq_v2", version)
        return cls(
            fields.path,
            bits,
            _group_size(fields),
            fields.flag("sym", default=True),
            version == "gptq_v2",
        )

    def holds(self, weights: Weights, module: str) -> bool:
        """Tell whether the module is stored quantized."""
        return f"{module}.qweight" in weights

    def needs(self, weights: Weights, module: str, rows: int, columns: int) -> dict[str, Need]:
        """Name the tensors of a module."""
        del weights
        per_word = 32 // self.bits
        group = columns if self.group_size == -1 else self.group_size
        if columns % group or columns % per_word or rows % per_word:
            raise CheckpointError(
                self.path, f"{module}: {rows} x {columns} does not fill groups of {group}"
            )
        groups = columns // group
        return {
            f"{module}.qweight": Need((columns // per_word, rows), INTEGERS),
            f"{module}.qzeros": Need((groups, rows // per_word), INTEGERS),
            f"{module}.scales": Need((groups, rows), FLOATS),
            f"{module}.g_idx": Need((columns,), INTEGERS, is_optional=True),
        }

    def read(self, weights: Weights, module: str) -> Grid:
        """Return the integers of a module."""
        words = weights.raw(f"{module}.qweight")
        q = unpack_words(words.t().contiguous(), self.bits)
        scale = weights.read(f"{module}.scales", torch.float32).t().contiguous()
        zero = self._zeros(weights.raw(f"{module}.qzeros")).t().float()
        order = None
        if f"{module}.g_idx" in weights:
            group = q.shape[1] // scale.shape[1]
            order = sorted_order(self.path, module, weights.raw(f"{module}.g_idx"), group)
        return Grid(q if order is None else q[:, order], scale, -zero * scale, self.bits, order)

    def _zeros(self, words: Tensor) -> Tensor:
        stored = unpack_words(words, self.bits)
        middle = 1 << (self.bits - 1)
        is_second = self.is_second_version
        if self.is_symmetric and bool((stored == middle).all()):
            is_second = True
        elif self.is_symmetric and bool((stored == middle - 1).all()):
            is_second = False
        mask = (1 << self.bits) - 1
        return stored if is_second else (stored.to(torch.int16) + 1) & mask


def _group_size(fields: Fields) -> int:
    size = fields.integer("group_size", -1, 1 << 17, 128)
    if size != -1 and size < 16:
        raise fields.fail("group_size", "-1 or at least 16", size)
    return size
