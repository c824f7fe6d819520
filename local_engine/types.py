"""The values that cross the engine's border, free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from local_engine.grammar import Constraint

from local_engine.errors import EngineError

FinishReason = Literal["stop", "length", "cancelled", "error"]
KvFormat = Literal["model", "int8"]

_NO_BIAS: Mapping[int, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn; the defaults change nothing.

    `top_k` 0 means every token. A temperature of 0 takes the likeliest token.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=lambda: _NO_BIAS)
    seed: int = 0

    @property
    def is_greedy(self) -> bool:
        """Tell whether the likeliest token is taken, without chance."""
        return self.temperature < 1e-5

    @property
    def reads_history(self) -> bool:
        """Tell whether tokens seen so far change the next draw."""
        return bool(
            self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1.0
        )


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One prompt and how to continue it; `id` is what `cancel` takes.

    `tenant` and `adapter` bound whose computed prefixes it may share. Requests of one
    `group` have the same prompt, which is computed once. A level of `priority` is worth
    a head start in the line, and `deadline_s` is counted from the submission. What the
    `constraint` does not allow never comes, and where it is complete the answer ends.
    Special tokens among `shown` are part of the text. One that `is_continued` goes on with
    a search: it computes and pays like others, and is counted as part of the first.
    """

    id: str
    prompt: tuple[int, ...]
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    top_logprobs: int = 0
    ignore_end: bool = False
    tenant: str = ""
    adapter: str = ""
    group: str = ""
    priority: int = 0
    deadline_s: float | None = None
    constraint: Constraint | None = None
    shown: frozenset[int] = frozenset()
    is_continued: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token with the model's own, unaltered view of it.

    `logprob`, `top`, `entropy` (nats) and `margin` (first minus second log-probability)
    come from the raw distribution, before penalties, temperature and cut-offs.
    `text` is what this token releases: empty while a character or a possible stop
    string is incomplete. `data` holds the token's own bytes, empty for special tokens.
    A token `is_forced` where the form of the answer allowed no other: what the model
    thought of it says nothing about the answer.
    """

    id: int
    text: str
    data: bytes
    logprob: float
    entropy: float
    margin: float
    top: tuple[tuple[int, float], ...] = ()
    is_end: bool = False
    is_forced: bool = False


@dataclass(frozen=True, slots=True)
class Finish:
    """How a generation ended, and what it cost.

    `compute_s` is this request's share of the time of every step it was part of, in
    proportion to the tokens processed. `queue_s` is the wait before the first step.
    """

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    compute_s: float
    queue_s: float
    error: EngineError | None = None

    def raise_error(self) -> None:
        """Raise what ended the generation, if that was an error."""
        if self.error is not None:
            raise self.error


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What one engine takes on at once.

    `prefill_chunk` bounds the prompt tokens of a step, and so how long a long prompt
    can hold up the others. `kv_bytes` bounds the cache, whose pages all requests share:
    a context that does not fit is shortened, and where pages run out the last to come is
    put back and computed again. `kv_format` int8 halves what a token takes, at some cost
    in precision. `head_start_s` is what a level of priority is worth.
    `guesses` is how many tokens a sequence may guess ahead in one step, 0 for none.
    """

    max_batch: int = 8
    max_queue: int = 64
    max_context: int | None = None
    prefill_chunk: int = 128
    kv_bytes: int = 4 << 30
    kv_format: KvFormat = "model"
    head_start_s: float = 5.0
    guesses: int = 0


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters since the start, and what is going on now."""

    running: int = 0
    waiting: int = 0
    steps: int = 0
    busy_s: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finished: int = 0
    cancelled: int = 0
    failed: int = 0
    refused: int = 0
    preempted: int = 0
    reused_tokens: int = 0
    guessed: int = 0
    guessed_right: int = 0
    pages: int = 0
    pages_used: int = 0
    pages_kept: int = 0
