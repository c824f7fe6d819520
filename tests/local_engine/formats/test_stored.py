"""Checkpoints that others quantized: what they stand for, kept and expanded, and broken ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from local_engine.batch import Batch, Segment
from local_engine.errors import CheckpointError
from local_engine.kv import KvShape, PagedKv
from local_engine.loader import LoadedModel, LoadOptions, load_model
from local_engine.quant import Fp8Linear, Int4Linear, Int8Linear, Quantization, SideBySide
from tests.local_engine.formats import writers
from tests.local_engine.support import prompt_of

FORMATS: dict[str, tuple[dict[str, Any], writers.Write]] = {
    "gptq-4-g32": writers.gptq(4, 32),
    "gptq-4-sym": writers.gptq(4, 32, symmetric=True),
    "gptq-4-act-order": writers.gptq(4, 32, acts=True),
    "gptq-4-channel": writers.gptq(4, -1),
    "gptq-8": writers.gptq(8, 32),
    "gptq-8-act-order": writers.gptq(8, 32, acts=True),
    "gptq-v2": writers.gptq(4, 32, version=2),
    "awq-g32": writers.awq(32),
    "packed-4": writers.pack_quantized(4, 32),
    "packed-4-asymmetric": writers.pack_quantized(4, 32, symmetric=False),
    "packed-4-act-order": writers.pack_quantized(4, 32, acts=True),
    "packed-8-channel": writers.pack_quantized(8, None),
    "int8": writers.int_quantized(),
    "fp8-tensor": writers.float_quantized("tensor"),
    "fp8-channel": writers.float_quantized("channel"),
}


def options(scheme: Quantization) -> LoadOptions:
    return LoadOptions(scheme, device=torch.device("cpu"))


def logprobs_of(model: LoadedModel) -> torch.Tensor:
    """Return the log-probabilities after each of some prompts."""
    rows = []
    for n in range(6):
        shape = KvShape.of(model.config)
        cache = PagedKv(shape, 4, model.decoder.dtype, model.decoder.device)
        batch = Batch([Segment(range(1, 5), 0, prompt_of(n, 12))], cache)
        rows.append(model.decoder.forward(batch, cache, batch.last)[0].log_softmax(-1))
    return torch.stack(rows)


def kept_class(name: str) -> type:
    if name.startswith("fp8"):
        return Fp8Linear
    return Int8Linear if "8" in name else Int4Linear


@pytest.fixture
def written(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> Callable[[str], tuple[Path, Path]]:
    """Return a checkpoint in a format, and one of what it stands for."""

    def write(name: str) -> tuple[Path, Path]:
        paths = tmp_path / "quantized", tmp_path / "expanded"
        writers.write_twice(checkpoint("llama"), *FORMATS[name], *paths)
        return paths

    return write


@pytest.mark.parametrize("name", FORMATS)
def test_a_stored_checkpoint_stands_for_its_expanded_one(
    name: str, written: Callable[[str], tuple[Path, Path]]
) -> None:
    quantized, expanded = written(name)
    wanted = logprobs_of(load_model(expanded, options("none")))

    found = logprobs_of(load_model(quantized, options("none")))
    kept = load_model(quantized, options("as-stored"))

    assert torch.allclose(found, wanted, atol=1e-4)
    divergence = (wanted.exp() * (wanted - logprobs_of(kept))).sum(-1)
    assert -1e-6 < divergence.mean().item() < 0.02
    linears = [layer.qkv for layer in kept.decoder.layers]
    expected = kept_class(name)
    assert all(isinstance(linear, (expected, SideBySide)) for linear in linears)
    assert all(isinstance(layer.output, expected) for layer in kept.decoder.layers)


def test_a_stored_checkpoint_may_be_quantized_again(
    written: Callable[[str], tuple[Path, Path]],
) -> None:
    quantized, _ = written("awq-g32")
    model = load_model(quantized, options("int8"))

    assert all(isinstance(layer.qkv, Int8Linear) for layer in model.decoder.layers)


def change(directory: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(directory / "model.safetensors")
    edit(tensors)
    save_file(tensors, directory / "model.safetensors")


Q = "model.layers.1.self_attn.q_proj"


@pytest.mark.parametrize(
    ("name", "edit", "match"),
    [
        ("gptq-4-g32", lambda t: t.pop(f"{Q}.qzeros"), "qzeros is missing"),
        ("gptq-4-g32", lambda t: t.update({f"{Q}.scales": torch.ones(9)}), "scales: expected"),
        (
            "gptq-4-g32",
            lambda t: t.update({f"{Q}.qweight": torch.ones(8, 64)}),
            "qweight: expected I32",
        ),
        (
            "gptq-4-g32",
            lambda t: t.update({f"{Q}.g_idx": torch.full((64,), 70, dtype=torch.int32)}),
            "found other counts in g_idx",
        ),
        ("gptq-4-g32", lambda t: t[f"{Q}.scales"].fill_(float("nan")), "NaN or infinite"),
        ("gptq-4-g32", lambda t: t.update({f"{Q}.bias": torch.ones(64)}), "no such tensor"),
        ("awq-g32", lambda t: t.update({f"{Q}.extra": torch.ones(2)}), "no such tensor"),
        (
            "packed-4",
            lambda t: t.update({f"{Q}.weight_shape": torch.tensor([64, 1 << 40])}),
            "does not fit weight_packed",
        ),
        ("int8", lambda t: t.pop(f"{Q}.weight_scale"), r"expected F64, F32|found I8"),
        ("fp8-channel", lambda t: t[f"{Q}.weight_scale"].fill_(float("inf")), "NaN or infinite"),
    ],
)
def test_broken_stored_tensors_are_named(
    name: str,
    edit: Callable[[dict[str, torch.Tensor]], None],
    match: str,
    written: Callable[[str], tuple[Path, Path]],
) -> None:
    quantized, _ = written(name)
    change(quantized, edit)

    with pytest.raises(CheckpointError, match=match):
        load_model(quantized, options("as-stored"))


@pytest.mark.parametrize(
    ("name", "changes", "match"),
    [
        ("gptq-4-g32", {"bits": 3}, "bits: expected 4 or 8"),
        ("gptq-4-g32", {"group_size": 48}, "does not fill groups of 48"),
        ("gptq-4-g32", {"group_size": 0}, "group_size"),
        ("gptq-4-g32", {"checkpoint_format": "marlin"}, "gptq or gptq_v2"),
        ("gptq-4-g32", {"quant_method": "bitsandbytes"}, "is not read; expected gptq, awq"),
        ("awq-g32", {"version": "gemv"}, "version: expected gemm"),
        ("awq-g32", {"bits": 8}, "bits: expected 4"),
        ("packed-4", {"format": "marlin-24"}, "format: expected one of"),
        ("packed-4", {"config_groups": {}}, "config_groups"),
        ("packed-4", {"config_groups": {"a": {"weights": {"num_bits": 4}}}}, "strategy"),
        ("packed-4", {"config_groups": [1]}, "expected an object"),
    ],
)
def test_unusable_settings_are_named(
    name: str,
    changes: dict[str, Any],
    match: str,
    written: Callable[[str], tuple[Path, Path]],
) -> None:
    path = written(name)[0] / "config.json"
    values = json.loads(path.read_text())
    values["quantization_config"] |= changes
    path.write_text(json.dumps(values))

    with pytest.raises(CheckpointError, match=match):
        load_model(path.parent, options("none"))
