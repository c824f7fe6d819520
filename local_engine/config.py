"""The shape of a decoder, read from config.json and checked before anything is allocated."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from local_engine.errors import CheckpointError

ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
_JSON_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies are stretched for contexts longer than trained."""

    kind: Literal["default", "linear", "llama3"] = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A pre-norm decoder with rotary positions, grouped queries and SwiGLU."""

    vocab: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    norm_eps: float
    rope_theta: float
    rope: RopeScaling
    has_tied_head: bool
    has_qkv_bias: bool
    has_output_bias: bool
    has_mlp_bias: bool
    has_qk_norm: bool

    @property
    def q_size(self) -> int:
        """Return the width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Return the width of all key heads together."""
        return self.kv_heads * self.head_dim


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object, or raise a `CheckpointError` that names the file."""
    try:
        if path.stat().st_size > _JSON_BYTES:
            raise CheckpointError(path, f"expected JSON under {_JSON_BYTES} bytes")
        value = json.loads(path.read_bytes())
    except OSError as exc:
        raise CheckpointError(path, f"cannot be read ({exc.strerror or exc})") from exc
    except (ValueError, RecursionError) as exc:
        raise CheckpointError(path, f"expected a JSON object, found broken JSON ({exc})") from exc
    if not isinstance(value, dict):
        raise CheckpointError(path, f"expected a JSON object, found {type(value).__name__}")
    return value


def read_config(directory: Path) -> ModelConfig:
    """Read and check config.json of a Hugging Face checkpoint directory."""
    path = directory / "config.json"
    fields = _Fields(path, read_json(path))
    kind = _architecture(fields)
    heads = fields.integer("num_attention_heads", 1, 1024)
    hidden = fields.integer("hidden_size", 1, 1 << 17)
    kv_heads = fields.integer("num_key_value_heads", 1, 1024, default=heads)
    _check_heads(fields, hidden, heads, kv_heads)
    has_bias = fields.flag("attention_bias", default=kind == "qwen2")
    return ModelConfig(
        vocab=fields.integer("vocab_size", 1, 1 << 22),
        hidden=hidden,
        intermediate=fields.integer("intermediate_size", 1, 1 << 20),
        layers=fields.integer("num_hidden_layers", 1, 1024),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=_head_dim(fields, hidden, heads),
        context=_context(fields),
        norm_eps=fields.number("rms_norm_eps", 1e-12, 0.1, default=1e-6),
        rope_theta=_rope_theta(fields),
        rope=_rope_scaling(fields),
        has_tied_head=fields.flag("tie_word_embeddings", default=False),
        has_qkv_bias=has_bias or kind == "qwen2",
        has_output_bias=has_bias and kind != "qwen2",
        has_mlp_bias=fields.flag("mlp_bias", default=False),
        has_qk_norm=kind == "qwen3",
    )


class _Fields:
    """Typed, bounded look-ups in one JSON object."""

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path = path
        self.values = values

    def fail(self, key: str, expected: str, found: object) -> CheckpointError:
        return CheckpointError(self.path, f"{key}: expected {expected}, found {found!r}"[:300])

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if type(value) is not int or not low <= value <= high:
            raise self.fail(key, f"a whole number from {low} to {high}", value)
        return value

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        value: Any = self.values.get(key)
        if value is None and default is not None:
            return default
        if type(value) not in (int, float) or not low <= value <= high or not math.isfinite(value):
            raise self.fail(key, f"a number from {low} to {high}", value)
        return float(value)

    def flag(self, key: str, *, default: bool) -> bool:
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.fail(key, "true or false", value)
        return value

    def section(self, *keys: str) -> _Fields:
        """Return the first of the named objects that is present, else an empty one."""
        for key in keys:
            value = self.values.get(key)
            if isinstance(value, Mapping):
                return _Fields(self.path, value)
            if value is not None:
                raise self.fail(key, "an object", value)
        return _Fields(self.path, {})


def _architecture(fields: _Fields) -> str:
    names = fields.values.get("architectures")
    listed = names if isinstance(names, list) else []
    known = [ARCHITECTURES[n] for n in listed if isinstance(n, str) and n in ARCHITECTURES]
    if not known:
        raise fields.fail("architectures", f"one of {', '.join(ARCHITECTURES)}", names)
    if "quantization_config" in fields.values:
        raise CheckpointError(
            fields.path,
            "quantization_config: weights stored quantized are not read yet; use the "
            "original checkpoint and let the engine quantize it",
        )
    activation = fields.values.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise fields.fail("hidden_act", "'silu'", activation)
    return known[0]


def _check_heads(fields: _Fields, hidden: int, heads: int, kv_heads: int) -> None:
    if heads % kv_heads:
        raise fields.fail("num_key_value_heads", f"a divisor of {heads} heads", kv_heads)
    if fields.values.get("head_dim") is None and hidden % heads:
        raise fields.fail("hidden_size", f"a multiple of {heads} heads", hidden)


def _head_dim(fields: _Fields, hidden: int, heads: int) -> int:
    size = fields.integer("head_dim", 2, 1024, default=hidden // heads)
    if size % 2:
        raise fields.fail("head_dim", "an even number, as rotary positions need", size)
    return size


def _context(fields: _Fields) -> int:
    context = fields.integer("max_position_embeddings", 1, 1 << 24, default=2048)
    # Inside its window a sliding-window model attends like any other, so it is served that far.
    is_sliding = fields.values.get("use_sliding_window", True)
    if is_sliding and fields.values.get("sliding_window") is not None:
        context = min(context, fields.integer("sliding_window", 1, 1 << 24))
    return context


def _rope_theta(fields: _Fields) -> float:
    nested = fields.section("rope_parameters")
    source = nested if "rope_theta" in nested.values else fields
    return source.number("rope_theta", 1.0, 1e12, default=10000.0)


def _rope_scaling(fields: _Fields) -> RopeScaling:
    rope = fields.section("rope_parameters", "rope_scaling")
    kind = rope.values.get("rope_type", rope.values.get("type", "default"))
    if kind == "default":
        return RopeScaling()
    factor = rope.number("factor", 1.0, 1e4)
    if kind == "linear":
        return RopeScaling("linear", factor)
    if kind != "llama3":
        raise rope.fail("rope_type", "one of default, linear, llama3", kind)
    scaling = RopeScaling(
        "llama3",
        factor,
        rope.number("low_freq_factor", 1e-3, 1e4),
        rope.number("high_freq_factor", 1e-3, 1e4),
        rope.integer("original_max_position_embeddings", 1, 1 << 24),
    )
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        raise rope.fail("high_freq_factor", "more than low_freq_factor", scaling.high_freq_factor)
    return scaling
