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
from local_engine.formats.gguf_kinds import KINDS, GgufKind, kind_of
from local_engine.formats.layout import Need
from local_engine.quant import Grid, Packed
from local_engine.rope_config import Rope
from local_engine.weights import TensorEntry, Weights

_OUTER = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_BLOCK = re.compile(r"blk\.(\d+)\.([a-z_]+)\.(weight|bias)")
_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_BLOCK_BYTES = {name: size for name, _, size in TYPES.values()}
_FACTORS = "rope_freqs.weight"
_SHORT, _LONG = "rope_factors_short.weight", "rope_factors_long.weight"


def read_gguf_config(file: GgufFile, *, is_long: bool = False) -> ModelConfig:
    """Read the shape of a decoder from a file's metadata; raises `CheckpointError`."""
    kind = kind_of(file.metadata)
    name = file.metadata.get("general.architecture")
    if kind is None:
        known = ", ".join(KINDS)
        raise CheckpointError(
            file.path,
            f"general.architecture: expected one of {known}, found {name!r}; give the "
            "Hugging Face checkpoint directory instead",
        )
    prefix = f"{name}."
    own = {k.removeprefix(prefix): v for k, v in file.metadata.items() if k.startswith(prefix)}
    fields = Fields(file.path, own)
    _refuse_what_is_not_honoured(fields, kind)
    config = parse_config(file.path, _hugging_face(file, fields, kind), is_long=is_long)
    return replace(config, rope=_with_factors(file, config.rope))


def _hugging_face(file: GgufFile, fields: Fields, kind: GgufKind) -> dict[str, Any]:
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise CheckpointError(file.path, "tensor token_embd.weight is missing or no matrix")
    own = fields.values
    values: dict[str, Any] = {
        "architectures": [kind.architecture],
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
    scaling = _scaling(file, fields)
    return values | kind.settings(own) | ({"rope_scaling": scaling} if scaling else {})


def _scaling(file: GgufFile, fields: Fields) -> dict[str, Any]:
    """Return how frequencies are stretched, as the metadata or two sets of factors say."""
    own, kind = fields.values, fields.text("rope.scaling.type", "none")
    original = own.get("rope.scaling.original_context_length")
    rest: dict[str, Any] = {"factor": own.get("rope.scaling.factor")}
    if _SHORT in file.tensors and _LONG in file.tensors:
        kind = "longrope"
        rest = {"short_factor": _factors(file, _SHORT), "long_factor": _factors(file, _LONG)}
    if kind == "none":
        return {}
    return {"rope_type": kind, "original_max_position_embeddings": original, **rest}


def _refuse_what_is_not_honoured(fields: Fields, kind: GgufKind) -> None:
    heads = fields.integer("attention.head_count", 1, 1024)
    size = fields.integer("embedding_length", 1, 1 << 17) // heads
    size = fields.integer("attention.key_length", 1, 1024, size)
    neutral = {
        "expert_count": (None, 0),
        "expert_shared_count": (None, 0),
        "expert_gating_func": (None, 1),
        "expert_weights_scale": (None, 0.0, 1.0),
        "rope.dimension_count": (None, size),
        "attention.value_length": (None, size),
        "rope.scaling.attn_factor": (None, 1.0),
        "attn_logit_softcapping": (None, 0.0),
        "final_logit_softcapping": (None, 0.0),
        "logit_scale": (None, 1.0),
    }
    for key, allowed in neutral.items():
        if key not in kind.honoured and fields.values.get(key) not in allowed:
            raise fields.fail(key, "nothing that changes the network", fields.values[key])


def _with_factors(file: GgufFile, rope: Rope) -> Rope:
    """Divide the frequencies by the factors that a file may bring (Llama 3.1's stretching)."""
    if _FACTORS not in file.tensors:
        return rope
    factors = _factors(file, _FACTORS)
    if len(factors) != rope.width // 2 or rope.kind != "default":
        raise CheckpointError(file.path, f"{_FACTORS}: expected {rope.width // 2} factors alone")
    return Rope(rope.theta, rope.width, "longrope", divisors=tuple(factors))


def _factors(file: GgufFile, name: str) -> list[float]:
    """Return the factors of a tensor of the file."""
    entry = file.tensors[name]
    if entry.type != "F32" or len(entry.shape) != 1:
        raise CheckpointError(file.path, f"{name}: expected factors in F32")
    factors = file.data(name).view(torch.float32)
    if not bool((factors.isfinite() & (factors > 0)).all()):
        raise CheckpointError(file.path, f"{name}: expected positive numbers")
    found: list[float] = factors.tolist()
    return found


@dataclass(frozen=True, slots=True)
class _Place:
    """A tensor of the file, or the matrix of one expert in it."""

    stored: str
    shape: tuple[int, ...]
    expert: int | None = None


class GgufWeights(Weights):
    """The tensors of a file by Hugging Face's names."""

    def __init__(self, file: GgufFile, config: ModelConfig) -> None:
        kind = kind_of(file.metadata)
        assert kind is not None
        self.file = file
        self._config = config
        self._kind = kind
        self._places = {
            name: place
            for stored in file.tensors
            if stored not in (_FACTORS, _SHORT, _LONG)
            for name, place in self._named(stored)
        }
        super().__init__(
            {
                name: TensorEntry(file.path, place.shape, file.tensors[place.stored].type)
                for name, place in self._places.items()
            }
        )

    def _named(self, stored: str) -> Iterator[tuple[str, _Place]]:
        """Yield the names of a tensor: one, or one for each expert."""
        shape = self.file.tensors[stored].shape
        module, _, last = stored.rpartition(".")
        match = _BLOCK.fullmatch(stored)
        if module in _OUTER:
            yield f"{_OUTER[module]}.{last}", _Place(stored, shape)
        elif match is not None and match[2] in self._kind.inner:
            name = f"model.layers.{int(match[1])}.{self._kind.inner[match[2]]}.{match[3]}"
            yield name, _Place(stored, shape)
        elif match is not None and match[2] in self._kind.experts and len(shape) == 3:
            for expert in range(shape[0]):
                inner = self._kind.experts[match[2]].format(expert)
                name = f"model.layers.{int(match[1])}.{inner}.{match[3]}"
                yield name, _Place(stored, shape[1:], expert)
        else:
            raise CheckpointError(
                self.file.path, f"{stored}: this architecture has no such tensor here"
            )

    def _data(self, place: _Place) -> Tensor:
        data = self.file.data(place.stored)
        if place.expert is None:
            return data
        return data.view(self.file.tensors[place.stored].shape[0], -1)[place.expert]

    def grid(self, name: str) -> Grid:
        """Return the integers of a tensor stored in blocks."""
        place = self._places[name]
        form = self.file.tensors[place.stored].type
        rows, columns = place.shape
        grid = grid_of(self._data(place), form, (rows, columns), _BLOCK_BYTES[form])
        if not bool((grid.scale.isfinite() & grid.offset.isfinite()).all()):
            raise CheckpointError(
                self.file.path, f"{place.stored}: holds NaN or infinite values; download it again"
            )
        order = self._rows_in_order(name, rows)
        if order is None:
            return grid
        return Grid(grid.q[order], grid.scale[order], grid.offset[order], grid.bits)

    def raw(self, name: str) -> Tensor:
        """Read a float tensor as it is stored, but for what files add to norms."""
        place = self._places[name]
        form = _FLOATS[self.file.tensors[place.stored].type]
        tensor = self._data(place).view(form).view(place.shape)
        if self._kind.has_offset_norms and name.endswith("norm.weight"):
            return tensor.float() - 1.0
        order = self._rows_in_order(name, place.shape[0])
        # Not the file itself, which would stay mapped as long as the model.
        return tensor.clone() if order is None else tensor[order]

    def _rows_in_order(self, name: str, rows: int) -> Tensor | None:
        """Undo how files of Llama's kind keep queries and keys: pairs side by side."""
        if not self._kind.is_interleaved or not re.search(r"self_attn\.[qk]_proj", name):
            return None
        c = self._config
        heads = c.heads if "q_proj" in name else c.kv_heads
        return torch.arange(rows).view(heads, -1, 2).transpose(1, 2).flatten()

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)


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
