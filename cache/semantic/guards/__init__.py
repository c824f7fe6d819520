"""Guards: what must agree between two questions before an answer is shared."""

from __future__ import annotations

from cache.semantic.guards.compose import AXES, AxisGuards, Check

__all__ = ["AXES", "AxisGuards", "Check"]
