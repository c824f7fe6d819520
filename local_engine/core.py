"""The engine's inside: sequences that join, advance by steps, and leave.

Runs in one thread and knows no clock but the one handed in, no event loop, no socket.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

import torch

from local_engine.adapters import AdapterRows
from local_engine.drafting import Drafter
from local_engine.errors import (
    DeadlineExceeded,
    EngineError,
    EngineOutOfMemory,
    EngineUnavailable,
    GenerationFailed,
    is_out_of_memory,
)
from local_engine.kv import PAGE_SIZE, KvShape, bytes_per_token, make_kv
from local_engine.lanes import Lane, Lanes
from local_engine.loader import LoadedModel
from local_engine.sampler import Drawn
from local_engine.scheduler import Rules
from local_engine.sequence import Sequence
from local_engine.speculation import GuessGate
from local_engine.steps import Steps, Work
from local_engine.timings import Timings
from local_engine.types import (
    EngineLimits,
    EngineStats,
    Finish,
    FinishReason,
    Token,
)

log = logging.getLogger(__name__)

# Room for the prefixes of requests that have ended, in times of what those running may need.
_KEEP = 2


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
    preempted: int = 0
    reused_tokens: int = 0
    guessed: int = 0
    guessed_right: int = 0
    ended: Counter[FinishReason] = field(default_factory=Counter)


class EngineCore:
    """Continuous batching over one decoder and its paged cache."""

    def __init__(
        self,
        model: LoadedModel,
        limits: EngineLimits,
        clock: Callable[[], float],
        rows: AdapterRows | None = None,
        draft: LoadedModel | None = None,
    ) -> None:
        """Take a model; `rows` is how its adapted products hear whose rows a step has.

        A `draft` model, of the same tokens, guesses in place of the look-up in the text.
        """
        self._model = model
        self._limits = limits
        self._clock = clock
        decoder = model.decoder
        shape = KvShape.of(decoder.config)
        pages = _pages(shape, decoder.dtype, decoder.config.context, limits)
        self.context = _context(pages, decoder.config.context, limits)
        self._cache = make_kv(limits.kv_format, shape, pages, decoder.dtype, decoder.device)
        self._steps = Steps(decoder, self._cache, self.context, rows)
        rules = Rules(limits.max_batch, limits.prefill_chunk, PAGE_SIZE)
        reach = _reach(model)
        self._lanes = Lanes(pages, rules, head_start_s=limits.head_start_s, reach=reach)
        self._sequences: dict[Lane, Sequence] = {}
        self._lane_of: dict[str, Lane] = {}
        self._leaders: dict[str, Lane] = {}
        self._counters = _Counters()
        self._gate = GuessGate()
        self._drafter = (
            Drafter(draft, limits, self.context, decoder.config.vocab)
            if draft is not None and limits.guesses
            else None
        )
        self.timings = Timings()
        self._now = 0.0

    @property
    def is_idle(self) -> bool:
        """Tell whether there is nothing to compute."""
        return not self._sequences

    def stats(self, refused: int = 0) -> EngineStats:
        """Return the counters; `refused` is counted by whoever admits."""
        counters, ended, pool = self._counters, self._counters.ended, self._lanes.pool
        return EngineStats(
            running=len(self._lanes.running),
            waiting=len(self._lanes.waiting),
            steps=counters.steps,
            busy_s=counters.busy_s,
            prompt_tokens=counters.prompt_tokens,
            completion_tokens=counters.completion_tokens,
            finished=ended["stop"] + ended["length"],
            cancelled=ended["cancelled"],
            failed=ended["error"],
            refused=refused,
            preempted=counters.preempted,
            reused_tokens=counters.reused_tokens,
            guessed=counters.guessed,
            guessed_right=counters.guessed_right,
            pages=pool.size,
            pages_used=pool.size - pool.available,
            pages_kept=pool.kept,
        )

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence; it joins the batch at a step with room for it."""
        request = sequence.request
        lane = self._lanes.lane(
            sequence.tokens,
            len(request.prompt) + request.max_tokens,
            sequence.submitted,
            priority=request.priority,
            tenant=request.tenant,
            adapter="" if sequence.adapter is None else sequence.adapter.key,
            leader=self._leaders.get(request.group),
        )
        if request.group:
            self._leaders.setdefault(request.group, lane)
        self._sequences[lane] = sequence
        self._lane_of[request.id] = lane
        self._lanes.add(lane)

    def cancel(self, ids: Iterable[str]) -> list[Event]:
        """End the named sequences now, freeing their pages; unknown ids are ignored."""
        lanes = (self._lane_of.get(id) for id in dict.fromkeys(ids))
        return [self._end(lane, "cancelled") for lane in lanes if lane is not None]

    def cancel_all(self) -> list[Event]:
        """End every sequence now."""
        return [self._end(lane, "cancelled") for lane in list(self._sequences)]

    def fail_all(self, message: str) -> list[Event]:
        """End every sequence now, as the engine itself cannot go on."""
        lanes = list(self._sequences)
        return [self._end(lane, "error", error=EngineUnavailable(message)) for lane in lanes]

    def step(self) -> list[Event]:
        """Advance the batch once; return what happened to each sequence that yielded."""
        started = self._clock()
        events = self._expire(started)
        plan = self._lanes.plan()
        self._counters.preempted += len(plan.preempted)
        for lane in plan.admitted:
            self._note_join(lane, started)
        if not plan.work:
            return events
        guesses = self._guesses(plan.work)
        work = [self._work(lane, n, guesses.get(lane, ())) for lane, n in plan.work]
        # Single tokens first and the short ones together: they are attended in groups.
        work.sort(key=lambda w: (w.count > 1, w.lane.computed))
        try:
            for source, target in plan.copies:
                self._cache.copy(source, target)
            drawn = self._steps.draw(work)
        except (RuntimeError, MemoryError) as exc:
            return events + [self._fail(w.lane, exc) for w in work]
        self._lanes.advance((w.lane, w.certain) for w in work)
        self._now = self._clock()
        elapsed = self._now - started
        self._charge(work, elapsed)
        told = [e for w, own in zip(work, drawn, strict=True) for e in self._follow(w, own)]
        if self._limits.guesses and all(n == 1 for _, n in plan.work):
            self._gate.note(len(work), elapsed, len(told), has_guessed=bool(guesses))
        return events + told

    def _work(self, lane: Lane, count: int, guess: tuple[int, ...]) -> Work:
        return Work(lane, self._sequences[lane], count + len(guess), guess)

    def _guesses(self, work: Items[tuple[Lane, int]]) -> dict[Lane, tuple[int, ...]]:
        """Guess for sequences that decode, where no prompt is computed beside and it pays."""
        most = self._limits.guesses
        if not most or any(n > 1 or lane.needs > 1 for lane, n in work):
            return {}
        work = [(lane, n) for lane, n in work if self._sequences[lane].generated]
        if not work or not self._gate.is_open(len(work)):
            return {}
        if self._drafter is not None:
            return self._drafted(self._drafter, [lane for lane, _ in work], most)
        found = {}
        for lane, _ in work:
            guess = self._sequences[lane].guess(most)
            if guess and self._lanes.reserve(lane, len(guess)):
                found[lane] = guess
        return found

    def _drafted(
        self, drafter: Drafter, lanes: Items[Lane], most: int
    ) -> dict[Lane, tuple[int, ...]]:
        """Let the small model guess for lanes with room; one that breaks is asked no more."""
        lane_of = {self._sequences[n]: n for n in lanes if self._lanes.reserve(n, most)}
        try:
            found = drafter.propose(list(lane_of), most)
        except (RuntimeError, MemoryError) as exc:
            log.warning("the draft model failed and guesses no more: %s", exc)
            self._drafter = None
            return {}
        return {lane_of[sequence]: guess for sequence, guess in found.items()}

    def _follow(self, work: Work, drawn: Items[Drawn | None]) -> Iterator[Event]:
        """Take what was drawn, as far as each token of the guess before it was right."""
        lane, guess, right = work.lane, work.guess, 0
        for one, guessed in itertools.zip_longest(drawn, guess[: len(drawn) - 1]):
            event = self._advance(lane, one)
            yield event
            if event.finish is not None or one is None or one.token != guessed:
                break
            right += 1
        if guess:
            work.sequence.lookup.note(right)
            self._counters.guessed += len(guess)
            self._counters.guessed_right += right
        if right and lane in self._sequences:
            self._lanes.advance([(lane, right)])

    def _expire(self, now: float) -> list[Event]:
        """End the sequences whose deadline has passed."""
        late = [lane for lane, s in self._sequences.items() if s.expires <= now]
        return [self._end(lane, "error", error=DeadlineExceeded()) for lane in late]

    def _note_join(self, lane: Lane, now: float) -> None:
        sequence = self._sequences[lane]
        if sequence.queue_s is None:
            sequence.queue_s = now - sequence.submitted
            if not sequence.request.is_continued:
                self.timings.queue.observe(sequence.queue_s)
        self._counters.reused_tokens += lane.reused

    def _charge(self, work: Items[Work], elapsed: float) -> None:
        """Share a step's time over its sequences by the tokens they processed."""
        per_token = elapsed / max(1, sum(w.count for w in work))
        for w in work:
            w.sequence.compute_s += per_token * w.count
            if not w.sequence.generated:
                self._counters.prompt_tokens += w.count
        self._counters.steps += 1
        self.timings.batch.observe(len(work))
        self._counters.busy_s += elapsed

    def _advance(self, lane: Lane, drawn: Drawn | None) -> Event:
        """Append the drawn token and see whether the sequence ends with it."""
        sequence = self._sequences[lane]
        if drawn is None:
            return self._fail(lane, ArithmeticError("the logits are not finite"))
        if sequence.fault is None:
            sequence.accept(drawn.token)
        if sequence.fault is not None:
            return self._end(lane, "error", error=sequence.fault)
        request = sequence.request
        is_end = drawn.token in self._model.end_ids and not request.ignore_end
        self._note_token(sequence)
        is_complete = sequence.is_complete and not is_end
        is_full = sequence.generated >= request.max_tokens or is_complete
        released = sequence.text.push(drawn.token) if not is_end else sequence.text.finish()
        text, is_stopped = released.text, released.is_stopped
        if is_full and not is_end and not is_stopped:
            rest = sequence.text.finish()
            text, is_stopped = text + rest.text, rest.is_stopped
        token = Token(
            id=drawn.token,
            text=text,
            data=b"" if is_end else sequence.text.data_of(drawn.token),
            logprob=drawn.logprob,
            entropy=drawn.entropy,
            margin=drawn.margin,
            top=drawn.top,
            is_end=is_end,
            is_forced=drawn.is_forced,
        )
        if is_end or is_stopped or is_complete:
            return self._end(lane, "stop", token)
        return self._end(lane, "length", token) if is_full else Event(sequence, token)

    def _note_token(self, sequence: Sequence) -> None:
        self._counters.completion_tokens += 1
        if sequence.generated == 1:
            sequence.first_at = self._now
            if not sequence.request.is_continued:
                self.timings.first_token.observe(self._now - sequence.submitted)

    def _fail(self, lane: Lane, cause: Exception) -> Event:
        """End a sequence that broke; what it wrote is cleared and found by nobody."""
        self._cache.clear(self._lanes.spoil(lane))
        error = GenerationFailed(f"The request failed while it was running: {cause}")
        if is_out_of_memory(cause):
            error = EngineOutOfMemory()
        error.__cause__ = cause
        return self._end(lane, "error", error=error)

    def _end(
        self,
        lane: Lane,
        reason: FinishReason,
        token: Token | None = None,
        error: EngineError | None = None,
    ) -> Event:
        """Take a sequence out, free its pages, and make its one final event."""
        sequence = self._sequences.pop(lane)
        request = sequence.request
        del self._lane_of[request.id]
        if self._leaders.get(request.group) is lane:
            del self._leaders[request.group]
        self._lanes.remove(lane)
        if self._drafter is not None:
            self._drafter.forget(sequence)
        self._counters.ended[reason] += not request.is_continued
        if token is not None and sequence.generated > 1:
            spent = self._now - sequence.first_at
            self.timings.per_token.observe(spent / (sequence.generated - 1))
        return Event(sequence, token, sequence.finish(reason, error))


def _pages(shape: KvShape, dtype: torch.dtype, context: int, limits: EngineLimits) -> int:
    """Return how many pages the memory given holds, or as many as can be of use."""
    fits = limits.kv_bytes // (PAGE_SIZE * bytes_per_token(shape, dtype, limits.kv_format))
    context = min(context, limits.max_context or context)
    return max(1, min(fits, _KEEP * limits.max_batch * -(-context // PAGE_SIZE)))


def _context(pages: int, context: int, limits: EngineLimits) -> int:
    """Return the context that the model allows and the cache has room for."""
    return max(1, min(context, pages * PAGE_SIZE, limits.max_context or context))


def _reach(model: LoadedModel) -> int | None:
    """Return how far back the layers look, None where one looks at everything."""
    windows = [spec.window for spec in model.decoder.attention]
    bounded = [w for w in windows if w is not None]
    return max(bounded) if bounded and len(bounded) == len(windows) else None
