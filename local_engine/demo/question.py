"""The value every task family produces, and the shape of a family."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random


@dataclass(frozen=True, slots=True)
class Question:
    """A question whose answer can be checked.

    `canonical_key` is the same for every wording of one question and for every order of
    operands that leaves the answer alone. `working` holds the brief steps that lead to the
    answer; it is empty where the answer is best given directly.
    """

    family: str
    level: int
    prompt: str
    answer: str
    canonical_key: str
    working: str = ""

    @property
    def worked_reply(self) -> str:
        """Return the reply of a model that shows its working before it answers."""
        return f"{self.working} answer: {self.answer}" if self.working else self.answer


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of task: how to draw a question of a level, and how often to.

    `demo_share` weighs the family among held-out questions; zero marks a closed family, a short
    list of facts that is trained whole because nothing could be inferred about a fact left out.
    """

    name: str
    draw: Callable[[Random, int], Question]
    demo_share: float
    training_share: float
    levels: int = 4
