"""What lies between the products of a layer, in few kernels on a GPU, in C on a CPU."""

from __future__ import annotations

from local_engine.fused.paths import Steps, steps_for, takes_fused

__all__ = ["Steps", "steps_for", "takes_fused"]
