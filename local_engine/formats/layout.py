"""What a way of storing quantized weights must tell, and which way a checkpoint uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from local_engine.errors import CheckpointError
from local_engine.fields import Fields
from local_engine.quant import Grid, Packed
from local_engine.weights import Weights

INTEGERS = frozenset({"I32"})
FLOATS = frozenset({"F32", "F16", "BF16"})


@dataclass(frozen=True, slots=True)
class Need:
    """The shape and the types that a stored tensor may have; `is_optional` if it may lack."""

    shape: tuple[int, ...]
    dtypes: frozenset[str]
    is_optional: bool = False


class Layout(Protocol):
    """How one format stores a matrix `[rows, columns]` under the name of its module."""

    def holds(self, weights: Weights, module: str) -> bool:
        """Tell whether the module is stored quantized, rather than as a float weight."""

    def needs(self, weights: Weights, module: str, rows: int, columns: int) -> dict[str, Need]:
        """Name the tensors that hold the module, or raise where the format cannot."""

    def read(self, weights: Weights, module: str) -> Grid | Packed | Tensor:
        """Return the matrix: integers, fp8 values, or fp32 where neither fits."""


def find_layout(path: Path, config: Mapping[str, Any]) -> Layout | None:
    """Return how the weights are stored, None where they are plain floats.

    `path` is config.json, named in errors.
    """
    from local_engine.formats.awq import AwqLayout
    from local_engine.formats.compressed import read_compressed
    from local_engine.formats.gptq import GptqLayout

    fields = Fields(path, config).section("quantization_config")
    if not fields.values:
        return None
    method = fields.values.get("quant_method")
    match method:
        case "gptq":
            return GptqLayout.of(fields)
        case "awq":
            return AwqLayout.of(fields)
        case "compressed-tensors":
            return read_compressed(fields)
    raise CheckpointError(
        path,
        f"quantization_config: quant_method {method!r} is not read; expected gptq, awq or "
        "compressed-tensors, or the original checkpoint, which the engine can quantize",
    )


def unpack_words(words: Tensor, bits: int) -> Tensor:
    """Split int32 `[rows, n]` into uint8 `[rows, n * 32 / bits]`, low bits first."""
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    parts = (words[..., None] >> shifts) & ((1 << bits) - 1)
    return parts.to(torch.uint8).flatten(-2)


def sorted_order(where: Path, module: str, g_idx: Tensor, group: int) -> Tensor | None:
    """Return the order that puts inputs of one group together, None if they are already.

    `g_idx` names the group of each input, as quantization in order of activation leaves it.
    """
    natural = torch.arange(len(g_idx)) // group
    if torch.equal(g_idx.long(), natural):
        return None
    order = torch.argsort(g_idx.long(), stable=True)
    if not torch.equal(g_idx.long()[order], natural):
        raise CheckpointError(
            where, f"{module}: expected {group} inputs in each group, found other counts in g_idx"
        )
    return order
