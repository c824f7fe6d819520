"""Checkpoints as Hugging Face directories: written by training, read by evaluation."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from local_engine.demo.network import Llama, Shape
from local_engine.demo.tokenizer_training import BOS, END, PAD, save_tokenizer, token_id

MAX_NEW_TOKENS = 160


def save_checkpoint(network: Llama, tokenizer: Tokenizer, directory: Path) -> None:
    """Write a checkpoint that transformers loads, its weights in bfloat16.

    The weights are replaced in one step, so a reader never sees half of them.
    """
    directory.mkdir(parents=True, exist_ok=True)
    save_tokenizer(tokenizer, directory)
    write_json(directory / "config.json", config(network.shape, tokenizer))
    write_json(directory / "generation_config.json", _generation_config(tokenizer))
    weights = {
        name: parameter.detach().to(torch.bfloat16).contiguous()
        for name, parameter in network.named_parameters()
    }
    partial = directory / "model.safetensors.partial"
    save_file(weights, partial, metadata={"format": "pt"})
    os.replace(partial, directory / "model.safetensors")


def load_checkpoint(directory: Path) -> tuple[Llama, Tokenizer]:
    """Read a checkpoint written by `save_checkpoint`, its weights in float32."""
    fields = json.loads((directory / "config.json").read_text())
    network = Llama(_shape(fields))
    weights = load_file(directory / "model.safetensors")
    network.load_state_dict({name: weight.float() for name, weight in weights.items()})
    return network, Tokenizer.from_file(str(directory / "tokenizer.json"))


def config(shape: Shape, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the fields of `config.json` for a network."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_width,
        "max_position_embeddings": shape.positions,
        "rope_theta": shape.rope_theta,
        "rope_scaling": None,
        "rms_norm_eps": shape.norm_epsilon,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "use_cache": True,
        "initializer_range": 0.02,
        "torch_dtype": "bfloat16",
        **_special_ids(tokenizer),
    }


def _shape(fields: dict[str, Any]) -> Shape:
    return Shape(
        vocabulary=fields["vocab_size"],
        width=fields["hidden_size"],
        layers=fields["num_hidden_layers"],
        heads=fields["num_attention_heads"],
        kv_heads=fields["num_key_value_heads"],
        head_width=fields["head_dim"],
        feed_forward=fields["intermediate_size"],
        positions=fields["max_position_embeddings"],
        rope_theta=fields["rope_theta"],
        norm_epsilon=fields["rms_norm_eps"],
    )


def _generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    return {"do_sample": False, "max_new_tokens": MAX_NEW_TOKENS, **_special_ids(tokenizer)}


def _special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    return {
        "bos_token_id": token_id(tokenizer, BOS),
        "eos_token_id": token_id(tokenizer, END),
        "pad_token_id": token_id(tokenizer, PAD),
    }


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write one JSON object, indented."""
    path.write_text(json.dumps(value, indent=2) + "\n")
