"""Checkpoints whose weights are stored quantized, read into one common form."""

from __future__ import annotations

from local_engine.formats.layout import Layout, Need, find_layout

__all__ = ["Layout", "Need", "find_layout"]
