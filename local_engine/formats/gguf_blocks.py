"""The blocks of GGUF, taken apart into integers with a scale and an offset.

Each function takes uint8 `[rows, blocks, bytes of a block]`, and gives integers
`[rows, in]` with scale and offset `[rows, groups]`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from local_engine.quant import Grid

_Parts = tuple[Tensor, Tensor, Tensor]


def grid_of(data: Tensor, type_name: str, shape: tuple[int, int], block_bytes: int) -> Grid:
    """Return the integers of a tensor of one of the `DECODERS`."""
    bits, decode = DECODERS[type_name]
    q, scale, offset = decode(data.view(shape[0], -1, block_bytes))
    return Grid(q.reshape(shape), scale.flatten(1), offset.flatten(1), bits)


def _half(blocks: Tensor, at: int) -> Tensor:
    return blocks[..., at : at + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: Tensor) -> Tensor:
    """Low nibbles of all bytes first, then the high ones."""
    return torch.cat((packed & 15, packed >> 4), dim=-1)


def _q4_0(blocks: Tensor) -> _Parts:
    scale = _half(blocks, 0)
    return _nibbles(blocks[..., 2:]), scale, -8 * scale


def _q4_1(blocks: Tensor) -> _Parts:
    return _nibbles(blocks[..., 4:]), _half(blocks, 0), _half(blocks, 2)


def _fifth_bits(packed: Tensor) -> Tensor:
    """Return 16 for each set bit of four bytes, else 0."""
    shifts = torch.arange(8, dtype=torch.uint8)
    return ((packed[..., None] >> shifts) & 1).flatten(-2) << 4


def _q5_0(blocks: Tensor) -> _Parts:
    scale = _half(blocks, 0)
    return _nibbles(blocks[..., 6:]) | _fifth_bits(blocks[..., 2:6]), scale, -16 * scale


def _q5_1(blocks: Tensor) -> _Parts:
    q = _nibbles(blocks[..., 8:]) | _fifth_bits(blocks[..., 4:8])
    return q, _half(blocks, 0), _half(blocks, 2)


def _q8_0(blocks: Tensor) -> _Parts:
    scale = _half(blocks, 0)
    # Flipping the sign bit of a signed byte adds 128.
    return blocks[..., 2:] ^ 128, scale, -128 * scale


def _six_bits(packed: Tensor) -> tuple[Tensor, Tensor]:
    """Take eight scales and eight minima of 6 bits each out of 12 bytes."""
    first, second, third = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    scales = torch.cat((first & 63, (third & 15) | (first >> 6) << 4), dim=-1)
    minima = torch.cat((second & 63, (third >> 4) | (second >> 6) << 4), dim=-1)
    return scales.float(), minima.float()


def _k_scales(blocks: Tensor) -> tuple[Tensor, Tensor]:
    scales, minima = _six_bits(blocks[..., 4:16])
    return _half(blocks, 0) * scales, -_half(blocks, 2) * minima


def _k_nibbles(packed: Tensor) -> Tensor:
    """Each 32 bytes hold 64 numbers: their low nibbles, then their high ones."""
    runs = packed.reshape(*packed.shape[:-1], 4, 32)
    return torch.stack((runs & 15, runs >> 4), dim=-2).flatten(-3)


def _q4_k(blocks: Tensor) -> _Parts:
    return (_k_nibbles(blocks[..., 16:]), *_k_scales(blocks))


def _q5_k(blocks: Tensor) -> _Parts:
    shifts = torch.arange(8, dtype=torch.uint8)[:, None]
    fifth = ((blocks[..., None, 16:48] >> shifts) & 1).flatten(-2) << 4
    return (_k_nibbles(blocks[..., 48:]) | fifth, *_k_scales(blocks))


def _q6_k(blocks: Tensor) -> _Parts:
    outer = blocks.shape[:-1]
    low = blocks[..., :128].reshape(*outer, 2, 2, 32)
    low = torch.stack((low & 15, low >> 4), dim=-3)  # [2 halves, nibble, 2 runs, 32]
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8)[:, None]
    high = (blocks[..., 128:192].reshape(*outer, 2, 1, 32) >> shifts) & 3
    q = low.flatten(-4) | high.flatten(-3) << 4
    scale = _half(blocks, 208) * blocks[..., 192:208].contiguous().view(torch.int8).float()
    return q, scale, -32 * scale


DECODERS: dict[str, tuple[int, Callable[[Tensor], _Parts]]] = {
    "Q4_0": (4, _q4_0),
    "Q4_1": (4, _q4_1),
    "Q5_0": (8, _q5_0),
    "Q5_1": (8, _q5_1),
    "Q8_0": (8, _q8_0),
    "Q4_K": (4, _q4_k),
    "Q5_K": (8, _q5_k),
    "Q6_K": (8, _q6_k),
}
