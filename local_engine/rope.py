"""Rotary positions: which frequencies, and how they turn queries and keys."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from local_engine.config import ModelConfig, RopeScaling


def frequencies(config: ModelConfig) -> Tensor:
    """Return the angle per position of each pair, fp32 `[head_dim / 2]`."""
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.int64).float() / config.head_dim
    plain = 1.0 / (config.rope_theta**exponent)
    match config.rope.kind:
        case "linear":
            return plain / config.rope.factor
        case "llama3":
            return _llama3(plain, config.rope)
        case _:
            return plain


def _llama3(plain: Tensor, scaling: RopeScaling) -> Tensor:
    """Stretch long wavelengths, keep short ones, blend between (Llama 3.1 release)."""
    turns = scaling.original_context * plain / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    blend = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return (1 - blend) * plain / scaling.factor + blend * plain


def angles(positions: Tensor, freqs: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and signed sine, each `[tokens, 1, head_dim]` in fp32."""
    half = (positions.float()[:, None] * freqs)[:, None, :]
    cos, sin = half.cos(), half.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn `[tokens, heads, head_dim]`; pairs are (i, i + head_dim / 2), as published."""
    # With the sign in the sine, swapping the halves is one roll.
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)
