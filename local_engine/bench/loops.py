"""The same decoder driven two ways: by the engine, and by the leanest loop there can be."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from local_engine import model as decoder_module
from local_engine.attention import AttentionSpec
from local_engine.batch import Batch, Segment
from local_engine.core import EngineCore, Event
from local_engine.kv import KvShape, PagedKv
from local_engine.loader import LoadedModel
from local_engine.sampler import Draw, sample
from local_engine.sequence import Sequence
from local_engine.types import EngineLimits, GenerationRequest, Sampling

Clock = Callable[[], float]

_ids = itertools.count()


def prompt_of(vocab: int, length: int, seed: int) -> tuple[int, ...]:
    """Draw token ids."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(1, vocab, (length,), generator=generator).tolist())


def request_of(prompt: tuple[int, ...], max_tokens: int, tenant: str = "") -> GenerationRequest:
    """Make a greedy request of a known length."""
    greedy = Sampling(temperature=0.0)
    return GenerationRequest(
        f"b{next(_ids)}", prompt, max_tokens, greedy, ignore_end=True, tenant=tenant
    )


class EngineLoop:
    """The engine's core with a batch of requests, one step at a time."""

    def __init__(self, model: LoadedModel, limits: EngineLimits, clock: Clock) -> None:
        self.core = EngineCore(model, limits, clock)
        self.live: dict[str, None] = {}
        self._model = model
        self._clock = clock

    def add(self, request: GenerationRequest) -> None:
        """Queue one request."""
        self.live[request.id] = None
        self.core.add(Sequence(request, self._model.tokenizer, self._clock()))

    def cancel(self, id: str) -> None:
        """End one request."""
        self._note(self.core.cancel([id]))

    def step(self) -> bool:
        """Advance once; tell whether any request got a token."""
        return any(event.token for event in self.events())

    def events(self) -> list[Event]:
        """Advance once; return what happened."""
        events = self.core.step()
        self._note(events)
        return events

    def timed_steps(self) -> Iterator[float]:
        """Yield the seconds of each step until every request has ended."""
        while not self.core.is_idle:
            started = self._clock()
            self.step()
            yield self._clock() - started

    def first_token(self, request: GenerationRequest) -> float:
        """Return the seconds from a request's arrival to its first token."""
        started = self._clock()
        self.add(request)
        while not self.step():
            pass
        taken = self._clock() - started
        self.cancel(request.id)
        return taken

    def _note(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.finish is not None:
                del self.live[event.sequence.request.id]


class StaticLoop:
    """One dense row a sequence, all at one position: nothing is planned or shared.

    Tokens are drawn by the engine's sampler, whose log-probabilities the loop would miss;
    `is_lean` takes the likeliest and nothing else.
    """

    def __init__(
        self, model: LoadedModel, batch: int, length: int, clock: Clock, *, is_lean: bool = False
    ) -> None:
        self._decoder = model.decoder
        shape = KvShape.of(model.config)
        # One page holds a whole sequence: where fused steps write and attend, they do so here.
        self._cache = PagedKv(shape, batch, self._decoder.dtype, self._decoder.device, length)
        self._length = length
        size = (shape.layers, batch, shape.kv_heads, length, shape.head_dim)
        self._keys = torch.zeros(size, dtype=self._decoder.dtype)
        self._values = torch.zeros_like(self._keys)
        self._ids = torch.ones(batch, dtype=torch.int64)
        self._batch = batch
        self._clock = clock
        self._position = 0
        self._is_lean = is_lean

    def run(self, start: int, steps: int) -> Iterator[float]:
        """Yield the seconds of each step, the first one at position `start`."""
        segments = [Segment([n + 1], 0, (1,)) for n in range(self._batch)]
        step = Batch(segments, self._cache)
        self._position = start
        with _attention(self._attend):
            for _ in range(steps):
                started = self._clock()
                self._move(step)
                logits = self._decoder.forward(step, self._cache, step.last)
                self._ids = self._drawn(logits)
                self._position += 1
                yield self._clock() - started

    def _move(self, step: Batch) -> None:
        """Set a step to the next position of every row."""
        step.ids, step.positions = self._ids, torch.full((self._batch,), self._position)
        step.slots = torch.arange(1, self._batch + 1) * self._length + self._position
        if step.walk is not None:
            step.walk.ends[:] = array("q", [self._position + 1] * self._batch)

    def _drawn(self, logits: Tensor) -> Tensor:
        if self._is_lean:
            best = logits.argmax(-1)
            best.tolist()  # as it would be sent
            return best
        draw = Draw(Sampling(temperature=0.0), self._position, {}, set())
        with torch.inference_mode():
            drawn = sample(logits, [draw] * self._batch)
        return torch.tensor([d.token for d in drawn if d is not None])

    def _attend(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        step: Batch,
        cache: PagedKv,
        spec: AttentionSpec,
    ) -> Tensor:
        keys, values = self._keys[layer], self._values[layer]
        keys[:, :, self._position] = k
        values[:, :, self._position] = v
        end = self._position + 1
        folded = q.view(len(q), keys.shape[1], -1, q.shape[-1])
        out = F.scaled_dot_product_attention(
            folded, keys[:, :, :end], values[:, :, :end], scale=spec.scale
        )
        return out.flatten(1)


@contextmanager
def _attention(attend: Callable[..., Tensor]) -> Iterator[None]:
    """Let decoders attend in another way for a while."""
    names = vars(decoder_module)
    usual = names["write_and_attend"]
    names["write_and_attend"] = attend
    try:
        yield
    finally:
        names["write_and_attend"] = usual
