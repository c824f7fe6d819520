"""One pass of a stream through a cache that keeps what it had to buy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.cache_rules import Rule
from bench.cache_streams import Stream, nearest
from cache.semantic.decision_features import answer_key
from cache.semantic.types import Candidate

HIT, WRONG = 1, 2


@dataclass(frozen=True, slots=True)
class Pass:
    """What became of each question, in order: 0 missed, 1 served rightly, 2 served wrongly."""

    outcomes: npt.NDArray[np.int8]

    @property
    def hit_rate(self) -> float:
        """Return the share of the questions that were served, rightly or not."""
        return float((self.outcomes > 0).mean())

    @property
    def error(self) -> float:
        """Return the share of wrong answers among those served."""
        served = int((self.outcomes > 0).sum())
        return float((self.outcomes == WRONG).sum() / served) if served else 0.0

    @property
    def error_of_queries(self) -> float:
        """Return the share of wrong answers among all questions."""
        return float((self.outcomes == WRONG).mean())


class Replay:
    """Replays of one stream, its similarities computed once."""

    def __init__(self, stream: Stream, *, knows_answers: bool = True) -> None:
        self._stream = stream
        self._cosines = stream.vectors @ stream.vectors.T
        self._keys = {a: answer_key(a) if knows_answers else "" for a in stream.answers}

    def run(
        self, rule: Rule, *, audited: Callable[[str, bool], None] | None = None, share: float = 0.02
    ) -> Pass:
        """Pass the stream through an empty cache; a share of the hits is re-asked where wanted."""
        stream, chance = self._stream, np.random.default_rng(1)
        kept = np.empty(len(stream.texts), np.int64)
        count = 0
        outcomes = np.zeros(len(stream.texts), np.int8)
        held = list(stream.answers)
        for number, asked in enumerate(stream.texts):
            near = self._nearest(number, kept[:count], held, rule.hears_crowds)
            is_right = [held[int(c.entry_id)] == stream.answers[number] for c in near]
            place = rule.serve(asked, near)
            rule.met(near, is_right, place)
            if place is not None:
                outcomes[number] = HIT if is_right[place] else WRONG
                held[number] = held[int(near[place].entry_id)]
            if place is None or rule.keeps_hit:
                kept[count] = number
                count += 1
            if place is None:
                continue
            if audited is not None and chance.random() < share:
                audited(near[place].entry_id, is_right[place])
        return Pass(outcomes)

    def _nearest(
        self,
        number: int,
        kept: npt.NDArray[np.int64],
        held: Sequence[str],
        hears: bool,
    ) -> Sequence[Candidate]:
        if not len(kept):
            return ()
        cosines, numbers = self._cosines[number, kept], kept.tolist()
        return nearest(cosines, numbers, self._stream, lambda n: self._keys[held[n]], crowds=hears)
