"""What the semantic cache compares, and who decides.

The lookup finds stored questions near the asked one (`Candidate`), strikes out
those that a guard refuses, and lets the decider say which answer, if any,
serves. Guards and decider know neither vectors nor entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cache.semantic.surroundings import Around


@dataclass(frozen=True, slots=True)
class Candidate:
    """A stored question near the asked one.

    `similarity` is the cosine of the embeddings; `hits` counts the times that the
    entry was served; `age_s` is the time since its answer was made, in seconds.
    Entries with one `answer_key` hold one answer; an empty key says nothing. `around` is
    how it lies among the neighbours, None where that is not known.
    """

    question: str
    answer_len: int
    similarity: float
    entry_id: str
    hits: int = 0
    age_s: float = 0.0
    answer_key: str = ""
    around: Around | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Which candidate serves, by its place in the list, or None, and why.

    `probability` is the calibrated chance that the answer of the best candidate
    is right, `lower` the bound that was held against the allowed error. `teaches` is
    the place of a candidate that does not serve, and whose answer is worth comparing
    with the one that is given in its place. `grey` is that of one, served or not, about
    which a second opinion is worth having.
    """

    serve: int | None
    probability: float = 0.0
    lower: float = 0.0
    reason: str = ""
    teaches: int | None = None
    grey: int | None = None


class Guards(Protocol):
    """Refuses a near miss: a question that is alike in words and asks something else."""

    def refuse(self, asked: str, stored: str) -> str | None:
        """Return why the stored question must not answer the asked one, or None."""
        ...


class Decider(Protocol):
    """Says whether a stored answer serves, and learns from what became of it."""

    def decide(self, asked: str, candidates: Sequence[Candidate], max_error: float) -> Decision:
        """Return the candidate whose chance to be wrong is surely at most `max_error`.

        The candidates come in falling similarity; those that a guard refused are absent.
        """
        ...

    def observe(self, entry_id: str, was_right: bool) -> None:
        """Take note of a stored answer that was compared with a fresh one."""
        ...
