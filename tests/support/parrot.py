"""A checkpoint that says one thing whatever it is asked: a network of known weights."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

SPECIALS = ("<|pad|>", "<|user|>", "<|assistant|>", "<|end|>")
TEMPLATE = (
    "{% if tools %}{{ tools | tojson }} in <tool_call></tool_call>{% endif %}"
    "{% for m in messages %}<|user|>{{ m['content'] }}<|end|>{% endfor %}<|assistant|>"
)
_WIDTH = 32


def write_parrot(directory: Path, pieces: Sequence[str]) -> Path:
    """Write a Llama that answers with these pieces, each of them one token, and ends.

    Its only layer adds nothing, so the next token depends on the last one alone.
    """
    import torch
    from safetensors.torch import save_file
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIALS))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in (*alphabet, *pieces)])
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    said = [tokenizer.token_to_id(t) for t in ("<|assistant|>", *pieces, "<|end|>")]
    vocab = tokenizer.get_vocab_size()
    embedding, head = torch.zeros(2, vocab, _WIDTH).unbind(0)
    for place, (token, after) in enumerate(itertools.pairwise(said)):
        embedding[token, place] = 1.0
        head[after, place] = 5.0
    square, norm = torch.zeros(_WIDTH, _WIDTH), torch.ones(_WIDTH)
    layer = {f"self_attn.{name}_proj.weight": square.clone() for name in "qkvo"}
    layer |= {f"mlp.{name}_proj.weight": square.clone() for name in ("gate", "up", "down")}
    layer |= {f"{name}_layernorm.weight": norm.clone() for name in ("input", "post_attention")}
    tensors = {f"model.layers.0.{name}": tensor for name, tensor in layer.items()}
    tensors |= {"model.embed_tokens.weight": embedding.clone(), "lm_head.weight": head.clone()}
    save_file({**tensors, "model.norm.weight": norm}, str(directory / "model.safetensors"))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab,
        "hidden_size": _WIDTH,
        "intermediate_size": _WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "eos_token_id": said[-1],
    }
    settings = {"chat_template": TEMPLATE, "eos_token": "<|end|>"}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory
