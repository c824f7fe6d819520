"""What lies between the products of a layer, in few kernels on a GPU."""

from __future__ import annotations

from local_engine.fused.paths import takes_fused

__all__ = ["takes_fused"]
