"""Rotary positions: which frequencies, and how they turn queries and keys."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from local_engine.rope_config import Rope


def frequencies(rope: Rope) -> Tensor:
    """Return the angle per position of each pair, fp32 `[width / 2]`."""
    theta = rope.theta
    if rope.kind == "dynamic":
        theta = _ntk_theta(rope)
    exponent = torch.arange(0, rope.width, 2, dtype=torch.int64).float() / rope.width
    plain = 1.0 / (theta**exponent)
    match rope.kind:
        case "linear":
            return plain / rope.factor
        case "llama3":
            return _llama3(plain, rope)
        case "yarn":
            return _yarn(plain, rope)
        case "longrope":
            return plain / torch.tensor(rope.divisors)
        case _:
            return plain


def _ntk_theta(rope: Rope) -> float:
    """Raise the base for the full stretched context at once (NTK-aware scaling).

    Changing it while a sequence grows would leave its earlier keys turned otherwise.
    """
    grown = rope.factor * rope.factor - (rope.factor - 1)
    exponent = rope.width / (rope.width - 2) if rope.width > 2 else 1.0
    return float(rope.theta * grown**exponent)


def _llama3(plain: Tensor, rope: Rope) -> Tensor:
    """Stretch long wavelengths, keep short ones, blend between (Llama 3.1 release)."""
    turns = rope.original_context * plain / (2 * math.pi)
    blend = ((turns - rope.low) / (rope.high - rope.low)).clamp(0.0, 1.0)
    return (1 - blend) * plain / rope.factor + blend * plain


def _yarn(plain: Tensor, rope: Rope) -> Tensor:
    """Stretch pairs that turn rarely within the original context (arXiv 2309.00071, 3.2)."""

    def pair_that_turns(times: float) -> float:
        span = math.log(rope.original_context / (times * 2 * math.pi))
        return rope.width * span / (2 * math.log(rope.theta))

    first, last = pair_that_turns(rope.high), pair_that_turns(rope.low)
    if rope.truncates:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, rope.width - 1)
    # Published code widens an empty range by this much; the frequencies must be equal to its.
    last = last + 0.001 if last == first else last
    ramp = ((torch.arange(len(plain)).float() - first) / (last - first)).clamp(0.0, 1.0)
    return plain / rope.factor * ramp + plain * (1 - ramp)


def angles(positions: Tensor, freqs: Tensor, magnitude: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return cosine and signed sine, each `[tokens, 1, width]` in fp32."""
    half = (positions.float()[:, None] * freqs)[:, None, :]
    cos, sin = half.cos(), half.sin()
    if magnitude != 1.0:
        cos, sin = cos * magnitude, sin * magnitude
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn `[tokens, heads, head_dim]`; pairs are (i, i + width / 2), as published.

    Numbers of a head beyond the width of the angles stay as they are.
    """
    width = cos.shape[-1]
    if width < x.shape[-1]:
        return torch.cat((rotate(x[..., :width], cos, sin), x[..., width:]), dim=-1)
    # With the sign in the sine, swapping the halves is one roll.
    return torch.addcmul(x * cos, x.roll(width // 2, dims=-1), sin)
