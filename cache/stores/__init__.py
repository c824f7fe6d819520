"""Where answers are kept."""

from __future__ import annotations

from cache.stores.memory import MemoryStore

__all__ = ["MemoryStore"]
