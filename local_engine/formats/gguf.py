"""A .gguf file as a checkpoint: its settings, names and tensors in Hugging Face's terms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from local_engine.config import ModelConfig, parse_config
from local_engine.errors import CheckpointError
from local_engine.fields import Fields
from local_engine.formats.gguf_blocks import DECODERS, grid_of
from local_engine.formats.gguf_file import TYPES, GgufFile
from local_engine.formats.layout import Need
from local_engine.quant import Grid, Packed
from local_engine.rope_config import Rope
from local_engine.weights import TensorEntry, Weights

_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
_OUTER = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_BLOCK = re.compile(r"blk\.(\d+)\.([a-z_]+)\.(weight|bias)")
_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_BLOCK_BYTES = {name: size for name, _, size in TYPES.values()}
_FACTORS = "rope_freqs.weight"


def read_gguf_config(file: GgufFile, *, is_long: bool = False) -> ModelConfig:
    """Read the shape of a decoder from a file's metadata; raises `CheckpointError`."""
    name = file.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise CheckpointError(
            file.path,
            f"general.architecture: expected one of {known}, found {name!r}; give the "
            "Hugging Face checkpoint directory instead",
        )
    prefix = f"{name}."
    own = {k.removeprefix(prefix): v for k, v in file.metadata.items() if k.startswith(prefix)}
    fields = Fields(file.path, own)
    _refuse_what_is_not_honoured(fields)
    config = parse_config(file.path, _hugging_face(file, fields, name), is_long=is_long)
    return replace(config, rope=_with_factors(file, config.rope))


def _hugging_face(file: GgufFile, fields: Fields, name: str) -> dict[str, Any]:
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise CheckpointError(file.path, "tensor token_embd.weight is missing or no matrix")
    own = fields.values
    values: dict[str, Any] = {
        "architectures": [_ARCHITECTURES[name]],
        "vocab_size": embedding.shape[0],
        "hidden_size": own.get("embedding_length"),
        "intermediate_size": own.get("feed_forward_length"),
        "num_hidden_layers": own.get("block_count"),
        "num_attention_heads": own.get("attention.head_count"),
        "num_key_value_heads": own.get("attention.head_count_kv"),
        "head_dim": own.get("attention.key_length"),
        "max_position_embeddings": own.get("context_length"),
        "rms_norm_eps": own.get("attention.layer_norm_rms_epsilon"),
        "rope_theta": own.get("rope.freq_base"),
        "sliding_window": own.get("attention.sliding_window") or None,
        "tie_word_embeddings": "output.weight" not in file.tensors,
    }
    kind = fields.text("rope.scaling.type", "none")
    if kind != "none":
        values["rope_scaling"] = {
            "rope_type": kind,
            "factor": own.get("rope.scaling.factor"),
            "original_max_position_embeddings": own.get("rope.scaling.original_context_length"),
        }
    return values


def _refuse_what_is_not_honoured(fields: Fields) -> None:
    heads = fields.integer("attention.head_count", 1, 1024)
    size = fields.integer("embedding_length", 1, 1 << 17) // heads
    size = fields.integer("attention.key_length", 1, 1024, size)
    neutral = {
        "expert_count": (None, 0),
        "rope.dimension_count": (None, size),
        "attention.value_length": (None, size),
        "rope.scaling.attn_factor": (None, 1.0),
        "attn_logit_softcapping": (None, 0.0),
        "final_logit_softcapping": (None, 0.0),
        "logit_scale": (None, 1.0),
    }
    for key, allowed in neutral.items():
        if fields.values.get(key) not in allowed:
            raise fields.fail(key, "nothing that changes the network", fields.values[key])


def _with_factors(file: GgufFile, rope: Rope) -> Rope:
    """Divide the frequencies by the factors that a file may bring (Llama 3.1's stretching)."""
    if _FACTORS not in file.tensors:
        return rope
    entry = file.tensors[_FACTORS]
    if entry.type != "F32" or entry.shape != (rope.width // 2,) or rope.kind != "default":
        raise CheckpointError(file.path, f"{_FACTORS}: expected {rope.width // 2} factors alone")
    factors = file.data(_FACTORS).view(torch.float32)
    if not bool((factors.isfinite() & (factors > 0)).all()):
        raise CheckpointError(file.path, f"{_FACTORS}: expected positive numbers")
    return Rope(rope.theta, rope.width, "longrope", divisors=tuple(factors.tolist()))


class GgufWeights(Weights):
    """The tensors of a file by Hugging Face's names."""

    def __init__(self, file: GgufFile, config: ModelConfig) -> None:
        self.file = file
        self._config = config
        self._is_interleaved = file.metadata.get("general.architecture") == "llama"
        self._stored: dict[str, str] = {}
        entries = {}
        for stored, tensor in file.tensors.items():
            if stored == _FACTORS:
                continue
            name = self._name(stored)
            self._stored[name] = stored
            entries[name] = TensorEntry(file.path, tensor.shape, tensor.type)
        super().__init__(entries)

    def _name(self, stored: str) -> str:
        module, _, kind = stored.rpartition(".")
        if module in _OUTER:
            return f"{_OUTER[module]}.{kind}"
        match = _BLOCK.fullmatch(stored)
        if match is None or match[2] not in _INNER:
            raise CheckpointError(
                self.file.path, f"{stored}: this architecture has no such tensor here"
            )
        return f"model.layers.{int(match[1])}.{_INNER[match[2]]}.{match[3]}"

    def grid(self, name: str) -> Grid:
        """Return the integers of a tensor stored in blocks."""
        stored = self._stored[name]
        entry = self.file.tensors[stored]
        rows, columns = entry.shape
        grid = grid_of(
            self.file.data(stored), entry.type, (rows, columns), _BLOCK_BYTES[entry.type]
        )
        if not bool((grid.scale.isfinite() & grid.offset.isfinite()).all()):
            raise CheckpointError(
                self.file.path, f"{stored}: holds NaN or infinite values; download it again"
            )
        order = self._rows_in_order(name, rows)
        if order is None:
            return grid
        return Grid(grid.q[order], grid.scale[order], grid.offset[order], grid.bits)

    def raw(self, name: str) -> Tensor:
        """Read a float tensor as it is stored."""
        stored = self._stored[name]
        entry = self.file.tensors[stored]
        tensor = self.file.data(stored).view(_FLOATS[entry.type]).view(entry.shape)
        order = self._rows_in_order(name, entry.shape[0])
        # Not the file itself, which would stay mapped as long as the model.
        return tensor.clone() if order is None else tensor[order]

    def _rows_in_order(self, name: str, rows: int) -> Tensor | None:
        """Undo how files of Llama's kind keep queries and keys: pairs side by side."""
        if not self._is_interleaved or not re.search(r"self_attn\.[qk]_proj", name):
            return None
        c = self._config
        heads = c.heads if "q_proj" in name else c.kv_heads
        return torch.arange(rows).view(heads, -1, 2).transpose(1, 2).flatten()

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)


@dataclass(frozen=True, slots=True)
class GgufLayout:
    """Blocks of 32 or 256 inputs, each with scales of its own."""

    def holds(self, weights: Weights, module: str) -> bool:
        """Tell whether the module is stored in blocks."""
        entry = weights.entry(f"{module}.weight")
        return entry is not None and entry.dtype in DECODERS

    def needs(self, weights: Weights, module: str, rows: int, columns: int) -> dict[str, Need]:
        """Name the tensor of a module."""
        del weights
        return {f"{module}.weight": Need((rows, columns), frozenset(DECODERS))}

    def read(self, weights: Weights, module: str) -> Grid | Packed | Tensor:
        """Return the integers of a module."""
        assert isinstance(weights, GgufWeights)
        return weights.grid(f"{module}.weight")


def open_gguf(path: Path, *, is_long: bool) -> tuple[GgufFile, ModelConfig, GgufWeights]:
    """Open a file and check its settings and names."""
    file = GgufFile(path)
    config = read_gguf_config(file, is_long=is_long)
    return file, config, GgufWeights(file, config)
