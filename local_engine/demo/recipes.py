"""How each size of demo model is built and trained."""

from __future__ import annotations

from dataclasses import dataclass

from local_engine.demo.batches import Style
from local_engine.demo.network import Shape


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one size is built and trained; times are shares of the run."""

    name: str
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    feed_forward: int
    style: Style
    peak_rate: float = 4e-3
    warm_up: float = 0.02
    last_rate: float = 0.02
    tokens: int = 2048
    length_power: float = 0.0

    def shape(self, vocabulary: int) -> Shape:
        """Return the network's sizes for a vocabulary."""
        return Shape(
            vocabulary=vocabulary,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_width=self.head_width,
            feed_forward=self.feed_forward,
        )

    def rate_factor(self, progress: float, start: float = 0.0) -> float:
        """Return the learning rate as a share of its peak: a ramp up from `start`, then down."""
        ramp = max((progress - start) / self.warm_up, 0.01)
        return min(1.0, ramp, max(self.last_rate, (1.0 - progress) / 0.5))


RECIPES = {
    "tiny": Recipe(
        name="tiny",
        width=128,
        layers=6,
        heads=4,
        kv_heads=2,
        head_width=32,
        feed_forward=352,
        style=Style(is_worked=False),
    ),
    "small": Recipe(
        name="small",
        width=192,
        layers=6,
        heads=6,
        kv_heads=3,
        head_width=32,
        feed_forward=512,
        style=Style(is_worked=True, last_levels=(0.34, 0.28, 0.22, 0.16)),
        peak_rate=3e-3,
        length_power=0.5,
    ),
}
