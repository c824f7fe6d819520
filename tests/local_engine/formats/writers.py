"""Quantized checkpoints written by the formats' public descriptions, one number at a time.

Written apart from the readers: words are put together here by formula, where the readers
take them apart by shifting whole tensors.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

AWQ_COLUMNS = [0, 2, 4, 6, 1, 3, 5, 7]  # nibble i of a word holds this column of its eight


@dataclass(frozen=True, slots=True)
class Written:
    """The tensors that hold a module, and the weight `[out, in]` that they stand for."""

    tensors: dict[str, torch.Tensor]
    weight: torch.Tensor


Write = Callable[[int, int, np.random.Generator], Written]


def words_of(values: np.ndarray, bits: int) -> torch.Tensor:
    """Pack along the last axis: value i of a word at bit i * bits."""
    per_word = 32 // bits
    padded = np.pad(values, [(0, 0), (0, -values.shape[-1] % per_word)]).astype(np.uint64)
    words = np.zeros((len(padded), padded.shape[-1] // per_word), dtype=np.uint64)
    for place in range(per_word):
        words |= padded[:, place::per_word] << np.uint64(place * bits)
    return torch.from_numpy(words.astype(np.uint32).view(np.int32))


def scales_of(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    return (rng.uniform(0.5, 1.5, shape) * 0.02).astype(np.float16)


def gptq(
    bits: int, group: int, *, acts: bool = False, symmetric: bool = False, version: int = 1
) -> tuple[dict[str, Any], Write]:
    """Return a `quantization_config` and how a module is written."""

    def write(rows: int, columns: int, rng: np.random.Generator) -> Written:
        size = columns if group == -1 else group
        groups = columns // size
        q = rng.integers(0, 1 << bits, (columns, rows))
        zero = rng.integers(1, 1 << bits, (groups, rows))
        if symmetric:
            zero[:] = 1 << (bits - 1)
        scale = scales_of((groups, rows), rng)
        g_idx = np.arange(columns) // size
        if acts:
            g_idx = np.random.default_rng(0).permutation(g_idx)
        weight = (q - zero[g_idx]) * scale.astype(np.float32)[g_idx]
        return Written(
            {
                "qweight": words_of(q.T, bits).T.contiguous(),
                "qzeros": words_of(zero - (version == 1), bits),
                "scales": torch.from_numpy(scale),
                "g_idx": torch.from_numpy(g_idx.astype(np.int32)),
            },
            torch.from_numpy(weight.T.astype(np.float32)),
        )

    config = {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": group,
        "desc_act": acts,
        "sym": symmetric,
        "checkpoint_format": "gptq" if version == 1 else "gptq_v2",
    }
    return config, write


def awq(group: int) -> tuple[dict[str, Any], Write]:
    """Return a `quantization_config` and how a module is written."""

    def packed(values: np.ndarray) -> torch.Tensor:
        order = [8 * c + j for c in range(values.shape[1] // 8) for j in AWQ_COLUMNS]
        return words_of(values[:, order], 4)

    def write(rows: int, columns: int, rng: np.random.Generator) -> Written:
        groups = columns // group
        q, zero = rng.integers(0, 16, (columns, rows)), rng.integers(0, 16, (groups, rows))
        scale = scales_of((groups, rows), rng)
        of = np.arange(columns) // group
        weight = (q - zero[of]) * scale.astype(np.float32)[of]
        tensors = {"qweight": packed(q), "qzeros": packed(zero), "scales": torch.from_numpy(scale)}
        return Written(tensors, torch.from_numpy(weight.T.astype(np.float32)))

    config = {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True}
    return config | {"version": "gemm"}, write


def _compressed(form: str, **weights: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }


def pack_quantized(
    bits: int, group: int | None, *, symmetric: bool = True, acts: bool = False
) -> tuple[dict[str, Any], Write]:
    """Return a `quantization_config` and how a module is written."""
    half = 1 << (bits - 1)

    def write(rows: int, columns: int, rng: np.random.Generator) -> Written:
        size = columns if group is None else group
        q = rng.integers(-half, half, (rows, columns))
        zero = np.zeros((rows, columns // size), dtype=np.int64)
        if not symmetric:
            zero = rng.integers(-half, half, zero.shape)
        scale = torch.from_numpy(scales_of((rows, columns // size), rng)).to(torch.bfloat16)
        of = np.arange(columns) // size
        if acts:
            of = np.random.default_rng(0).permutation(of)
        weight = (q - zero[:, of]) * scale.float().numpy()[:, of]
        tensors = {
            "weight_packed": words_of(q + half, bits),
            "weight_scale": scale,
            "weight_shape": torch.tensor([rows, columns]),
        }
        if not symmetric:
            tensors["weight_zero_point"] = words_of((zero + half).T, bits).T.contiguous()
        if acts:
            tensors["weight_g_idx"] = torch.from_numpy(of.astype(np.int32))
        return Written(tensors, torch.from_numpy(weight.astype(np.float32)))

    strategy = "channel" if group is None else "group"
    config = {"num_bits": bits, "type": "int", "strategy": strategy, "symmetric": symmetric}
    return _compressed("pack-quantized", **config, group_size=group), write


def int_quantized() -> tuple[dict[str, Any], Write]:
    """Return a `quantization_config` and how a module is written."""

    def write(rows: int, columns: int, rng: np.random.Generator) -> Written:
        q = torch.from_numpy(rng.integers(-128, 128, (rows, columns)).astype(np.int8))
        scale = torch.from_numpy(scales_of((rows, 1), rng)).to(torch.bfloat16)
        return Written({"weight": q, "weight_scale": scale}, q.float() * scale.float())

    config = {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True}
    return _compressed("int-quantized", **config), write


def float_quantized(strategy: str) -> tuple[dict[str, Any], Write]:
    """Return a `quantization_config` and how a module is written."""

    def write(rows: int, columns: int, rng: np.random.Generator) -> Written:
        values = torch.from_numpy(rng.normal(0, 60, (rows, columns))).to(torch.float8_e4m3fn)
        scale = torch.from_numpy(scales_of((rows, 1), rng)).float() * 0.1
        scale = scale[0] if strategy == "tensor" else scale
        tensors = {"weight": values, "weight_scale": scale.contiguous()}
        return Written(tensors, values.float() * scale)

    config = {"num_bits": 8, "type": "float", "strategy": strategy, "symmetric": True}
    return _compressed("float-quantized", **config), write


def write_twice(
    plain: Path, config: dict[str, Any], write: Write, quantized: Path, expanded: Path
) -> None:
    """Write a checkpoint with every projection quantized, and one with what they stand for."""
    rng = np.random.default_rng(7)
    tensors = load_file(plain / "model.safetensors")
    stored, dense = dict(tensors), dict(tensors)
    for name, tensor in tensors.items():
        if "proj" in name and tensor.dim() == 2:
            written = write(*tensor.shape, rng)
            module = name.removesuffix(".weight")
            del stored[name]
            stored |= {f"{module}.{n}": t for n, t in written.tensors.items()}
            dense[name] = written.weight
    for directory, content in ((quantized, stored), (expanded, dense)):
        shutil.copytree(plain, directory)
        save_file({n: t.contiguous() for n, t in content.items()}, directory / "model.safetensors")
    path = quantized / "config.json"
    values = json.loads(path.read_text()) | {"quantization_config": config}
    path.write_text(json.dumps(values))
