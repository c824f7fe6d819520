"""What is saved by giving drafts up before their end, as far as it can be told."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.attempt import Attempt

_WEIGHT = 0.05


@dataclass(slots=True)
class OfModel:
    """Drafts of one model that were given up in this process.

    `usual` is the length in tokens of drafts that came to their end, the latest weighing most;
    `saved` is by how much those given up fell short of it.
    """

    given_up: int = 0
    saved: float = 0.0
    usual: float = 0.0


@dataclass(slots=True)
class Early:
    """Counts by model. What a draft would have come to is an estimate, and is told as one."""

    models: dict[str, OfModel] = field(default_factory=dict)

    def finished(self, attempt: Attempt) -> None:
        """Learn how long a draft is that comes to its end."""
        own, length = self._of(attempt), float(attempt.seen)
        own.usual += (length - own.usual) * _WEIGHT if own.usual else length

    def given_up(self, attempt: Attempt) -> float:
        """Count a draft that is given up; return about how many tokens that saves."""
        own = self._of(attempt)
        saved = max(0.0, own.usual - attempt.seen)
        own.given_up += 1
        own.saved += saved
        return saved

    def _of(self, attempt: Attempt) -> OfModel:
        return self.models.setdefault(attempt.model, OfModel())
