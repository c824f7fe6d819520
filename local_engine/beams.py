"""Beam search as a pure decision: which continuations go on, which answers stand.

The rules are those of `transformers.generate` with `num_beams`: of each step's likeliest
continuations over all beams, those that end are kept as answers if they are among the
first `width`, and the likeliest that do not end go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from local_engine.types import Token

EarlyStopping = bool | Literal["never"]


@dataclass(frozen=True, slots=True)
class BeamRules:
    """How a search goes: so many beams, and when it ends.

    An answer's score is its log-probability divided by its length to the power of
    `length_penalty`. `early_stopping` true ends with the first `width` answers, false once
    no beam as it is now could better the worst of them, "never" once none ever could.
    """

    width: int
    max_tokens: int
    end_ids: frozenset[int] = frozenset()
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False

    @property
    def candidates(self) -> int:
        """Return how many continuations are looked at: enough to go on if all others end."""
        return max(2, 1 + len(self.end_ids)) * self.width


@dataclass(frozen=True, slots=True)
class Beam:
    """Tokens after the prompt, and the sum of their log-probabilities."""

    tokens: tuple[Token, ...] = ()
    logprob: float = 0.0

    @property
    def ids(self) -> tuple[int, ...]:
        """Return the ids of its tokens."""
        return tuple(token.id for token in self.tokens)


@dataclass(frozen=True, slots=True)
class _Candidate:
    beam: Beam
    is_end: bool


class Beams:
    """A search under way: the beams that go on, and the best answers so far."""

    def __init__(self, rules: BeamRules) -> None:
        self.rules = rules
        self.running = [Beam()]
        self._ended: list[tuple[float, Beam]] = []
        self._length = 0
        self._can_improve = True

    @property
    def is_over(self) -> bool:
        """Tell whether nothing that goes on could be among the answers."""
        is_full = len(self._ended) == self.rules.width
        has_enough = is_full and self.rules.early_stopping is True
        return not self.running or not self._can_improve or has_enough

    @property
    def answers(self) -> list[Beam]:
        """Return the answers, the best first."""
        return [beam for _, beam in self._ended]

    def advance(self, drawn: Sequence[Token]) -> None:
        """Take what the model says after each running beam: its likeliest tokens in `top`."""
        found = [
            _extended(beam, token, id, logprob)
            for beam, token in zip(self.running, drawn, strict=True)
            for id, logprob in token.top
        ]
        found.sort(key=lambda beam: -beam.logprob)
        self._length += 1
        is_last = self._length == self.rules.max_tokens
        ends = self.rules.end_ids
        best = [
            _Candidate(beam, is_last or beam.tokens[-1].id in ends)
            for beam in found[: self.rules.candidates]
        ]
        self._keep([c.beam for c in best[: self.rules.width] if c.is_end])
        self.running = [c.beam for c in best if not c.is_end][: self.rules.width]
        self._can_improve = bool(self.running) and self._may_improve()

    def _keep(self, ended: Sequence[Beam]) -> None:
        scored = [(self._score(beam.logprob, self._length), beam) for beam in ended]
        both = sorted(self._ended + scored, key=lambda pair: -pair[0])
        self._ended = both[: self.rules.width]

    def _may_improve(self) -> bool:
        """Tell whether the best running beam could still better the worst answer."""
        if len(self._ended) < self.rules.width:
            return True
        is_hopeful = self.rules.early_stopping == "never" and self.rules.length_penalty > 0
        length = self.rules.max_tokens if is_hopeful else self._length
        return self._score(self.running[0].logprob, length) > self._ended[-1][0]

    def _score(self, logprob: float, length: int) -> float:
        return float(logprob / length**self.rules.length_penalty)


def _extended(beam: Beam, drawn: Token, id: int, logprob: float) -> Beam:
    token = replace(drawn, id=id, logprob=logprob)
    return Beam((*beam.tokens, token), beam.logprob + logprob)
