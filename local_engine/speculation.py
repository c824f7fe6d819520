"""Guesses of the next tokens that cost no model: what followed the last time it went like this.

A guess is checked by computing all of its tokens in one step, and each is kept only where
the sampler draws the same token there, with that position's own random number. So what
comes out is what would have come out without guessing, sampled or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

_GRAMS = (3, 2)
_LONGEST_PAUSE = 32


class PromptLookup:
    """Guess from one sequence's own tokens (prompt lookup); rests after wrong guesses."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}
        self._indexed = 0
        self._pause = 1
        self._resting = 0

    def guess(self, tokens: Sequence[int], most: int) -> tuple[int, ...]:
        """Return up to `most` tokens that may come next, often none."""
        if most < 1:
            return ()
        if self._resting:
            self._resting -= 1
            return ()
        self._index(tokens)
        for size in _GRAMS:
            start = self._after.get(tuple(tokens[-size:]))
            if start is not None:
                # What repeats is taken to go on repeating.
                period = len(tokens) - start
                return tuple(tokens[start + n % period] for n in range(most))
        return ()

    def note(self, kept: int) -> None:
        """Learn how many tokens of the last guess were right."""
        if kept:
            self._pause, self._resting = 1, 0
        else:
            self._resting = self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _index(self, tokens: Sequence[int]) -> None:
        for end in range(self._indexed, len(tokens)):
            for size in _GRAMS:
                if end >= size:
                    self._after[tuple(tokens[end - size : end])] = end
        self._indexed = len(tokens)


@dataclass(slots=True)
class _Pace:
    """Seconds per token with and without guesses, as measured so far."""

    plain: float | None = None
    guessed: float | None = None
    steps: int = 0


@dataclass(slots=True)
class GuessGate:
    """Decide whether guessing pays at a batch size, from the pace of both ways.

    Batches are put together by powers of two. Both ways are tried by turns until there is
    a measure of each, and the slower one again every so often.
    """

    trials: int = 8
    again: int = 64
    weight: float = 0.2
    _paces: dict[int, _Pace] = field(default_factory=dict)

    def is_open(self, batch: int) -> bool:
        """Tell whether the next step of so many sequences should guess."""
        pace = self._pace(batch)
        pace.steps += 1
        if pace.steps <= self.trials or pace.plain is None or pace.guessed is None:
            return pace.steps % 2 == 1 or pace.guessed is None
        is_better = pace.guessed < pace.plain
        return is_better if pace.steps % self.again else not is_better

    def note(self, batch: int, seconds: float, tokens: int, *, has_guessed: bool) -> None:
        """Learn how long a step took and how many tokens came of it."""
        pace, now = self._pace(batch), seconds / max(1, tokens)
        if has_guessed:
            pace.guessed = self._mixed(pace.guessed, now)
        else:
            pace.plain = self._mixed(pace.plain, now)

    def _mixed(self, before: float | None, now: float) -> float:
        return now if before is None else before + self.weight * (now - before)

    def _pace(self, batch: int) -> _Pace:
        return self._paces.setdefault(batch.bit_length(), _Pace())
