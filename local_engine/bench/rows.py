"""The figures, one function each: how it is measured, and what it should come to."""

from __future__ import annotations

import random
import re
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from local_engine.bench.loops import Clock, EngineLoop, StaticLoop, prompt_of, request_of
from local_engine.loader import LoadedModel
from local_engine.types import EngineLimits, Sampling

PROMPT = 48
STEPS = 48
ROUNDS = 3
REQUESTS = 10_000
ANSWER = 128
GUESSES = 6


@dataclass(frozen=True, slots=True)
class Row:
    """One figure; `target` is None where it stands for comparison only."""

    name: str
    value: float
    unit: str
    target: float | None = None
    at_most: bool = False

    @property
    def is_met(self) -> bool | None:
        """Tell whether the target is met, None without one."""
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target


@dataclass(frozen=True, slots=True)
class Bench:
    """A model to measure and the clock to do it by."""

    model: LoadedModel
    clock: Clock

    def prompt(self, length: int, seed: int) -> tuple[int, ...]:
        """Draw a prompt."""
        return prompt_of(self.model.config.vocab, length, seed)

    def engine_steps(self, batch: int, prompt: int = PROMPT) -> list[float]:
        """Return the seconds of the decoding steps of a full batch."""
        loop = EngineLoop(self.model, EngineLimits(max_batch=batch), self.clock)
        for n in range(batch):
            loop.add(request_of(self.prompt(prompt, n), STEPS + 1))
        return list(loop.timed_steps())[-STEPS:]

    def pace(self, batch: int, guesses: int, *, repeats: bool) -> float:
        """Return the tokens a second of answers that say one thing again and again, or anything.

        Taken greedily, random weights soon repeat themselves, so the others are sampled.
        """
        limits = EngineLimits(max_batch=batch, guesses=guesses)
        loop = EngineLoop(self.model, limits, self.clock)
        for n in range(batch):
            request = request_of(self.prompt(PROMPT, n), ANSWER)
            bias = {request.prompt[0]: 1000.0}
            repeating = replace(request.sampling, logit_bias=bias)
            sampling = repeating if repeats else Sampling(temperature=1.0, seed=n)
            loop.add(replace(request, sampling=sampling))
        return batch * ANSWER / sum(loop.timed_steps())

    def static_steps(self, batch: int, prompt: int, *, is_lean: bool) -> list[float]:
        """Return the seconds of the same steps in a loop with a static cache."""
        loop = StaticLoop(self.model, batch, prompt + STEPS + 1, self.clock, is_lean=is_lean)
        return list(loop.run(prompt, STEPS))


def _typical(samples: Iterable[float]) -> float:
    """Return the lower quartile, which the load of others disturbs least."""
    return statistics.quantiles(samples, n=4)[0]


def decoding(bench: Bench) -> Iterator[Row]:
    """Tell how fast one and eight requests decode, and what eight gain."""
    one, eight = [], []
    for _ in range(ROUNDS):
        one += bench.engine_steps(1)
        eight += bench.engine_steps(8)
    single, batch = 1 / _typical(one), 8 / _typical(eight)
    yield Row("decode, batch 1", single, "tok/s")
    yield Row("decode, batch 8", batch, "tok/s")
    yield Row("batch 8 over batch 1", batch / single, "x", 4.5)


def overhead(bench: Bench) -> Iterator[Row]:
    """Tell what pages and scheduling cost over a loop with a static cache, step by step."""
    for batch, prompt in ((1, PROMPT), (8, PROMPT), (1, 1000), (8, 1000)):
        ours: list[float] = []
        drawing: list[float] = []
        lean: list[float] = []
        for _ in range(ROUNDS):
            ours += bench.engine_steps(batch, prompt)
            drawing += bench.static_steps(batch, prompt, is_lean=False)
            lean += bench.static_steps(batch, prompt, is_lean=True)
        cost = 100 * (_typical(ours) / _typical(drawing) - 1)
        whole = 100 * (_typical(ours) / _typical(lean) - 1)
        name = f"batch {batch}, {prompt} tokens before"
        yield Row(f"over a static cache, {name}", cost, "%", 10, at_most=True)
        yield Row(f"the same without log-probabilities, {name}", whole, "%")


def guessing(bench: Bench) -> Iterator[Row]:
    """Tell what guessing ahead gains where every guess is right, and costs where few are."""
    for batch in (1, 8):
        for repeats, answer in ((True, "repeating"), (False, "random")):
            plain = bench.pace(batch, 0, repeats=repeats)
            guessed = bench.pace(batch, GUESSES, repeats=repeats)
            yield Row(f"guessing over not, {answer} answer, batch {batch}", guessed / plain, "x")


def prefix(bench: Bench) -> Iterator[Row]:
    """Tell how much sooner a first token comes after a prefix of 2,000 tokens is known."""
    loop = EngineLoop(bench.model, EngineLimits(), bench.clock)
    cold, warm = [], []
    for n in range(ROUNDS):
        shared = bench.prompt(2000, n)
        cold.append(loop.first_token(request_of((*shared, *bench.prompt(20, n)), 4)))
        warm.append(loop.first_token(request_of((*shared, *bench.prompt(20, n + 100)), 4)))
    yield Row("first token, 2,020 tokens, cold", 1000 * min(cold), "ms")
    yield Row("first token, prefix of 2,000 known", 1000 * min(warm), "ms")
    yield Row("prefix hit over cold", min(cold) / min(warm), "x", 10)


def endurance(bench: Bench) -> Iterator[Row]:
    """Run many mixed requests, cancel about a third, and look for pages and memory lost."""
    # A small pool, so that kept prefixes have filled it before the first tenth is over.
    limits = EngineLimits(max_batch=16, max_context=256)
    loop = EngineLoop(bench.model, limits, time.perf_counter)
    chance, memory, count = random.Random(1), [], REQUESTS
    for n in range(count):
        own = bench.prompt(chance.randint(1, 40), n)
        request = request_of(bench.prompt(32, n % 7) + own, chance.randint(1, 24), str(n % 3))
        loop.add(request)
        if chance.random() < 0.35:
            loop.cancel(chance.choice(list(loop.live)))
        while len(loop.live) > 24:
            loop.step()
        if not (n + 1) % max(1, count // 10):
            memory.append(_own_mib())
            yield from _standing(f"after {n + 1} requests", loop, memory[-1])
    while loop.live:
        loop.step()
    stats = loop.core.stats()
    yield Row("requests ended", stats.finished + stats.cancelled, "requests", count)
    yield Row("of these cancelled", stats.cancelled, "requests", count * 0.3)
    yield Row("pages lost", stats.pages_used, "pages", 0, at_most=True)
    gained = memory[-1] - memory[len(memory) // 2 - 1]
    yield Row("memory gained over the last half", gained, "MiB", 4, at_most=True)


def _standing(when: str, loop: EngineLoop, mib: float) -> Iterator[Row]:
    stats = loop.core.stats()
    yield Row(f"memory {when}", mib, "MiB")
    yield Row(f"pages in use {when}", stats.pages_used, "pages")
    yield Row(f"pages kept for prefixes {when}", stats.pages_kept, "pages")


def _own_mib() -> float:
    """Return the memory that this process has written; files that it maps come and go."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


ROWS: Mapping[str, Callable[[Bench], Iterator[Row]]] = {
    "decoding": decoding,
    "overhead": overhead,
    "guessing": guessing,
    "prefix": prefix,
    "endurance": endurance,
}
