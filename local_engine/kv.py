"""Keys and values of the sequences in the batch: one contiguous row for each."""

from __future__ import annotations

import torch
from torch import Tensor

from local_engine.config import ModelConfig

_FIRST_CAPACITY = 256


class KvCache:
    """Rows of `[kv_heads, capacity, head_dim]` per layer; capacity doubles when needed.

    Unwritten places must stay finite: they are masked by a weight of zero, and zero
    times NaN is NaN. So memory starts as zeros, and a poisoned row is cleared.
    """

    def __init__(
        self, config: ModelConfig, rows: int, context: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.rows = rows
        self.context = context
        self._free = set(range(rows))
        shape = (rows, config.kv_heads, min(_FIRST_CAPACITY, context), config.head_dim)
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.layers)]
        self.values = [torch.zeros_like(k) for k in self.keys]

    @property
    def capacity(self) -> int:
        """Return how many tokens each row has room for now."""
        return self.keys[0].shape[2]

    @property
    def has_free_row(self) -> bool:
        """Tell whether another sequence can join."""
        return bool(self._free)

    def take(self) -> int:
        """Hand out the lowest free row: low rows keep the decode batch dense."""
        row = min(self._free)
        self._free.remove(row)
        return row

    def release(self, row: int, *, clear: bool = False) -> None:
        """Give a row back; `clear` where it may hold values that are not finite."""
        self._free.add(row)
        if clear:
            for layer in (*self.keys, *self.values):
                layer[row].zero_()

    def reserve(self, length: int) -> None:
        """Make room for sequences of `length` tokens in every row."""
        if length <= self.capacity:
            return
        capacity = min(max(length, 2 * self.capacity), self.context)
        self.keys = [_grown(k, capacity) for k in self.keys]
        self.values = [_grown(v, capacity) for v in self.values]

    def write(self, layer: int, rows: Tensor, positions: Tensor, k: Tensor, v: Tensor) -> None:
        """Store `[tokens, kv_heads, head_dim]` at each token's row and position."""
        self.keys[layer][rows, :, positions] = k
        self.values[layer][rows, :, positions] = v


def bytes_per_token(config: ModelConfig, dtype: torch.dtype) -> int:
    """Return what one token of one sequence takes over all layers."""
    return 2 * config.layers * config.kv_size * dtype.itemsize


def _grown(old: Tensor, capacity: int) -> Tensor:
    rows, heads, filled, size = old.shape
    new = old.new_zeros(rows, heads, capacity, size)
    new[:, :, :filled] = old
    return new
