"""Nearest vectors, by inner product."""

from __future__ import annotations

from cache.index.types import Near, VectorIndex

__all__ = ["Near", "VectorIndex"]
