"""Attention over paged keys and values: what a layer asks for, and how it is computed."""

from __future__ import annotations

from local_engine.attention.paths import attend_written, has_kernels, write_and_attend
from local_engine.attention.spec import AttentionSpec

__all__ = ["AttentionSpec", "attend_written", "has_kernels", "write_and_attend"]
