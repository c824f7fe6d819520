"""Checkpoints of true shapes with random weights: speed does not depend on their values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from local_engine.assembly import expected_shapes
from local_engine.config import read_config

SHAPES: Mapping[str, Mapping[str, Any]] = {
    "1m": {
        "hidden_size": 128,
        "intermediate_size": 352,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 640,
    },
    "8m": {
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 4096,
    },
    "100m": {
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "vocab_size": 32000,
    },
    "500m": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 26,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "vocab_size": 64000,
    },
}
"""Llama's plan; the names round the count of weights."""

CONTEXT = 4096


def write_checkpoint(directory: Path, shape: str, seed: int = 0) -> None:
    """Write a Llama of a named shape in bf16, with a tokenizer of as many made-up tokens."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "eos_token_id": 0,
        **SHAPES[shape],
    }
    (directory / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: _random(name, size, generator)
        for name, size in expected_shapes(read_config(directory)).items()
    }
    save_file(tensors, str(directory / "model.safetensors"), {"format": "pt"})
    vocab = {f"t{n}": n for n in range(config["vocab_size"])}
    core = {"type": "WordLevel", "vocab": vocab, "unk_token": "t0"}
    parts = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "model": core,
        "decoder": {**parts, "use_regex": True},
    }
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))


def _random(name: str, size: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    if "norm" in name:
        return torch.ones(size, dtype=torch.bfloat16)
    return torch.randn(size, generator=generator).mul_(0.02).to(torch.bfloat16)
