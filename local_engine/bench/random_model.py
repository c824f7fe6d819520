"""Decoders of true shapes with random weights, made on the device that they are measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer as Core
from tokenizers import models
from torch import Tensor

from local_engine.assembly import build_decoder, expected_shapes
from local_engine.config import ModelConfig, parse_config
from local_engine.loader import LoadedModel
from local_engine.model import Decoder
from local_engine.quant import Linear, Quantization, make_head, make_linear
from local_engine.tokenizer import Tokenizer

LLAMA_8B: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
QWEN_1_5B: Mapping[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
CONTEXT = 8192


class RandomSource:
    """Tensors that nobody stored; speed does not depend on their values."""

    def __init__(
        self,
        config: ModelConfig,
        scheme: Quantization,
        device: torch.device,
        dtype: torch.dtype,
        spread: float = 0.02,
    ) -> None:
        """Draw from normal distributions with this standard deviation."""
        self._spread = spread
        self._shapes = expected_shapes(config)
        self._scheme: Quantization = scheme
        self._device = device
        self._dtype = dtype
        self._chance = torch.Generator(device).manual_seed(0)

    def tensor(self, name: str) -> Tensor:
        """Draw a tensor in the type of the hidden states."""
        if "norm" in name:
            return torch.ones(self._shapes[name], dtype=self._dtype, device=self._device)
        made = torch.empty(self._shapes[name], dtype=self._dtype, device=self._device)
        return made.normal_(0.0, self._spread, generator=self._chance)

    def precise(self, name: str) -> Tensor:
        """Draw a tensor in fp32."""
        return self.tensor(name).float()

    def linear(self, names: Sequence[str], *, has_bias: bool) -> Linear:
        """Make one product of drawn projections."""
        weight = torch.cat([self.tensor(f"{n}.weight") for n in names])
        bias = torch.cat([self.tensor(f"{n}.bias") for n in names]) if has_bias else None
        return make_linear(weight, bias, self._scheme)

    def head(self, weight: Tensor) -> Linear:
        """Make the product that gives the logits."""
        return make_head(weight, self._scheme)


def random_model(
    shape: Mapping[str, Any],
    scheme: Quantization,
    device: torch.device,
    dtype: torch.dtype = torch.bfloat16,
) -> LoadedModel:
    """Make a model of a shape, as config.json names it; its tokens have no text."""
    settings = {"max_position_embeddings": CONTEXT, "tie_word_embeddings": False, **shape}
    config = parse_config(Path("random"), settings)
    return dressed(build_decoder(config, RandomSource(config, scheme, device, dtype)))


def dressed(decoder: Decoder) -> LoadedModel:
    """Return a decoder with a tokenizer that knows nothing, and no template."""
    core = Core(models.WordLevel({"t": 0}, "t"))
    return LoadedModel(decoder, Tokenizer(core, (), strips_space=False), None, frozenset())


def bytes_read(model: LoadedModel, context: int, batch: int) -> int:
    """Return the bytes of weights and of keys and values that a decoding step has to read."""
    decoder, config = model.decoder, model.config
    layers = sum(r.qkv.nbytes + r.output.nbytes + r.mlp.nbytes for r in decoder.layers)
    kv = 2 * config.layers * config.kv_size * decoder.dtype.itemsize
    return decoder.head.nbytes + layers + batch * context * kv
