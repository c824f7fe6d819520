"""What one layer's attention is, apart from its inputs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AttentionSpec:
    """Scale, reach and cap of a layer's scores.

    `scale` multiplies the products of query and key. `window` is how many tokens a query
    sees, itself included; None means all before it. `soft_cap` c turns a scaled score s
    into c·tanh(s / c) before the mask (Gemma 2).
    """

    scale: float
    window: int | None = None
    soft_cap: float | None = None
