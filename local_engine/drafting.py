"""Guesses by a second, smaller model (speculative decoding, arXiv 2211.17192).

The small model draws with the sampling, the form and the random numbers of the request
that it guesses for, so it is right wherever it is sure of the same tokens. What it says
is checked as every other guess is, and changes no answer.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from local_engine.batch import Batch, Segment
from local_engine.errors import CheckpointError
from local_engine.kv import PAGE_SIZE, KvShape, bytes_per_token, make_kv
from local_engine.loader import LoadedModel
from local_engine.pages import OutOfPages, PagePool, PageTable
from local_engine.sampler import choose
from local_engine.sequence import Sequence
from local_engine.types import EngineLimits


@dataclass(slots=True, eq=False)
class _Track:
    """How far the small model has read one sequence, and what it guessed from `base` on."""

    table: PageTable = field(default_factory=PageTable)
    computed: int = 0
    base: int = 0
    guess: list[int] = field(default_factory=list)
    is_foreign: bool = False

    def settle(self, tokens: Items[int], vocab: int) -> None:
        """Go back to the last token that came as it was guessed."""
        right = self.base
        for guessed in self.guess:
            if right >= len(tokens) or tokens[right] != guessed:
                break
            right += 1
        self.is_foreign |= any(token >= vocab for token in tokens[self.base :])
        # One token at least is computed anew, for what comes after it.
        self.computed = min(self.computed, right, len(tokens) - 1)
        self.base, self.guess = len(tokens), []


class Drafter:
    """Run a small model beside a large one, on a cache of its own."""

    def __init__(self, model: LoadedModel, limits: EngineLimits, context: int, vocab: int) -> None:
        """Take the small model, and the context and vocabulary of the large one."""
        self._decoder = model.decoder
        self._ends = model.end_ids
        self._chunk = limits.prefill_chunk
        self._vocab = min(vocab, model.config.vocab)
        self._context = min(context, model.config.context)
        shape, dtype = KvShape.of(model.config), self._decoder.dtype
        fits = limits.kv_bytes // (PAGE_SIZE * bytes_per_token(shape, dtype))
        pages = max(1, min(fits, limits.max_batch * -(-self._context // PAGE_SIZE)))
        self._cache = make_kv("model", shape, pages, dtype, self._decoder.device)
        self._pool = PagePool(pages)
        self._tracks: dict[Sequence, _Track] = {}

    @property
    def pages_used(self) -> int:
        """Return how many pages of its cache are in use."""
        return self._pool.size - self._pool.available

    def forget(self, sequence: Sequence) -> None:
        """Give back what is kept of a sequence."""
        if track := self._tracks.pop(sequence, None):
            self._pool.release(track.table)

    def propose(self, sequences: Items[Sequence], most: int) -> dict[Sequence, tuple[int, ...]]:
        """Guess up to `most` tokens for each sequence.

        One whose prompt is not read yet gets none; so much of it is read in each call that
        the others wait for one chunk at most.
        """
        ready = {s: t for s in sequences if (t := self._track(s, most, sequences)) is not None}
        guessing = self._read(ready)
        for place in range(most):
            guessing = [(s, t) for s, t in guessing if _may_go_on(s, t, most, self._ends)]
            if place and guessing:
                work = [(s, t, t.guess[-1:]) for s, t in guessing]
                guessing = self._drawn(self._forward(work), guessing)
        return {s: tuple(t.guess) for s, t in ready.items() if t.guess}

    def _read(self, tracks: dict[Sequence, _Track]) -> list[tuple[Sequence, _Track]]:
        """Read what is new of each sequence, and draw one token after those read to the end."""
        left = self._chunk
        work: list[tuple[Sequence, _Track, list[int]]] = []
        for sequence, track in tracks.items():
            new = sequence.tokens[track.computed : track.computed + max(left, 1)]
            left -= len(new)
            if len(new) == 1 or left >= 0:
                work.append((sequence, track, new))
        # Those of one token come first, as batches want them.
        work.sort(key=lambda item: len(item[2]) > 1)
        logits = self._forward(work) if work else None
        ended = [(s, t) for s, t, _ in work]
        if logits is None:
            return []
        done = [n for n, (s, t) in enumerate(ended) if t.computed == len(s.tokens)]
        return self._drawn(logits[done], [ended[n] for n in done]) if done else []

    def _forward(self, work: Items[tuple[Sequence, _Track, list[int]]]) -> Tensor:
        """Compute tokens of sequences; return the logits after the last of each."""
        segments = [Segment(t.table.pages, t.computed, new, t.table.unbroken) for _, t, new in work]
        batch = Batch(segments, self._cache)
        logits = self._decoder.forward(batch, self._cache, batch.last)
        for _, track, new in work:
            track.computed += len(new)
        return logits[:, : self._vocab]

    def _drawn(
        self, logits: Tensor, tracks: Items[tuple[Sequence, _Track]]
    ) -> list[tuple[Sequence, _Track]]:
        """Draw a token for each row, and return those it could be drawn for."""
        draws = [s.draws(t.guess) for s, t in tracks]
        is_sound = torch.isfinite(logits.amax(-1)).tolist()
        # A form that has ended has fewer places than were guessed.
        rows = [
            n
            for n, (_, t) in enumerate(tracks)
            if is_sound[n] and len(draws[n]) == len(t.guess) + 1
        ]
        for n, sound in enumerate(is_sound):
            if not sound:
                self._spoil(*tracks[n])
        if not rows:
            return []
        with torch.inference_mode():
            chosen = choose(logits[rows], [draws[n][-1] for n in rows]).tolist()
        for n, token in zip(rows, chosen, strict=True):
            tracks[n][1].guess.append(token)
        return [tracks[n] for n in rows]

    def _spoil(self, sequence: Sequence, track: _Track) -> None:
        """Let nothing read what is not finite."""
        self._cache.clear(page for page in track.table.pages if page)
        track.guess = []
        self.forget(sequence)

    def _track(self, sequence: Sequence, most: int, others: Collection[Sequence]) -> _Track | None:
        """Return the track of a sequence with room to guess, None where there is none."""
        track = self._tracks.setdefault(sequence, _Track())
        track.settle(sequence.tokens, self._vocab)
        end = len(sequence.tokens) + most
        if track.is_foreign or end > self._context or _room(sequence) < 1:
            return None
        missing = -(-end // PAGE_SIZE) - len(track.table.pages)
        if missing > self._pool.available:
            for idle in [s for s in self._tracks if s not in others]:
                self.forget(idle)
        try:
            self._pool.extend(track.table, max(0, missing))
        except OutOfPages:
            return None
        return track


def _room(sequence: Sequence) -> int:
    """Return how many tokens may be guessed, the last of which is followed by another."""
    return sequence.request.max_tokens - sequence.generated - 1


def _may_go_on(sequence: Sequence, track: _Track, most: int, ends: frozenset[int]) -> bool:
    """Tell whether one more token may be guessed."""
    has_ended = track.guess[-1] in ends and not sequence.request.ignore_end
    return len(track.guess) < min(most, _room(sequence)) and not has_ended


def check_pair(model: LoadedModel, draft: LoadedModel, path: Path) -> None:
    """Raise `CheckpointError` unless both models mean the same by a token."""
    if model.tokenizer.data != draft.tokenizer.data:
        raise CheckpointError(
            path,
            f"has other tokens ({draft.tokenizer.size}) than the model it is to guess for "
            f"({model.tokenizer.size}); choose a smaller model of the same family",
        )
