"""When a draft is good enough before a full learner knows: one threshold, calibrated by model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

SURE = 0.9
"""On no data: the draft's own signs must leave this little doubt. Better too careful."""

_EDGE = 1e-4


@dataclass(frozen=True, slots=True)
class Platt:
    """A rising map from a draft's own confidence to the probability that it is no worse.

    sigmoid(weight · logit p + bias), as Platt 1999; the identity unless fitted.
    """

    weight: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no rising map. Raises ValueError."""
        if not (0.0 <= self.weight < math.inf and math.isfinite(self.bias)):
            raise ValueError(f"expected a weight of 0 or more and a bias, found {self}")

    def __call__(self, p: float) -> float:
        """Return the calibrated probability; the identity leaves `p` as it is."""
        if self.weight == 1.0 and self.bias == 0.0:
            return p
        return chance_of(self.weight * odds_of(p) + self.bias)


AS_IT_IS = Platt()


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Serve a draft whose calibrated confidence reaches `threshold`; `platt` is by model."""

    threshold: float = SURE
    platt: Mapping[str, Platt] = field(default_factory=dict)

    def quality(self, model: str, raw: float) -> float:
        """Return the probability that a draft is good enough."""
        return self.platt.get(model, AS_IT_IS)(raw)


CAREFUL = Acceptance()
"""What is sure enough while nothing is known."""


def odds_of(p: float) -> float:
    """Return the log odds of a probability, kept finite."""
    inside = min(max(p, _EDGE), 1.0 - _EDGE)
    return math.log(inside / (1.0 - inside))


def chance_of(odds: float) -> float:
    """Return the probability with these log odds."""
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(odds, 30.0))))
