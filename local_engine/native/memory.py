"""Memory for weights in pages of 2 MiB, where the system has them.

Decoding reads every weight once a token: on Sapphire Rapids one core read 12 GB/s from
pages of 4 KiB and 17 from large ones, whose addresses need few translations.
"""

from __future__ import annotations

import contextlib
import mmap
import threading

import torch
from torch import Tensor

_CHUNK = 32 << 20
_LARGE_PAGE = 2 << 20
_LINE = 64
# What is smaller stays in the caches anyhow.
_SMALLEST = 64 << 10


class _Chunks:
    """Weights one after another in chunks; a chunk lives as long as a weight in it does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rest = torch.empty(0, dtype=torch.uint8)

    def take(self, nbytes: int) -> Tensor:
        """Return so many bytes from the beginning of a cache line on."""
        with self._lock:
            if len(self._rest) < nbytes:
                self._rest = _large_pages(max(_CHUNK, nbytes))
            taken = self._rest[:nbytes]
            self._rest = self._rest[nbytes + -nbytes % _LINE :]
            return taken


_chunks = _Chunks()


def settled(tensor: Tensor) -> Tensor:
    """Return a tensor of a CPU in memory that is read fast; others, and small ones, as they are."""
    if tensor.device.type != "cpu" or tensor.nbytes < _SMALLEST:
        return tensor.contiguous()
    place = _chunks.take(tensor.nbytes).view(tensor.dtype).view(tensor.shape)
    return place.copy_(tensor)


def _large_pages(nbytes: int) -> Tensor:
    memory = mmap.mmap(-1, nbytes + _LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # without them, small pages are right, too
            memory.madvise(mmap.MADV_HUGEPAGE)
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    begin = -whole.data_ptr() % _LARGE_PAGE
    return whole[begin : begin + nbytes]
