"""The tensors of a checkpoint against those that its config.json promises, before any is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch

from local_engine.assembly import expected_shapes, unread_tensor
from local_engine.config import ModelConfig
from local_engine.errors import CheckpointError
from local_engine.formats import Layout, Need
from local_engine.quant import Quantization, bytes_per_weight
from local_engine.weights import Weights, check_memory


def check_tensors(
    config: ModelConfig, weights: Weights, layout: Layout | None, directory: Path
) -> None:
    """Raise unless all that is needed is there in its shape, and nothing that would go unread."""
    plain = expected_shapes(config)
    needs: dict[str, Need] = {}
    for name, shape in list(plain.items()):
        module = name.removesuffix(".weight")
        if layout and len(shape) == 2 and module != name and layout.holds(weights, module):
            del plain[name]
            needs |= layout.needs(weights, module, *shape)
    weights.check(plain, directory)
    _check_needs(needs, weights, directory)
    unread = unread_tensor(config, (n for n in weights if n not in needs))
    if unread is not None:
        raise CheckpointError(
            directory,
            f"{unread}: this architecture has no such tensor here, so its answers would be wrong",
        )


def _check_needs(needs: Mapping[str, Need], weights: Weights, directory: Path) -> None:
    for name, need in needs.items():
        entry = weights.entry(name)
        if entry is None:
            if need.is_optional:
                continue
            raise CheckpointError(
                directory, f"tensor {name} is missing; the checkpoint is incomplete"
            )
        if entry.shape != need.shape or entry.dtype not in need.dtypes:
            raise CheckpointError(
                entry.file,
                f"{name}: expected {' or '.join(sorted(need.dtypes))} of shape {need.shape}, "
                f"found {entry.dtype} of {entry.shape}",
            )


def check_fits(
    config: ModelConfig,
    weights: Weights,
    layout: Layout | None,
    scheme: Quantization,
    dtype: torch.dtype,
) -> None:
    """Raise where this machine's memory cannot hold the weights in the form asked for."""
    file = min(weights.files)
    if layout is None:
        check_memory(file.parent, int(weights.count * bytes_per_weight(scheme, dtype)))
        return
    each = 1.0 if scheme == "as-stored" else bytes_per_weight(scheme, dtype)
    numbers = sum(math.prod(shape) for shape in expected_shapes(config).values())
    check_memory(file.parent, int(numbers * each))
