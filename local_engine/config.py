"""The shape of a decoder, read from config.json and checked before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from local_engine.fields import Fields, read_json
from local_engine.rope_config import Rope, Span, read_rope, rope_span, served_context

Activation = Literal["silu", "gelu", "gelu_tanh"]

_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
}
# Settings that change what is computed, with the values that leave it as it is here.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "use_bidirectional_attention": (None, False),
    "attention_multiplier": (None,),
    "attn_temperature_tuning": (None, False),
    "attention_chunk_size": (None,),
    "clip_qkv": (None,),
    "embedding_multiplier": (None, 1, 1.0),
    "layer_norm_type": (None,),
    "logit_scale": (None, 1, 1.0),
    "logits_scaling": (None, 1, 1.0),
    "no_rope_layers": (None,),
    "parallel_attn": (None, False),
    "qk_layernorm": (None, False),
    "residual_multiplier": (None, 1, 1.0),
    "rope_interleaved": (None, False),
    "scale_emb": (None, 1, 1.0),
    "use_mrope": (None, False),
}


@dataclass(frozen=True, slots=True)
class Family:
    """What an architecture does that its config.json does not say."""

    theta: float = 10000.0
    norm_eps: float = 1e-6
    has_qkv_bias: bool = False
    has_qk_norm: bool = False
    is_gemma: bool = False
    has_soft_caps: bool = False
    has_local_rope: bool = False
    has_window: bool = False
    default_window: int | None = None
    window_switch: bool | None = None  # the default of `use_sliding_window`, where that is read
    sliding_of: int = 1  # all but every n-th layer slide, where no list says so
    head_dim: int | None = None
    has_fused_projections: bool = False
    experts: Literal["none", "qwen", "mixtral"] = "none"


ARCHITECTURES = {
    "LlamaForCausalLM": Family(),
    "MistralForCausalLM": Family(has_window=True, default_window=4096),
    "Qwen2ForCausalLM": Family(
        has_qkv_bias=True, has_window=True, default_window=4096, window_switch=False
    ),
    "Qwen3ForCausalLM": Family(
        has_qk_norm=True, has_window=True, default_window=4096, window_switch=False, head_dim=128
    ),
    "Qwen3MoeForCausalLM": Family(
        has_qk_norm=True,
        has_window=True,
        default_window=4096,
        window_switch=False,
        experts="qwen",
    ),
    "MixtralForCausalLM": Family(theta=1e6, norm_eps=1e-5, has_window=True, experts="mixtral"),
    "Phi3ForCausalLM": Family(norm_eps=1e-5, has_window=True, has_fused_projections=True),
    "Gemma2ForCausalLM": Family(
        is_gemma=True,
        has_soft_caps=True,
        has_window=True,
        default_window=4096,
        sliding_of=2,
        head_dim=256,
    ),
    "Gemma3ForCausalLM": Family(
        theta=1e6,
        is_gemma=True,
        has_qk_norm=True,
        has_local_rope=True,
        has_window=True,
        default_window=4096,
        sliding_of=6,
        head_dim=256,
    ),
}


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture in place of one feed-forward block, in the layers of `layers`."""

    count: int
    per_token: int
    intermediate: int
    is_normalized: bool
    layers: frozenset[int]
    naming: Literal["qwen", "mixtral"]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A pre-norm decoder with rotary positions, grouped queries and a gated feed-forward block.

    `windows` has one entry a layer: how many positions, itself included, a token sees, or
    None for all. Layers with a window turn by `local_rope` where there is one.
    """

    vocab: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context: int
    norm_eps: float
    rope: Rope
    local_rope: Rope | None
    windows: tuple[int | None, ...]
    attention_scale: float
    attention_soft_cap: float | None
    logit_soft_cap: float | None
    embedding_scale: float
    activation: Activation
    experts: Experts | None
    has_tied_head: bool
    has_qkv_bias: bool
    has_output_bias: bool
    has_mlp_bias: bool
    has_qk_norm: bool
    has_post_norms: bool
    has_offset_norms: bool
    has_fused_projections: bool

    @property
    def q_size(self) -> int:
        """Return the width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Return the width of all key heads together."""
        return self.kv_heads * self.head_dim


def read_config(directory: Path, *, is_long: bool = False) -> ModelConfig:
    """Read and check config.json of a Hugging Face checkpoint directory.

    `is_long` takes the frequencies of the stretched context where they come in two sets.
    """
    path = directory / "config.json"
    return parse_config(path, read_json(path), is_long=is_long)


def parse_config(path: Path, values: Mapping[str, Any], *, is_long: bool = False) -> ModelConfig:
    """Check the settings of a decoder; `path` is named in errors."""
    fields = Fields(path, values)
    family = _family(fields)
    _refuse_what_is_not_honoured(fields, family)
    heads = fields.integer("num_attention_heads", 1, 1024)
    hidden = fields.integer("hidden_size", 1, 1 << 17)
    kv_heads = fields.integer("num_key_value_heads", 1, 1024, default=heads)
    _check_heads(fields, family, hidden, heads, kv_heads)
    head_dim = _head_dim(fields, family, hidden, heads)
    layers = fields.integer("num_hidden_layers", 1, 1024)
    declared = fields.integer("max_position_embeddings", 1, 1 << 24, default=2048)
    span = rope_span(fields, declared, is_long=is_long)
    rope, local_rope = _ropes(fields, family, head_dim, span)
    has_bias = fields.flag("attention_bias", default=False)
    return ModelConfig(
        vocab=fields.integer("vocab_size", 1, 1 << 22),
        hidden=hidden,
        intermediate=fields.integer("intermediate_size", 1, 1 << 20),
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        context=served_context(rope, span),
        norm_eps=fields.number("rms_norm_eps", 1e-12, 0.1, default=family.norm_eps),
        rope=rope,
        local_rope=local_rope,
        windows=_windows(fields, family, layers),
        attention_scale=_attention_scale(fields, family, head_dim),
        attention_soft_cap=_soft_cap(fields, family, "attn_logit_softcapping", 50.0),
        logit_soft_cap=_soft_cap(fields, family, "final_logit_softcapping", 30.0),
        embedding_scale=math.sqrt(hidden) if family.is_gemma else 1.0,
        activation=_activation(fields, family),
        experts=_experts(fields, family, layers),
        has_tied_head=fields.flag("tie_word_embeddings", default=family.is_gemma),
        has_qkv_bias=has_bias or family.has_qkv_bias,
        has_output_bias=has_bias and not family.has_qkv_bias,
        has_mlp_bias=fields.flag("mlp_bias", default=False),
        has_qk_norm=family.has_qk_norm,
        has_post_norms=family.is_gemma,
        has_offset_norms=family.is_gemma,
        has_fused_projections=family.has_fused_projections,
    )


def _family(fields: Fields) -> Family:
    names = fields.values.get("architectures")
    listed = names if isinstance(names, list) else []
    known = [ARCHITECTURES[n] for n in listed if isinstance(n, str) and n in ARCHITECTURES]
    if not known:
        raise fields.fail("architectures", f"one of {', '.join(ARCHITECTURES)}", names)
    return known[0]


def _refuse_what_is_not_honoured(fields: Fields, family: Family) -> None:
    """Refuse settings that would change the answer and that nothing here reads."""
    for key, neutral in _NEUTRAL.items():
        value = fields.values.get(key)
        if not any(value is n or (type(value) is type(n) and value == n) for n in neutral):
            raise fields.fail(key, "nothing that changes the network", value)
    if family.experts == "none":
        for key in ("num_experts", "num_local_experts", "n_routed_experts"):
            if fields.values.get(key) not in (None, 0, 1):
                raise fields.fail(key, "one feed-forward block a layer", fields.values[key])


def _check_heads(fields: Fields, family: Family, hidden: int, heads: int, kv_heads: int) -> None:
    if heads % kv_heads:
        raise fields.fail("num_key_value_heads", f"a divisor of {heads} heads", kv_heads)
    if fields.values.get("head_dim") is None and not family.head_dim and hidden % heads:
        raise fields.fail("hidden_size", f"a multiple of {heads} heads", hidden)


def _head_dim(fields: Fields, family: Family, hidden: int, heads: int) -> int:
    size = fields.integer("head_dim", 2, 1024, default=family.head_dim or hidden // heads)
    if size % 2:
        raise fields.fail("head_dim", "an even number, as rotary positions need", size)
    return size


def _activation(fields: Fields, family: Family) -> Activation:
    key = "hidden_activation" if family.is_gemma else "hidden_act"
    name = fields.text(key, "gelu_pytorch_tanh" if family.is_gemma else "silu")
    if name not in _ACTIVATIONS:
        raise fields.fail(key, f"one of {', '.join(_ACTIVATIONS)}", name)
    return _ACTIVATIONS[name]


def _attention_scale(fields: Fields, family: Family, head_dim: int) -> float:
    if not family.is_gemma:
        return 1.0 / math.sqrt(head_dim)
    return 1.0 / math.sqrt(fields.number("query_pre_attn_scalar", 1e-3, 1e6, default=256.0))


def _soft_cap(fields: Fields, family: Family, key: str, default: float) -> float | None:
    cap = fields.optional_number(key, 1e-3, 1e6, default if family.has_soft_caps else None)
    is_honoured = family.has_soft_caps or (family.is_gemma and key == "final_logit_softcapping")
    if cap is not None and not is_honoured:
        raise fields.fail(key, "no soft cap in this architecture", cap)
    return cap


def _windows(fields: Fields, family: Family, layers: int) -> tuple[int | None, ...]:
    """Return how many positions each layer sees."""
    has_switch = fields.flag("use_sliding_window", default=family.window_switch is not False)
    default = None if not has_switch else family.default_window
    window = fields.optional_number("sliding_window", 1, 1 << 24, default)
    if not has_switch or window is None:
        return (None,) * layers
    if not family.has_window:
        raise fields.fail("sliding_window", "null, as this architecture has none", window)
    size = fields.integer("sliding_window", 1, 1 << 24, int(window))
    return tuple(size if slides else None for slides in _sliding(fields, family, layers))


def _sliding(fields: Fields, family: Family, layers: int) -> list[bool]:
    """Tell which layers slide: by the list, by the pattern, or all of them."""
    listed = fields.values.get("layer_types")
    if listed is not None and (family.sliding_of > 1 or family.window_switch is not None):
        kinds = {"sliding_attention": True, "full_attention": False}
        if (
            not isinstance(listed, list)
            or len(listed) != layers
            or not all(isinstance(k, str) and k in kinds for k in listed)
        ):
            raise fields.fail("layer_types", f"{layers} of {', '.join(kinds)}", listed)
        return [kinds[k] for k in listed]
    if listed is not None and listed != ["sliding_attention"] * layers:
        raise fields.fail("layer_types", "sliding_attention alone, as this family has it", listed)
    if family.sliding_of > 1:
        pattern = fields.integer("sliding_window_pattern", 1, 1024, family.sliding_of)
        return [bool((i + 1) % pattern) for i in range(layers)]
    if family.window_switch is not None and family.experts == "none":
        first = fields.integer("max_window_layers", 0, 1024, 28)
        return [i >= first for i in range(layers)]
    return [True] * layers


def _ropes(fields: Fields, family: Family, head_dim: int, span: Span) -> tuple[Rope, Rope | None]:
    section = fields.section("rope_parameters", "rope_scaling")
    if not family.has_local_rope:
        return read_rope(fields, section, family.theta, head_dim, span), None
    nested = "full_attention" in section or "sliding_attention" in section
    full = section.section("full_attention") if nested else section
    local = section.section("sliding_attention") if nested else Fields(fields.path, {})
    theta = fields.number("rope_local_base_freq", 1.0, 1e12, 10000.0)
    without = Fields(fields.path, {})
    return (
        read_rope(fields, full, family.theta, head_dim, span),
        read_rope(without, local, theta, head_dim, span),
    )


def _experts(fields: Fields, family: Family, layers: int) -> Experts | None:
    if family.experts == "none":
        return None
    is_qwen = family.experts == "qwen"
    key = "num_experts" if "num_experts" in fields else "num_local_experts"
    count = fields.integer(key, 1, 4096, 128 if is_qwen else 8)
    per_token = fields.integer("num_experts_per_tok", 1, count, 8 if is_qwen else 2)
    size = "moe_intermediate_size" if is_qwen else "intermediate_size"
    dense = fields.values.get("mlp_only_layers") or []
    if not isinstance(dense, list) or not all(type(i) is int for i in dense):
        raise fields.fail("mlp_only_layers", "numbers of layers", dense)
    step = fields.integer("decoder_sparse_step", 1, 1024, 1) if is_qwen else 1
    mixed = {i for i in range(layers) if (i + 1) % step == 0 and not (is_qwen and i in dense)}
    return Experts(
        count,
        per_token,
        fields.integer(size, 1, 1 << 20),
        fields.flag("norm_topk_prob", default=False) if is_qwen else True,
        frozenset(mixed),
        family.experts,
    )
