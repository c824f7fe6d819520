"""The decoder: Llama, Mistral, Qwen2 and Qwen3 are one network with different switches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from local_engine.attention import AttentionSpec, write_and_attend
from local_engine.batch import Batch
from local_engine.config import ModelConfig
from local_engine.kv import PagedKv
from local_engine.quant import Linear, PlainLinear, Quantization, make_head, make_linear
from local_engine.rope import angles, frequencies, rotate

Read = Callable[[str], Tensor]


@dataclass(frozen=True, slots=True)
class Layer:
    """One block; the query, key and value products are one, as are gate and up."""

    attention_norm: Tensor
    qkv: Linear
    qk_norm: Tensor | None
    output: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear


class Decoder:
    """A loaded network: tokens in, logits out, keys and values into the cache."""

    def __init__(
        self,
        config: ModelConfig,
        embedding: Tensor,
        layers: list[Layer],
        norm: Tensor,
        head: Linear,
    ) -> None:
        self.config = config
        self.embedding = embedding
        self.layers = layers
        self.norm = norm
        self.head = head
        self._freqs = frequencies(config).to(embedding.device)
        self.attention = [AttentionSpec(config.head_dim**-0.5) for _ in layers]

    @property
    def device(self) -> torch.device:
        """Return where the weights are."""
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of hidden states, keys and values."""
        return self.embedding.dtype

    @property
    def nbytes(self) -> int:
        """Return the bytes that the weights take; a plain tied head counts once."""
        linears = [f for r in self.layers for f in (r.qkv, r.output, r.gate_up, r.down)]
        is_shared = isinstance(self.head, PlainLinear) and self.head.weight is self.embedding
        embedding = 0 if is_shared else self.embedding.nbytes
        return embedding + self.head.nbytes + sum(f.nbytes for f in linears)

    @torch.inference_mode()
    def forward(self, batch: Batch, cache: PagedKv, wanted: Tensor) -> Tensor:
        """Run a step; return fp32 logits `[len(wanted), vocab]` of the tokens at `wanted`."""
        x = self.embedding[batch.ids]
        cos, sin = angles(batch.positions, self._freqs)
        turn = (cos.to(x.dtype), sin.to(x.dtype))
        for index, layer in enumerate(self.layers):
            normed = self._normalize(x, layer.attention_norm)
            x = x + layer.output(self._attend(index, layer, normed, turn, batch, cache))
            gate, up = layer.gate_up(self._normalize(x, layer.mlp_norm)).chunk(2, dim=-1)
            x = x + layer.down(F.silu(gate) * up)
        return self.head(self._normalize(x[wanted], self.norm)).float()

    def _normalize(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape[-1:], weight, self.config.norm_eps)

    def _attend(
        self,
        index: int,
        layer: Layer,
        x: Tensor,
        turn: tuple[Tensor, Tensor],
        batch: Batch,
        cache: PagedKv,
    ) -> Tensor:
        c = self.config
        qkv = layer.qkv(x).view(len(x), -1, c.head_dim)
        qk, v = qkv[:, : -c.kv_heads], qkv[:, -c.kv_heads :]
        if layer.qk_norm is not None:
            qk = F.rms_norm(qk, (c.head_dim,), None, c.norm_eps) * layer.qk_norm
        turned = rotate(qk, *turn)
        q, k = turned[:, : c.heads], turned[:, c.heads :]
        return write_and_attend(index, q, k, v, batch, cache, self.attention[index])


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name every tensor that a checkpoint of this shape must hold."""
    c = config
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (c.vocab, c.hidden),
        "model.norm.weight": (c.hidden,),
    }
    if not c.has_tied_head:
        shapes["lm_head.weight"] = (c.vocab, c.hidden)
    for index in range(c.layers):
        shapes |= {f"model.layers.{index}.{n}": s for n, s in _layer_shapes(c).items()}
    return shapes


def _layer_shapes(c: ModelConfig) -> dict[str, tuple[int, ...]]:
    linears = {
        "self_attn.q_proj": (c.q_size, c.hidden, c.has_qkv_bias),
        "self_attn.k_proj": (c.kv_size, c.hidden, c.has_qkv_bias),
        "self_attn.v_proj": (c.kv_size, c.hidden, c.has_qkv_bias),
        "self_attn.o_proj": (c.hidden, c.q_size, c.has_output_bias),
        "mlp.gate_proj": (c.intermediate, c.hidden, c.has_mlp_bias),
        "mlp.up_proj": (c.intermediate, c.hidden, c.has_mlp_bias),
        "mlp.down_proj": (c.hidden, c.intermediate, c.has_mlp_bias),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (c.hidden,),
        "post_attention_layernorm.weight": (c.hidden,),
    }
    for name, (rows, columns, has_bias) in linears.items():
        shapes[f"{name}.weight"] = (rows, columns)
        if has_bias:
            shapes[f"{name}.bias"] = (rows,)
    if c.has_qk_norm:
        shapes |= {f"self_attn.{n}_norm.weight": (c.head_dim,) for n in "qk"}
    return shapes


def build_decoder(config: ModelConfig, read: Read, quantization: Quantization) -> Decoder:
    """Assemble a decoder from tensors by name, quantizing each as soon as it is read."""
    embedding = read("model.embed_tokens.weight")
    head = embedding if config.has_tied_head else read("lm_head.weight")
    layers = [
        _build_layer(config, f"model.layers.{i}.", read, quantization) for i in range(config.layers)
    ]
    norm = read("model.norm.weight")
    return Decoder(config, embedding, layers, norm, make_head(head, quantization))


def _build_layer(c: ModelConfig, prefix: str, read: Read, quantization: Quantization) -> Layer:
    def joined(has_bias: bool, *names: str) -> Linear:
        weight = torch.cat([read(f"{prefix}{n}.weight") for n in names])
        bias = torch.cat([read(f"{prefix}{n}.bias") for n in names]) if has_bias else None
        return make_linear(weight, bias, quantization)

    attention = [f"self_attn.{n}_proj" for n in "qkv"]
    return Layer(
        attention_norm=read(f"{prefix}input_layernorm.weight"),
        qkv=joined(c.has_qkv_bias, *attention),
        qk_norm=_qk_norm(c, prefix, read) if c.has_qk_norm else None,
        output=joined(c.has_output_bias, "self_attn.o_proj"),
        mlp_norm=read(f"{prefix}post_attention_layernorm.weight"),
        gate_up=joined(c.has_mlp_bias, "mlp.gate_proj", "mlp.up_proj"),
        down=joined(c.has_mlp_bias, "mlp.down_proj"),
    )


def _qk_norm(c: ModelConfig, prefix: str, read: Read) -> Tensor:
    """Stack the two norms so that queries and keys are normalized in one product."""
    q, k = (read(f"{prefix}self_attn.{n}_norm.weight") for n in "qk")
    return torch.cat((q.expand(c.heads, -1), k.expand(c.kv_heads, -1)))
