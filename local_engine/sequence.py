"""One request on its way through the engine, apart from where its keys and values lie."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence as Items

from local_engine.adapters import Adapter
from local_engine.errors import EngineError, FormNotFollowed
from local_engine.sampler import Draw
from local_engine.speculation import PromptLookup
from local_engine.tokenizer import TextStream, Tokenizer
from local_engine.types import Finish, FinishReason, GenerationRequest


class Sequence:
    """One request on its way: its tokens, its lane through the cache, its text."""

    def __init__(
        self,
        request: GenerationRequest,
        tokenizer: Tokenizer,
        submitted: float,
        adapter: Adapter | None = None,
    ) -> None:
        self.request = request
        self.adapter = adapter
        self.tokens = list(request.prompt)
        self.text = TextStream(tokenizer, request.stop, request.shown)
        self.counts: Counter[int] = Counter()
        self.seen = set(request.prompt) if request.sampling.reads_history else set[int]()
        self.submitted = submitted
        self.expires = math.inf if request.deadline_s is None else submitted + request.deadline_s
        self.progress = None if request.constraint is None else request.constraint.begin()
        self.fault: EngineError | None = None
        self.lookup = PromptLookup()
        self.queue_s: float | None = None
        self.first_at = 0.0
        self.compute_s = 0.0

    @property
    def generated(self) -> int:
        """Return how many tokens were added to the prompt."""
        return len(self.tokens) - len(self.request.prompt)

    def draws(self, guess: Items[int]) -> list[Draw]:
        """Return what the sampler must know for the next token, and after each of a guess."""
        sampling, top = self.request.sampling, self.request.top_logprobs
        masks = self._masks(guess)
        counts, seen = self.counts, self.seen
        draws = [Draw(sampling, len(self.tokens), counts, seen, top, masks[0])]
        for n, token in enumerate(guess[: len(masks) - 1], 1):
            if sampling.reads_history:
                counts, seen = counts + Counter((token,)), seen | {token}
            draws.append(Draw(sampling, len(self.tokens) + n, counts, seen, top, masks[n]))
        return draws

    def _masks(self, guess: Items[int]) -> Items[bytes | None]:
        """Return what the form of the answer allows at each place; its failing is told later."""
        if self.progress is None:
            return [None] * (len(guess) + 1)
        try:
            return self.progress.masks(guess)
        except ValueError as exc:
            self.fault = FormNotFollowed(f"The answer broke off: {exc}.")
            return [None]

    def guess(self, most: int) -> tuple[int, ...]:
        """Guess up to so many tokens, of which the last is never past the answer's end."""
        if not self.generated:
            return ()
        return self.lookup.guess(
            self.tokens, min(most, self.request.max_tokens - self.generated - 1)
        )

    def accept(self, token: int) -> None:
        """Append a drawn token."""
        self.tokens.append(token)
        if self.progress is not None:
            self._follow(token)
        if self.request.sampling.reads_history:
            self.counts[token] += 1
            self.seen.add(token)

    def _follow(self, token: int) -> None:
        assert self.progress is not None
        try:
            self.progress.accept(token)
        except ValueError as exc:
            self.fault = FormNotFollowed(f"The answer broke off: {exc}.")

    @property
    def is_complete(self) -> bool:
        """Tell whether the form of the answer leaves nothing more to say."""
        return self.progress is not None and self.progress.is_complete

    def finish(self, reason: FinishReason, error: EngineError | None = None) -> Finish:
        """Account for the sequence at its end."""
        return Finish(
            reason,
            prompt_tokens=len(self.request.prompt),
            completion_tokens=self.generated,
            compute_s=self.compute_s,
            queue_s=self.queue_s or 0.0,
            error=error,
        )
