"""A decoder from the tensors of a checkpoint: which there must be, and what becomes of each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from local_engine.config import Experts, ModelConfig
from local_engine.feed_forward import FeedForward, GatedBlock, Mixture
from local_engine.model import Decoder, Layer
from local_engine.quant import Linear, PlainLinear

EMBEDDING, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
_HARMLESS = re.compile(r"rotary_emb\.inv_freq$")


class Source(Protocol):
    """Where the tensors of a decoder come from, in the form they are to be held."""

    def tensor(self, name: str) -> Tensor:
        """Return a tensor in the type of the hidden states."""

    def precise(self, name: str) -> Tensor:
        """Return a tensor in fp32."""

    def linear(self, names: Sequence[str], *, has_bias: bool) -> Linear:
        """Return one product of the named projections, stacked in their order."""

    def head(self, weight: Tensor) -> Linear:
        """Return the product that gives the logits."""


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name every tensor that a checkpoint of this shape must hold."""
    c = config
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (c.vocab, c.hidden), NORM: (c.hidden,)}
    if not c.has_tied_head:
        shapes[HEAD] = (c.vocab, c.hidden)
    for index in range(c.layers):
        prefix = f"model.layers.{index}."
        shapes |= {prefix + name: (c.hidden,) for name in _norm_names(c)}
        if c.has_qk_norm:
            shapes |= {f"{prefix}self_attn.{n}_norm.weight": (c.head_dim,) for n in "qk"}
        for name, (rows, columns, has_bias) in _products(c, index).items():
            shapes[f"{prefix}{name}.weight"] = (rows, columns)
            if has_bias:
                shapes[f"{prefix}{name}.bias"] = (rows,)
    return shapes


def unread_tensor(config: ModelConfig, names: Iterable[str]) -> str | None:
    """Return a tensor of a layer that no part of the decoder would read, if there is one.

    A bias or a norm that is stored and not applied gives fluent nonsense.
    """
    known = expected_shapes(config)
    unread = (n for n in names if n not in known and n.startswith("model.layers."))
    return next((n for n in unread if not _HARMLESS.search(n)), None)


def _norm_names(c: ModelConfig) -> list[str]:
    names = ["input_layernorm.weight", "post_attention_layernorm.weight"]
    if c.has_post_norms:
        names += ["pre_feedforward_layernorm.weight", "post_feedforward_layernorm.weight"]
    return names


def _products(c: ModelConfig, index: int) -> dict[str, tuple[int, int, bool]]:
    """Return rows, columns and whether there is a bias, of each matrix of a layer."""
    kv, wide = c.kv_size, c.intermediate
    products: dict[str, tuple[int, int, bool]] = {
        "self_attn.o_proj": (c.hidden, c.q_size, c.has_output_bias)
    }
    if c.has_fused_projections:
        products["self_attn.qkv_proj"] = (c.q_size + 2 * kv, c.hidden, c.has_qkv_bias)
    else:
        sizes = {"q": c.q_size, "k": kv, "v": kv}
        products |= {f"self_attn.{n}_proj": (s, c.hidden, c.has_qkv_bias) for n, s in sizes.items()}
    if c.experts is not None and index in c.experts.layers:
        return products | _expert_products(c, c.experts)
    if c.has_fused_projections:
        products["mlp.gate_up_proj"] = (2 * wide, c.hidden, c.has_mlp_bias)
    else:
        products |= {f"mlp.{n}_proj": (wide, c.hidden, c.has_mlp_bias) for n in ("gate", "up")}
    products["mlp.down_proj"] = (c.hidden, wide, c.has_mlp_bias)
    return products


def _expert_products(c: ModelConfig, experts: Experts) -> dict[str, tuple[int, int, bool]]:
    block, (gate, up, down) = _expert_names(experts)
    products = {f"{block}.gate": (experts.count, c.hidden, False)}
    for index in range(experts.count):
        prefix = f"{block}.experts.{index}."
        products |= {prefix + n: (experts.intermediate, c.hidden, False) for n in (gate, up)}
        products[prefix + down] = (c.hidden, experts.intermediate, False)
    return products


def _expert_names(experts: Experts) -> tuple[str, tuple[str, str, str]]:
    if experts.naming == "mixtral":
        return "block_sparse_moe", ("w1", "w3", "w2")
    return "mlp", ("gate_proj", "up_proj", "down_proj")


def build_decoder(config: ModelConfig, source: Source) -> Decoder:
    """Assemble a decoder, one product at a time, so that little is held twice."""
    embedding = source.tensor(EMBEDDING)
    layers = [_build_layer(config, index, source) for index in range(config.layers)]
    head = source.head(embedding if config.has_tied_head else source.tensor(HEAD))
    if config.has_tied_head and isinstance(head, PlainLinear):
        embedding = head.weight  # which may have been moved, and is held once
    return Decoder(config, embedding, layers, _norm(config, NORM, source), head)


def _build_layer(c: ModelConfig, index: int, source: Source) -> Layer:
    prefix = f"model.layers.{index}."
    norms = [_norm(c, prefix + name, source) for name in _norm_names(c)]
    names = ["qkv_proj"] if c.has_fused_projections else ["q_proj", "k_proj", "v_proj"]
    attention = [f"{prefix}self_attn.{n}" for n in names]
    return Layer(
        attention_norm=norms[0],
        qkv=source.linear(attention, has_bias=c.has_qkv_bias),
        qk_norm=_qk_norm(c, prefix, source) if c.has_qk_norm else None,
        output=source.linear([f"{prefix}self_attn.o_proj"], has_bias=c.has_output_bias),
        post_attention_norm=norms[1] if c.has_post_norms else None,
        mlp_norm=norms[2] if c.has_post_norms else norms[1],
        mlp=_feed_forward(c, index, prefix, source),
        post_mlp_norm=norms[3] if c.has_post_norms else None,
        is_local=c.local_rope is not None and c.windows[index] is not None,
    )


def _feed_forward(c: ModelConfig, index: int, prefix: str, source: Source) -> FeedForward:
    if c.experts is not None and index in c.experts.layers:
        return _mixture(c, c.experts, prefix, source)
    names = ["gate_up_proj"] if c.has_fused_projections else ["gate_proj", "up_proj"]
    gate_up = source.linear([f"{prefix}mlp.{n}" for n in names], has_bias=c.has_mlp_bias)
    down = source.linear([f"{prefix}mlp.down_proj"], has_bias=c.has_mlp_bias)
    return GatedBlock(gate_up, down, c.activation)


def _mixture(c: ModelConfig, experts: Experts, prefix: str, source: Source) -> Mixture:
    block, (gate, up, down) = _expert_names(experts)
    blocks = []
    for index in range(experts.count):
        at = f"{prefix}{block}.experts.{index}."
        gate_up = source.linear([at + gate, at + up], has_bias=False)
        blocks.append(GatedBlock(gate_up, source.linear([at + down], has_bias=False), c.activation))
    router = source.tensor(f"{prefix}{block}.gate.weight")
    return Mixture(router, blocks, experts.per_token, is_normalized=experts.is_normalized)


def _norm(c: ModelConfig, name: str, source: Source) -> Tensor:
    return 1.0 + source.precise(name) if c.has_offset_norms else source.tensor(name)


def _qk_norm(c: ModelConfig, prefix: str, source: Source) -> Tensor:
    """Stack the two norms so that queries and keys are normalized in one product."""
    q, k = (_norm(c, f"{prefix}self_attn.{n}_norm.weight", source) for n in "qk")
    return torch.cat((q.expand(c.heads, -1), k.expand(c.kv_heads, -1)))
