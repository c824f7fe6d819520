"""The native loops on trial: compiled for a processor that nobody has tried, they may be wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from local_engine.native.library import Native
from local_engine.native.products import Bf16Product, Int4Product, Int8Product

_TOLERANCE = 1e-4
# Longer than what lanes of 32 bits may sum at once, so that the sums are moved on the way.
_LONG = 16448


def fault_of(native: Native) -> str | None:
    """Return what the loops compute wrongly on known numbers, the largest among them."""
    for name, distance in (
        ("bf16", _bf16_distance(native)),
        ("int8", _int8_distance(native)),
        ("int4", _int4_distance(native)),
    ):
        if not distance <= _TOLERANCE:
            return f"{name} products are off by {distance:.6f}"
    return None


def _inputs(rows: int, columns: int) -> Tensor:
    x = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows))
    # One row whose every number is the largest: nothing overflows, nothing is lost.
    return torch.cat((x[1:], torch.full((1, columns), 3.0)))


def _bf16_distance(native: Native) -> float:
    found = []
    for rows, columns in ((1, 32), (3, 224), (9, 128)):
        weight = torch.linspace(-3, 3, 5 * columns).view(5, columns).bfloat16()
        x, bias = _inputs(rows, columns).bfloat16(), torch.linspace(-1, 1, 5)
        y = Bf16Product(native, weight, bias)(x, torch.float32)
        found.append(_apart(y, x.double() @ weight.double().T + bias))
    return max(found)


def _int8_distance(native: Native) -> float:
    found = []
    for rows, columns in ((1, 40), (3, 200), (9, 192), (2, _LONG)):
        weight = ((torch.arange(5 * columns) * 37) % 256 - 128).view(5, columns).to(torch.int8)
        weight[0], weight[1] = 127, -128
        scale, bias = torch.linspace(0.001, 0.01, 5), torch.linspace(-1, 1, 5)
        x = _inputs(rows, columns)
        wanted = x.double() @ (weight.double() * scale[:, None]).T + bias
        y = Int8Product(native, weight, scale, bias)(x, torch.float32)
        found.append(_apart(y, wanted))
    return max(found)


def _int4_distance(native: Native) -> float:
    found = []
    for rows, columns, group in ((1, 96, 32), (2, 320, 64), (4, 256, 128), (9, 512, 256)):
        q = ((torch.arange(5 * columns) * 37 + 11) % 16).view(5, columns).to(torch.uint8)
        q[0], q[1] = 15, 0
        scale = torch.linspace(0.01, 0.1, 5 * columns // group).view(5, -1).bfloat16().float()
        middle = torch.linspace(-1, 1, 5 * columns // group).view(5, -1).bfloat16().float()
        spread = [t.repeat_interleave(group, 1).double() for t in (scale, middle)]
        x = _inputs(rows, columns)
        wanted = x.double() @ ((q.double() - 8) * spread[0] + spread[1]).T
        y = Int4Product(native, q, scale, middle)(x, torch.float32)
        found.append(_apart(y, wanted))
    return max(found)


def _apart(found: Tensor, wanted: Tensor) -> float:
    distance = float((found - wanted).abs().max() / wanted.abs().max())
    return distance if distance == distance else torch.inf
