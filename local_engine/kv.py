"""Keys and values of all sequences in pages of one pool, as tensors."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from local_engine.config import ModelConfig

PAGE_SIZE = 16


@dataclass(frozen=True, slots=True)
class KvShape:
    """How much one layer keeps: slots of `[kv_heads, head_dim]`, in how many layers."""

    layers: int
    kv_heads: int
    head_dim: int

    @classmethod
    def of(cls, config: ModelConfig) -> KvShape:
        """Return the shape that a decoder needs."""
        return cls(config.layers, config.kv_heads, config.head_dim)


class PagedKv:
    """Slots of `[kv_heads, head_dim]` per layer; page p holds slots p * page_size and on.

    Page 0 belongs to nobody and stays zero: padding reads it. Unwritten places must stay
    finite, since they are masked by a weight of zero, and zero times NaN is NaN. So
    memory starts as zeros, and a poisoned page is cleared.
    """

    def __init__(
        self,
        shape: KvShape,
        pages: int,
        dtype: torch.dtype,
        device: torch.device,
        page_size: int = PAGE_SIZE,
    ) -> None:
        self.pages = pages
        self.page_size = page_size
        self.dtype = dtype
        self.device = device
        sizes = (2, shape.layers, (pages + 1) * page_size, shape.kv_heads, shape.head_dim)
        self._both = self._allocate(sizes, dtype)
        self.keys = list(self._both[0].unbind(0))
        self.values = list(self._both[1].unbind(0))

    def _allocate(self, sizes: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return zeros; on a CPU the system hands out the memory as pages are first written."""
        if self.device.type != "cpu":
            return torch.zeros(sizes, dtype=dtype, device=self.device)
        nbytes = torch.Size(sizes).numel() * dtype.itemsize
        memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        return torch.frombuffer(memory, dtype=dtype).view(sizes)

    def write(self, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """Store `[tokens, kv_heads, head_dim]` at each token's slot."""
        self.keys[layer].index_copy_(0, slots, k)
        self.values[layer].index_copy_(0, slots, v)

    def read(self, layer: int, slots: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values `[sequences, kv_heads, length, head_dim]`; views of a slice."""
        return _taken(self.keys[layer], slots), _taken(self.values[layer], slots)

    def copy(self, source: int, target: int) -> None:
        """Copy one page onto another, in every layer."""
        self._page(target).copy_(self._page(source))

    def clear(self, pages: Iterable[int]) -> None:
        """Zero pages that may hold values that are not finite."""
        for page in pages:
            self._page(page).zero_()

    def _page(self, page: int) -> Tensor:
        return self._both[:, :, page * self.page_size : (page + 1) * self.page_size]


def bytes_per_token(shape: KvShape, dtype: torch.dtype) -> int:
    """Return what one token of one sequence takes over all layers."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * dtype.itemsize


def _taken(pool: Tensor, slots: slice | Tensor) -> Tensor:
    if isinstance(slots, slice):
        return pool[slots][None].transpose(1, 2)
    rows = pool.index_select(0, slots.flatten())
    return rows.view(*slots.shape, *pool.shape[1:]).transpose(1, 2)
