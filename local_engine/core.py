"""The engine's inside: sequences that join, advance by steps, and leave.

Runs in one thread and knows no clock but the one handed in, no event loop, no socket.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch

from local_engine.batch import Batch, Segment
from local_engine.errors import GenerationFailed
from local_engine.kv import KvCache, bytes_per_token
from local_engine.loader import LoadedModel
from local_engine.sampler import Draw, Drawn, sample
from local_engine.scheduler import plan_step
from local_engine.tokenizer import TextStream, Tokenizer
from local_engine.types import (
    EngineLimits,
    EngineStats,
    Finish,
    FinishReason,
    GenerationRequest,
    Token,
)


class Sequence:
    """One request on its way: its tokens, how far they are computed, its text."""

    def __init__(self, request: GenerationRequest, tokenizer: Tokenizer, submitted: float) -> None:
        self.request = request
        self.tokens = list(request.prompt)
        self.text = TextStream(tokenizer, request.stop)
        self.counts: Counter[int] = Counter()
        self.seen = set(request.prompt) if request.sampling.reads_history else set[int]()
        self.submitted = submitted
        self.queue_s = 0.0
        self.compute_s = 0.0
        self.computed = 0
        self.row = -1

    @property
    def needs(self) -> int:
        """Return how many of its tokens are not yet in the cache."""
        return len(self.tokens) - self.computed

    @property
    def generated(self) -> int:
        """Return how many tokens were added to the prompt."""
        return len(self.tokens) - len(self.request.prompt)

    def segment(self, count: int) -> Segment:
        """Return the next `count` tokens to compute."""
        end = self.computed + count
        return Segment(self.row, self.computed, tuple(self.tokens[self.computed : end]))

    def draw(self) -> Draw:
        """Return what the sampler must know for the next token."""
        request = self.request
        return Draw(
            request.sampling, len(self.tokens), self.counts, self.seen, request.top_logprobs
        )

    def accept(self, token: int) -> None:
        """Append a drawn token."""
        self.tokens.append(token)
        if self.request.sampling.reads_history:
            self.counts[token] += 1
            self.seen.add(token)

    def finish(self, reason: FinishReason, error: BaseException | None = None) -> Finish:
        """Account for the sequence at its end."""
        return Finish(
            reason,
            prompt_tokens=len(self.request.prompt),
            completion_tokens=self.generated,
            compute_s=self.compute_s,
            queue_s=self.queue_s,
            error=error,
        )


@dataclass(frozen=True, slots=True)
class Event:
    """What one step did for one sequence."""

    sequence: Sequence
    token: Token | None = None
    finish: Finish | None = None


@dataclass(slots=True)
class _Counters:
    steps: int = 0
    busy_s: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    ended: Counter[FinishReason] = field(default_factory=Counter)


class EngineCore:
    """Continuous batching over one decoder and its cache."""

    def __init__(
        self, model: LoadedModel, limits: EngineLimits, clock: Callable[[], float]
    ) -> None:
        self._model = model
        self._limits = limits
        self._clock = clock
        self.context = _context(model, limits)
        decoder = model.decoder
        self._cache = KvCache(
            decoder.config, limits.max_batch, self.context, decoder.dtype, decoder.device
        )
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._counters = _Counters()

    @property
    def is_idle(self) -> bool:
        """Tell whether there is nothing to compute."""
        return not self._running and not self._waiting

    def stats(self, refused: int = 0) -> EngineStats:
        """Return the counters; `refused` is counted by whoever admits."""
        counters, ended = self._counters, self._counters.ended
        return EngineStats(
            running=len(self._running),
            waiting=len(self._waiting),
            steps=counters.steps,
            busy_s=counters.busy_s,
            prompt_tokens=counters.prompt_tokens,
            completion_tokens=counters.completion_tokens,
            finished=ended["stop"] + ended["length"],
            cancelled=ended["cancelled"],
            failed=ended["error"],
            refused=refused,
        )

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence; it joins the batch at the next step with a free row."""
        self._waiting.append(sequence)

    def cancel(self, ids: Iterable[str]) -> list[Event]:
        """End the named sequences now, freeing their rows; unknown ids are ignored."""
        named = set(ids)
        leaving = [s for s in (*self._running, *self._waiting) if s.request.id in named]
        return [self._end(s, "cancelled") for s in leaving]

    def cancel_all(self) -> list[Event]:
        """End every sequence now."""
        return self.cancel([s.request.id for s in (*self._running, *self._waiting)])

    def step(self) -> list[Event]:
        """Advance the batch once; return what happened to each sequence that yielded."""
        started = self._clock()
        self._admit(started)
        takes = plan_step([s.needs for s in self._running], self._limits.prefill_chunk)
        work = [(s, n) for s, n in zip(self._running, takes, strict=True) if n]
        # Single tokens first and by row: they are attended together, densely if possible.
        if not work:
            return []
        work.sort(key=lambda item: (item[1] > 1, item[0].row))
        try:
            ready, drawn = self._compute(work)
        except RuntimeError as exc:
            return [self._fail(s, exc) for s, _ in work]
        self._charge(work, self._clock() - started)
        return [self._advance(s, d) for s, d in zip(ready, drawn, strict=True)]

    def _admit(self, now: float) -> None:
        while self._waiting and self._cache.has_free_row:
            sequence = self._waiting.popleft()
            sequence.row = self._cache.take()
            sequence.queue_s = now - sequence.submitted
            self._running.append(sequence)

    def _compute(
        self, work: list[tuple[Sequence, int]]
    ) -> tuple[list[Sequence], list[Drawn | None]]:
        """Run the forward pass, and draw for each sequence whose tokens are all computed."""
        decoder = self._model.decoder
        batch = Batch.of([s.segment(n) for s, n in work], decoder.device)
        final = [i for i, (s, n) in enumerate(work) if s.needs == n]
        ready = [work[i][0] for i in final]
        logits = decoder.forward(batch, self._cache, batch.last[final])
        for sequence, count in work:
            sequence.computed += count
        with torch.inference_mode():
            return ready, sample(logits, [s.draw() for s in ready]) if ready else []

    def _charge(self, work: list[tuple[Sequence, int]], elapsed: float) -> None:
        """Share a step's time over its sequences by the tokens they processed."""
        per_token = elapsed / max(1, sum(n for _, n in work))
        for sequence, count in work:
            sequence.compute_s += per_token * count
            if not sequence.generated:
                self._counters.prompt_tokens += count
        self._counters.steps += 1
        self._counters.busy_s += elapsed

    def _advance(self, sequence: Sequence, drawn: Drawn | None) -> Event:
        """Append the drawn token and see whether the sequence ends with it."""
        if drawn is None:
            return self._fail(sequence, ArithmeticError("the logits are not finite"))
        request = sequence.request
        is_end = drawn.token in self._model.end_ids and not request.ignore_end
        sequence.accept(drawn.token)
        self._counters.completion_tokens += 1
        is_full = sequence.generated >= request.max_tokens
        released = sequence.text.push(drawn.token) if not is_end else sequence.text.finish()
        text, is_stopped = released.text, released.is_stopped
        if is_full and not is_end and not is_stopped:
            rest = sequence.text.finish()
            text, is_stopped = text + rest.text, rest.is_stopped
        token = Token(
            id=drawn.token,
            text=text,
            data=b"" if is_end else self._model.tokenizer.bytes_of(drawn.token),
            logprob=drawn.logprob,
            entropy=drawn.entropy,
            margin=drawn.margin,
            top=drawn.top,
            is_end=is_end,
        )
        if is_end or is_stopped:
            return self._end(sequence, "stop", token)
        return self._end(sequence, "length", token) if is_full else Event(sequence, token)

    def _fail(self, sequence: Sequence, cause: Exception) -> Event:
        error = GenerationFailed(f"The request failed while it was running: {cause}")
        error.__cause__ = cause
        return self._end(sequence, "error", error=error)

    def _end(
        self,
        sequence: Sequence,
        reason: FinishReason,
        token: Token | None = None,
        error: Exception | None = None,
    ) -> Event:
        """Take a sequence out, free its row, and make its one final event."""
        if sequence.row >= 0:
            self._running.remove(sequence)
            self._cache.release(sequence.row, clear=error is not None)
        else:
            self._waiting.remove(sequence)
        self._counters.ended[reason] += 1
        return Event(sequence, token, sequence.finish(reason, error))


def _context(model: LoadedModel, limits: EngineLimits) -> int:
    """Return the context that the model allows and the cache has room for."""
    decoder = model.decoder
    per_row = limits.kv_bytes // max(1, limits.max_batch)
    fits = per_row // bytes_per_token(decoder.config, decoder.dtype)
    return max(1, min(decoder.config.context, fits, limits.max_context or decoder.config.context))
