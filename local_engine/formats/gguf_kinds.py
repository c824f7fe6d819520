"""What files of each architecture call their tensors and settings, and how they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Settings = Mapping[str, Any]

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
_GEMMA = _INNER | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_PHI = {
    "attn_norm": "input_layernorm",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
}


def _nothing(own: Settings) -> dict[str, Any]:
    del own
    return {}


@dataclass(frozen=True, slots=True)
class GgufKind:
    """One kind of files, in Hugging Face's terms.

    `inner` names the tensors of a layer, and `experts` those that hold one matrix of each
    expert; `settings` gives what the metadata says besides what all kinds say, and
    `honoured` names what would otherwise be refused. Norms `has_offset_norms` are stored
    with the one added that the network adds; queries and keys `is_interleaved` lie in pairs.
    """

    architecture: str
    inner: Mapping[str, str] = field(default_factory=lambda: _INNER)
    experts: Mapping[str, str] = field(default_factory=dict)
    settings: Callable[[Settings], dict[str, Any]] = _nothing
    honoured: frozenset[str] = frozenset()
    has_offset_norms: bool = False
    is_interleaved: bool = False


def _mixtral(own: Settings) -> dict[str, Any]:
    return {
        "num_local_experts": own.get("expert_count"),
        "num_experts_per_tok": own.get("expert_used_count"),
    }


def _qwen3_moe(own: Settings) -> dict[str, Any]:
    return {
        "num_experts": own.get("expert_count"),
        "num_experts_per_tok": own.get("expert_used_count"),
        "moe_intermediate_size": own.get("expert_feed_forward_length"),
        # Files do not say it: every published model of this kind has it.
        "norm_topk_prob": True,
    }


def _gemma(largest: int) -> Callable[[Settings], dict[str, Any]]:
    """Return the settings of a Gemma; files do not say what scores are divided by.

    It is the root of a head's size, but in the largest model, known by its layers, where
    it is that of the width over the heads.
    """

    def settings(own: Settings) -> dict[str, Any]:
        size = own.get("attention.key_length")
        width, heads = own.get("embedding_length"), own.get("attention.head_count")
        if own.get("block_count") == largest and isinstance(width, int) and isinstance(heads, int):
            size = width // max(1, heads)
        caps = ("attn_logit_softcapping", "final_logit_softcapping")
        return {"query_pre_attn_scalar": size} | {c: own[c] for c in caps if c in own}

    return settings


def _phi3(own: Settings) -> dict[str, Any]:
    width, heads = own.get("embedding_length"), own.get("attention.head_count")
    turned, size = own.get("rope.dimension_count"), own.get("attention.key_length")
    if size is None and isinstance(width, int) and isinstance(heads, int):
        size = width // max(1, heads)
    if not isinstance(turned, int) or not isinstance(size, int):
        return {}
    return {"partial_rotary_factor": turned / max(1, size)}


KINDS: dict[str, GgufKind] = {
    "llama": GgufKind("LlamaForCausalLM", is_interleaved=True),
    "qwen2": GgufKind("Qwen2ForCausalLM"),
    "qwen3": GgufKind("Qwen3ForCausalLM"),
    "qwen3moe": GgufKind(
        "Qwen3MoeForCausalLM",
        inner=_INNER | {"ffn_gate_inp": "mlp.gate"},
        experts={
            "ffn_gate_exps": "mlp.experts.{}.gate_proj",
            "ffn_up_exps": "mlp.experts.{}.up_proj",
            "ffn_down_exps": "mlp.experts.{}.down_proj",
        },
        settings=_qwen3_moe,
        honoured=frozenset({"expert_count"}),
    ),
    "gemma2": GgufKind(
        "Gemma2ForCausalLM",
        inner=_GEMMA,
        settings=_gemma(46),
        honoured=frozenset({"attn_logit_softcapping", "final_logit_softcapping"}),
        has_offset_norms=True,
    ),
    "gemma3": GgufKind(
        "Gemma3ForCausalLM", inner=_GEMMA, settings=_gemma(62), has_offset_norms=True
    ),
    "phi3": GgufKind(
        "Phi3ForCausalLM",
        inner=_PHI,
        settings=_phi3,
        honoured=frozenset({"rope.dimension_count", "rope.scaling.attn_factor"}),
    ),
}
_MIXTRAL = GgufKind(
    "MixtralForCausalLM",
    inner=_INNER | {"ffn_gate_inp": "block_sparse_moe.gate"},
    experts={
        "ffn_gate_exps": "block_sparse_moe.experts.{}.w1",
        "ffn_up_exps": "block_sparse_moe.experts.{}.w3",
        "ffn_down_exps": "block_sparse_moe.experts.{}.w2",
    },
    settings=_mixtral,
    honoured=frozenset({"expert_count"}),
    is_interleaved=True,
)
"""Files call it a llama with experts."""


def kind_of(metadata: Settings) -> GgufKind | None:
    """Return the kind that a file says it is, None for one that is not read here."""
    name = metadata.get("general.architecture")
    if not isinstance(name, str):
        return None
    has_experts = metadata.get(f"{name}.expert_count") not in (None, 0)
    return _MIXTRAL if name == "llama" and has_experts else KINDS.get(name)
