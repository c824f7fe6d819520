"""Weights as small integers with a scale and an offset for each group of inputs.

w[n, k] = q[n, k] * scale[n, k // group] + offset[n, k // group]

Every integer format, made here or stored by others, is brought to this form first, so
one reference tells what each of them means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

GROUPS = (32, 64, 128, 256)
# How much of a group's range is kept: cutting a little off the ends often costs less than
# the coarser steps that would include them.
_SHRINKS = (1.0, 0.92, 0.84)


@dataclass(frozen=True, slots=True)
class Grid:
    """Integers `q` (uint8 `[out, in]`) with `scale` and `offset` (fp32 `[out, in / group]`).

    With an `order`, column k of `q` belongs to input `order[k]` (GPTQ's act-order).
    """

    q: Tensor
    scale: Tensor
    offset: Tensor
    bits: int
    order: Tensor | None = None

    @property
    def group(self) -> int:
        """Return how many inputs share a scale."""
        return self.q.shape[1] // self.scale.shape[1]

    def to(self, device: torch.device) -> Grid:
        """Return the same integers on a device."""
        order = None if self.order is None else self.order.to(device)
        q, scale, offset = (t.to(device) for t in (self.q, self.scale, self.offset))
        return Grid(q, scale, offset, self.bits, order)

    def dequantize(self) -> Tensor:
        """Return the fp32 weight `[out, in]`, its inputs in their natural order."""
        rows, columns = self.q.shape
        grouped = self.q.view(rows, -1, self.group).float()
        weight = (grouped * self.scale[..., None] + self.offset[..., None]).view(rows, columns)
        if self.order is None:
            return weight
        natural = torch.empty_like(weight)
        natural[:, self.order] = weight
        return natural


def can_stack(grids: Sequence[Grid]) -> bool:
    """Tell whether grids over the same inputs make one product."""
    first = grids[0]
    return all(
        g.bits == first.bits
        and g.group == first.group
        and (g.order is None) == (first.order is None)
        and (g.order is None or first.order is None or torch.equal(g.order, first.order))
        for g in grids
    )


def stack(grids: Sequence[Grid]) -> Grid:
    """Put the outputs of several grids below each other."""
    first = grids[0]
    if len(grids) == 1:
        return first
    return Grid(
        torch.cat([g.q for g in grids]),
        torch.cat([g.scale for g in grids]),
        torch.cat([g.offset for g in grids]),
        first.bits,
        first.order,
    )


def fit_group(columns: int, group: int) -> int | None:
    """Return the largest group that divides the inputs and is no larger than asked."""
    return max((g for g in GROUPS if g <= group and columns % g == 0), default=None)


def int4_grid(weight: Tensor, group: int) -> Grid:
    """Round a weight to 16 levels between the ends of each group, whose least error is chosen.

    Scale and offset are rounded to bf16, as the kernels hold them, before the integers are.
    """
    grouped = weight.float().view(len(weight), -1, group)
    low, high = grouped.amin(-1, keepdim=True), grouped.amax(-1, keepdim=True)
    best_error = torch.full_like(low, torch.inf)
    best = (torch.zeros_like(low), torch.zeros_like(low))
    for shrink in _SHRINKS:
        scale = _as_bf16(((high - low) * shrink / 15).clamp_min(1e-8))
        # The kernels hold the value of level 8.
        middle = _as_bf16((low + high) / 2 + scale / 2)
        error = (_levels(grouped, scale, middle) * scale - 8 * scale + middle - grouped).square_()
        total = error.sum(-1, keepdim=True)
        is_better = total < best_error
        best_error = torch.where(is_better, total, best_error)
        best = (
            torch.where(is_better, scale, best[0]),
            torch.where(is_better, middle, best[1]),
        )
    scale, middle = best
    q = _levels(grouped, scale, middle).to(torch.uint8).view(weight.shape)
    return Grid(q, scale[..., 0], (middle - 8 * scale)[..., 0], 4)


def _levels(grouped: Tensor, scale: Tensor, middle: Tensor) -> Tensor:
    return ((grouped - middle) / scale + 8).round_().clamp_(0, 15)


def _as_bf16(x: Tensor) -> Tensor:
    return x.to(torch.bfloat16).float()
