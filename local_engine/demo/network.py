"""A compact Llama for training; parameter names are those of Hugging Face's LlamaForCausalLM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

KeysAndValues = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes that define a network."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    feed_forward: int
    positions: int = 512
    rope_theta: float = 10_000.0
    norm_epsilon: float = 1e-5


class RMSNorm(nn.Module):
    """Scale vectors to unit root mean square, in float32 (Zhang and Sennrich, 2019)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape.width))
        self.epsilon = shape.norm_epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Scale `x` [..., dim] to unit root mean square."""
        return functional.rms_norm(x, self.weight.shape, self.weight, self.epsilon)


class Attention(nn.Module):
    """Causal grouped-query attention over rotary positions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        inner, kv_inner = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
        self.head_width = shape.head_width
        self.q_proj = nn.Linear(shape.width, inner, bias=False)
        self.k_proj = nn.Linear(shape.width, kv_inner, bias=False)
        self.v_proj = nn.Linear(shape.width, kv_inner, bias=False)
        self.o_proj = nn.Linear(inner, shape.width, bias=False)

    def forward(
        self, x: Tensor, rotation: KeysAndValues, past: KeysAndValues | None
    ) -> tuple[Tensor, KeysAndValues]:
        """Attend from `x` [batch, time, width] to itself and the past; return the new past."""
        query = _rotate(self._split(self.q_proj(x)), rotation)
        key = _rotate(self._split(self.k_proj(x)), rotation)
        value = self._split(self.v_proj(x))
        if past is not None:
            key, value = torch.cat((past[0], key), 2), torch.cat((past[1], value), 2)
        mixed = _attend(query, key, value, is_causal=past is None)
        return self.o_proj(mixed.transpose(1, 2).flatten(2)), (key, value)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], -1, self.head_width).transpose(1, 2)


class FeedForward(nn.Module):
    """SwiGLU (Shazeer, 2020)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.width, shape.feed_forward, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.feed_forward, bias=False)
        self.down_proj = nn.Linear(shape.feed_forward, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` [..., dim] through the gated hidden layer."""
        return cast(Tensor, self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x)))


class Block(nn.Module):
    """One decoder layer, normed before each half."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape)
        self.mlp = FeedForward(shape)

    def forward(
        self, x: Tensor, rotation: KeysAndValues, past: KeysAndValues | None
    ) -> tuple[Tensor, KeysAndValues]:
        """Apply the layer to `x` [batch, time, width]; return the new past beside it."""
        mixed, present = self.self_attn(self.input_layernorm(x), rotation, past)
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x)), present


class Body(nn.Module):
    """The embedding, the layers and the last norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape)


class Llama(nn.Module):
    """A decoder whose output head is its embedding."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.model = Body(shape)
        self.cos: Tensor
        self.sin: Tensor
        for name, table in zip(("cos", "sin"), _rotations(shape), strict=True):
            self.register_buffer(name, table, persistent=False)

    def hidden(
        self, tokens: Tensor, past: list[KeysAndValues] | None = None
    ) -> tuple[Tensor, list[KeysAndValues]]:
        """Return final hidden states (batch, time, width) and each layer's keys and values.

        With `past`, `tokens` is the one next token of each row.
        """
        start = past[0][0].shape[2] if past else 0
        span = slice(start, start + tokens.shape[1])
        rotation = (self.cos[span], self.sin[span])
        x = self.model.embed_tokens(tokens)
        presents = []
        for index, block in enumerate(self.model.layers):
            x, present = block(x, rotation, past[index] if past else None)
            presents.append(present)
        return self.model.norm(x), presents

    def logits(self, hidden: Tensor) -> Tensor:
        """Return scores over the vocabulary for hidden states."""
        return functional.linear(hidden, self.model.embed_tokens.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return scores (batch, time, vocabulary) for tokens (batch, time)."""
        return self.logits(self.hidden(tokens)[0])


def initialise(network: Llama, seed: int) -> None:
    """Draw weights of standard deviation 0.02, smaller where they feed the residual stream."""
    generator = torch.Generator().manual_seed(seed)
    residual_std = 0.02 / (2 * network.shape.layers) ** 0.5
    for name, parameter in network.named_parameters():
        if parameter.dim() == 2:
            feeds_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            std = residual_std if feeds_residual else 0.02
            nn.init.normal_(parameter, std=std, generator=generator)


def _attend(query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool) -> Tensor:
    """Attend by plain matrix products: for rows this short, faster to train than fused kernels."""
    repeats = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(repeats, 1) for x in (key, value))
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    if is_causal:
        size = scores.shape[-1]
        hidden = torch.ones(size, size, dtype=torch.bool).triu(1)
        scores = scores.masked_fill(hidden, -torch.inf)
    return torch.matmul(scores.softmax(-1), value)


def _rotations(shape: Shape) -> KeysAndValues:
    exponents = torch.arange(0, shape.head_width, 2, dtype=torch.float32) / shape.head_width
    angles = torch.outer(torch.arange(shape.positions), shape.rope_theta**-exponents)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, rotation: KeysAndValues) -> Tensor:
    cos, sin = (table.to(x.dtype) for table in rotation)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
