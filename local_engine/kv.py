"""Keys and values of all sequences in pages of one pool, as tensors."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from local_engine.config import ModelConfig
from local_engine.types import KvFormat

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

    Page 0 belongs to nobody: padding reads it, and rows that only fill up a recorded step
    write there. Unwritten places must stay finite, since they are masked by a weight of
    zero, and zero times NaN is NaN. So memory starts as zeros, and a poisoned page is
    cleared.
    """

    is_plain = True

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
        slots = (pages + 1) * page_size
        self._stores = self._allocate((2, shape.layers, slots, shape.kv_heads, shape.head_dim))
        self.keys, self.values = (list(half.unbind(0)) for half in self._stores[0])

    def _allocate(self, sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Return what holds the values, and whatever belongs to each slot besides."""
        return (_zeros(sizes, self.dtype, self.device),)

    def write(self, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """Store `[tokens, kv_heads, head_dim]` at each token's slot."""
        self.keys[layer].index_copy_(0, slots, k)
        self.values[layer].index_copy_(0, slots, v)

    def read(self, layer: int, slots: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values `[sequences, kv_heads, length, head_dim]`; views of a slice."""
        return _taken(self.keys[layer], slots), _taken(self.values[layer], slots)

    def copy(self, source: int, target: int) -> None:
        """Copy one page onto another, in every layer."""
        for store in self._stores:
            self._page(store, target).copy_(self._page(store, source))

    def clear(self, pages: Iterable[int]) -> None:
        """Zero pages that may hold values that are not finite."""
        for page in pages:
            for store in self._stores:
                self._page(store, page).zero_()

    def _page(self, store: Tensor, page: int) -> Tensor:
        return store[:, :, page * self.page_size : (page + 1) * self.page_size]


class Int8Kv(PagedKv):
    """Values as int8 with one bf16 scale for each token and head: about half of bf16's memory.

    q = round(x / s), s = max|x| / 127 over the head's dimensions, rounded before it divides.
    """

    is_plain = False

    def _allocate(self, sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
        values = _zeros(sizes, torch.int8, self.device)
        return values, _zeros((*sizes[:-1], 1), torch.bfloat16, self.device)

    def write(self, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """Round and store `[tokens, kv_heads, head_dim]` at each token's slot."""
        values, scales = self._stores
        for half, x in enumerate((k.float(), v.float())):
            scale = (x.abs().amax(-1, keepdim=True) / 127).clamp_min(1e-12).to(torch.bfloat16)
            rounded = (x / scale.float()).round().clamp(-127, 127).to(torch.int8)
            values[half, layer].index_copy_(0, slots, rounded)
            scales[half, layer].index_copy_(0, slots, scale)

    def read(self, layer: int, slots: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values `[sequences, kv_heads, length, head_dim]`, widened again."""
        values, scales = self._stores
        k, v = (
            _taken(values[half, layer], slots).to(self.dtype)
            * _taken(scales[half, layer], slots).to(self.dtype)
            for half in range(2)
        )
        return k, v


def make_kv(
    kv_format: KvFormat, shape: KvShape, pages: int, dtype: torch.dtype, device: torch.device
) -> PagedKv:
    """Make a cache that keeps values in the model's type or in int8."""
    return (Int8Kv if kv_format == "int8" else PagedKv)(shape, pages, dtype, device)


def bytes_per_token(shape: KvShape, dtype: torch.dtype, kv_format: KvFormat = "model") -> int:
    """Return what one token of one sequence takes over all layers."""
    head = shape.head_dim * dtype.itemsize
    if kv_format == "int8":
        head = shape.head_dim + torch.bfloat16.itemsize
    return 2 * shape.layers * shape.kv_heads * head


def _zeros(sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return zeros; on a CPU the system hands out the memory as pages are first written."""
    if device.type != "cpu":
        return torch.zeros(sizes, dtype=dtype, device=device)
    nbytes = torch.Size(sizes).numel() * dtype.itemsize
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(memory, dtype=dtype).view(sizes)


def _taken(pool: Tensor, slots: slice | Tensor) -> Tensor:
    if isinstance(slots, slice):
        return pool[slots][None].transpose(1, 2)
    rows = pool.index_select(0, slots.flatten())
    return rows.view(*slots.shape, *pool.shape[1:]).transpose(1, 2)
