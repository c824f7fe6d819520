"""Small random checkpoints of every family and every way of stretching rotary positions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIALS = ["<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
CORPUS = ["the quick brown fox jumps over the lazy dog", "zwölf große Füchse 🦊 17 + 25 = 42"] * 8
SHAPE: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "eos_token_id": 2,
    "bos_token_id": 1,
    "pad_token_id": 0,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
WINDOW = 24
FACTORS = [1.0, 1.1, 1.3, 1.7, 2.0, 3.0]
LONG_FACTORS = [1.0, 1.5, 3.0, 6.0, 9.0, 12.0]


def _llama(**changes: Any) -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**{**SHAPE, **changes}))


def _rope(kind: str, **changes: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": 10000.0, **changes}


def _gemma3(**changes: Any) -> PreTrainedModel:
    shape = SHAPE | {"head_dim": 24, "sliding_window": WINDOW, "query_pre_attn_scalar": 20}
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    return Gemma3ForCausalLM(Gemma3TextConfig(**{**shape, "layer_types": kinds, **changes}))


def _phi3(**changes: Any) -> PreTrainedModel:
    # Twelve of each head's sixteen numbers are turned.
    rope = {"rope_theta": 10000.0, "partial_rotary_factor": 0.75}
    return Phi3ForCausalLM(Phi3Config(**{**SHAPE, "rope_parameters": rope, **changes}))


def _longrope(original: int, declared: int) -> PreTrainedModel:
    rope = _rope("longrope", short_factor=FACTORS, long_factor=LONG_FACTORS)
    return _phi3(
        rope_parameters=rope | {"partial_rotary_factor": 0.75},
        original_max_position_embeddings=original,
        max_position_embeddings=declared,
    )


MOE: dict[str, Any] = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
QWEN_WINDOW: dict[str, Any] = {
    "use_sliding_window": True,
    "sliding_window": WINDOW,
    "max_window_layers": 1,
}

FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama-2": lambda: _llama(num_key_value_heads=4),
    "llama-3.1": lambda: _llama(rope_parameters=LLAMA3_ROPE, tie_word_embeddings=True),
    "llama-biases": lambda: _llama(attention_bias=True, mlp_bias=True),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=None)),
    "mistral-window": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=WINDOW)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE, tie_word_embeddings=True)),
    "qwen2-window": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE, **QWEN_WINDOW)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=24)),
    "gemma2": lambda: Gemma2ForCausalLM(
        Gemma2Config(
            **SHAPE,
            tie_word_embeddings=False,
            head_dim=24,
            sliding_window=WINDOW,
            query_pre_attn_scalar=20,
        )
    ),
    "gemma2-caps": lambda: Gemma2ForCausalLM(
        Gemma2Config(
            **SHAPE,
            tie_word_embeddings=False,
            attn_logit_softcapping=2.0,
            final_logit_softcapping=3.0,
        )
    ),
    "gemma3": _gemma3,
    "gemma3-linear": lambda: _gemma3(
        rope_parameters={
            "full_attention": _rope("linear", factor=8.0),
            "sliding_attention": _rope("default", rope_theta=100.0),
        }
    ),
    "phi3": _phi3,
    "phi3-window": lambda: _phi3(sliding_window=WINDOW),
    "mixtral": lambda: MixtralForCausalLM(MixtralConfig(**SHAPE, num_local_experts=4)),
    "qwen3-moe": lambda: Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**SHAPE, **(MOE | {"norm_topk_prob": True, "head_dim": 24}))
    ),
    "qwen3-moe-mixed": lambda: Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**SHAPE, **MOE, norm_topk_prob=False, mlp_only_layers=[1])
    ),
    "rope-linear": lambda: _llama(rope_parameters=_rope("linear", factor=2.0)),
    "rope-dynamic": lambda: _llama(rope_parameters=_rope("dynamic", factor=4.0)),
    "rope-yarn": lambda: _llama(
        rope_parameters=_rope("yarn", factor=4.0, original_max_position_embeddings=128)
    ),
    "rope-yarn-set": lambda: _llama(
        rope_parameters=_rope(
            "yarn",
            factor=8.0,
            original_max_position_embeddings=64,
            mscale=0.7,
            mscale_all_dim=1.1,
            beta_fast=16,
            beta_slow=2,
            truncate=False,
        )
    ),
    "rope-longrope": lambda: _longrope(128, 512),
    "rope-longrope-short": lambda: _longrope(512, 512),
}


def build_family(name: str) -> PreTrainedModel:
    """Make a random model, its biases and norms away from what they start at."""
    torch.manual_seed(sum(name.encode()))
    model: Any = FAMILIES[name]()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith("bias"):
                parameter.normal_(0.0, 0.2)
            elif "norm" in key:
                middle = 0.0 if name.startswith("gemma") else 1.0
                if name.startswith("gemma") and "post_" in key:
                    middle = 4.0  # or the scaled embedding drowns what the layers add
                parameter.uniform_(middle - 0.3, middle + 0.3)
            elif "proj" in key or "gate" in key or "lm_head" in key:
                parameter.normal_(0.0, 0.2)
    found: PreTrainedModel = model.eval()
    return found


def write_family(name: str, folder: Path) -> None:
    """Write a random checkpoint of a family, with a tokenizer and a chat template."""
    build_family(name).save_pretrained(folder)
    write_tokenizer(folder)


def write_tokenizer(directory: Path) -> None:
    """Train and write a byte-level tokenizer with a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SHAPE["vocab_size"],
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"chat_template": TEMPLATE, "bos_token": "<|bos|>", "eos_token": "<|end|>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
