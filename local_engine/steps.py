"""What one step computes: the forward pass over some tokens of each sequence, and the draws."""

from __future__ import annotations

import itertools
from collections.abc import Sequence as Items
from dataclasses import dataclass

import torch
from torch import Tensor

from local_engine.adapters import AdapterRows
from local_engine.batch import Batch, Segment
from local_engine.graphs import graphs_for
from local_engine.kv import PagedKv
from local_engine.lanes import Lane
from local_engine.model import Decoder
from local_engine.sampler import Drawn, sample
from local_engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Work:
    """The next `count` tokens of a sequence, of which the last are a guess."""

    lane: Lane
    sequence: Sequence
    count: int
    guess: tuple[int, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Tell whether all tokens are computed with these, so that the next can be drawn."""
        return self.count >= self.lane.needs

    @property
    def certain(self) -> int:
        """Return how many of the tokens are no guess."""
        return self.count - len(self.guess)

    def segment(self) -> Segment:
        """Return the tokens with where their keys and values go."""
        lane = self.lane
        tokens = [*lane.tokens[lane.computed : lane.computed + self.certain], *self.guess]
        return Segment(lane.table.pages, lane.computed, tokens, lane.table.unbroken)


class Steps:
    """Compute steps with one decoder into one cache."""

    def __init__(
        self, decoder: Decoder, cache: PagedKv, context: int, rows: AdapterRows | None = None
    ) -> None:
        """Take what computes; `rows` is how adapted products hear whose rows a step has."""
        self._decoder = decoder
        self._cache = cache
        self._rows = rows
        self._graphs = graphs_for(decoder, cache, context, has_adapters=rows is not None)

    def draw(self, work: Items[Work]) -> list[list[Drawn | None]]:
        """Compute each piece of work and draw where its sequence is ready, else nothing.

        After a guess every place of it is drawn for, each as if all before it were right.
        """
        draws = [w.sequence.draws(w.guess) if w.is_ready else [] for w in work]
        ends = itertools.accumulate(w.count for w in work)
        wanted = [
            end - 1 - len(w.guess) + place
            for w, own, end in zip(work, draws, ends, strict=True)
            for place in range(len(own))
        ]
        if self._rows is not None:
            self._rows.set((w.sequence.adapter, w.count) for w in work)
        logits = self._logits([w.segment() for w in work], wanted)
        with torch.inference_mode():
            rows = iter(sample(logits, [d for own in draws for d in own]) if wanted else ())
        return [list(itertools.islice(rows, len(own))) for own in draws]

    def _logits(self, segments: Items[Segment], wanted: Items[int]) -> Tensor:
        """Run a step, by playing a recorded one where each sequence decodes one token."""
        if self._graphs is not None and len(wanted) == len(segments) == wanted[-1] + 1:
            logits = self._graphs.forward(segments)
            if logits is not None:
                return logits
        places = torch.tensor(wanted, dtype=torch.long, device=self._decoder.device)
        return self._decoder.forward(Batch(segments, self._cache), self._cache, places)
