"""Answers while pages are shared, copied, run out and break: the same as alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from local_engine.core import EngineCore, Sequence
from local_engine.engine import Engine
from local_engine.errors import DeadlineExceeded, EngineOutOfMemory, GenerationFailed
from local_engine.loader import LoadedModel
from local_engine.types import EngineLimits, GenerationRequest, Sampling
from tests.local_engine.support import ask, drained, prompt_of, run

Load = Callable[[str], LoadedModel]

PAGE_BYTES = 16 * 2 * 3 * 32 * 4
"""Of the small Llama: sixteen tokens of two times three layers of 32 floats."""


async def ids_of(engine: Engine, request: GenerationRequest) -> list[int]:
    return [t.id for t in (await run(engine, request))[0]]


def mixed(n: int) -> GenerationRequest:
    """Make one of many requests: some begin alike, some are drawn by chance."""
    chance = random.Random(n)
    prompt = prompt_of(n % 5, 40) * (n % 2) + prompt_of(n, chance.randint(1, 70))
    warm = Sampling(temperature=0.8, top_p=0.9, seed=n, presence_penalty=0.3 * (n % 3))
    sampling = warm if n % 3 else Sampling(temperature=0.0)
    return ask(f"m{n}", prompt, chance.randint(1, 20), sampling, priority=n % 2)


async def test_sixty_four_mixed_requests_are_answered_as_if_alone(loaded: Load) -> None:
    model = loaded("llama")
    requests = [mixed(n) for n in range(64)]
    alone = []
    for request in requests:
        async with Engine(model, EngineLimits(max_batch=1)) as engine:
            alone.append(await ids_of(engine, request))
    limits = EngineLimits(max_batch=8, prefill_chunk=48, kv_bytes=20 * PAGE_BYTES)
    async with Engine(model, limits) as engine:

        async def arrive(request: GenerationRequest) -> list[int]:
            for _ in range(random.Random(request.id).randint(0, 40)):
                await asyncio.sleep(0)
            return await ids_of(engine, request)

        together = await asyncio.gather(*(arrive(r) for r in requests))
        stats = engine.stats()

    assert together == alone
    assert stats.reused_tokens > 0
    assert stats.pages_used == 0


def test_one_that_was_put_back_goes_on_as_if_nothing_had_been(loaded: Load) -> None:
    model = loaded("qwen3")
    warm = Sampling(temperature=0.9, seed=4, frequency_penalty=0.5)
    requests = [ask(str(n), prompt_of(n, 40), 40, warm) for n in range(3)]

    def answers(pages: int) -> tuple[dict[str, list[int]], int]:
        limits = EngineLimits(max_batch=3, kv_bytes=pages * PAGE_BYTES * 3 // 2)
        core = EngineCore(model, limits, clock=lambda: 0.0)
        for request in requests:
            core.add(Sequence(request, model.tokenizer, 0.0))
        tokens: dict[str, list[int]] = {r.id: [] for r in requests}
        while not core.is_idle:
            for event in core.step():
                if event.token is not None:
                    tokens[event.sequence.request.id].append(event.token.id)
        return tokens, core.stats().preempted

    plenty, none = answers(15)
    scarce, some = answers(9)
    assert scarce == plenty
    assert some > 0 == none


async def test_choices_of_one_prompt_share_its_pages_and_answer_as_if_alone(loaded: Load) -> None:
    prompt = prompt_of(3, 37)
    asks = [ask(str(n), prompt, 12, Sampling(temperature=1.0, seed=n), group="g") for n in range(4)]
    async with Engine(loaded("qwen3")) as engine:
        alone = [await ids_of(engine, replace(a, group="", tenant=a.id)) for a in asks]
        before = engine.stats().prompt_tokens
        together = await asyncio.gather(*(ids_of(engine, a) for a in asks))
        computed = engine.stats().prompt_tokens - before

    assert together == alone
    assert computed == 37 + 3


async def test_a_known_prefix_is_reused_within_a_tenant_alone(loaded: Load) -> None:
    prompt = prompt_of(4, 100)
    async with Engine(loaded("llama")) as engine:
        first = await ids_of(engine, ask("a", prompt, 8, tenant="x"))
        other = await ids_of(engine, ask("b", prompt, 8, tenant="y"))
        assert engine.stats().reused_tokens == 0
        again = await ids_of(engine, ask("c", prompt, 8, tenant="x"))

        assert engine.stats().reused_tokens == 96
    assert first == other == again


async def test_an_answer_is_reused_as_the_beginning_of_the_next_prompt(loaded: Load) -> None:
    prompt = prompt_of(5, 20)
    async with Engine(loaded("llama")) as engine:
        answer = await ids_of(engine, ask("a", prompt, 30))
        longer = (*prompt, *answer, 9, 10)
        await ids_of(engine, ask("b", longer, 4))

        assert engine.stats().reused_tokens == 48


async def test_a_deadline_ends_those_who_run_and_those_who_wait(loaded: Load) -> None:
    now = [0.0]
    engine = Engine(loaded("llama"), EngineLimits(max_batch=1), clock=lambda: now[0])
    async with engine:
        slow = engine.submit(ask("a", prompt_of(1, 6), 480, deadline_s=5.0))
        late = engine.submit(ask("b", prompt_of(2, 6), 4, deadline_s=5.0))
        await slow.take()
        now[0] = 5.0
        for generation in (slow, late):
            with pytest.raises(DeadlineExceeded):
                await drained(generation)

        assert await ids_of(engine, ask("c", prompt_of(1, 6), 3, deadline_s=5.0))
        assert engine.stats().pages_used == 0


def test_what_a_poisoned_request_wrote_is_cleared_and_never_found(loaded: Load) -> None:
    model = loaded("llama")
    core = EngineCore(model, EngineLimits(), clock=lambda: 0.0)
    poisoned, prompt = 299, prompt_of(6, 40)
    row = model.decoder.embedding[poisoned].clone()
    model.decoder.embedding[poisoned] = float("nan")
    try:
        bad = (*prompt[:20], poisoned, *prompt[21:])
        core.add(Sequence(ask("a", bad, 4), model.tokenizer, 0.0))
        core.add(Sequence(ask("b", prompt_of(7, 9), 4), model.tokenizer, 0.0))
        (broken, sound) = sorted(core.step(), key=lambda e: e.sequence.request.id)
    finally:
        model.decoder.embedding[poisoned] = row
    core.add(Sequence(ask("c", bad, 4), model.tokenizer, 0.0))
    core.step()

    assert broken.finish is not None
    assert isinstance(broken.finish.error, GenerationFailed)
    assert sound.token is not None
    assert core.stats().reused_tokens == 0
    assert all(k.isfinite().all() for k in core._cache.keys)


async def test_running_out_of_memory_fails_the_step_and_nothing_else(
    loaded: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded("llama")
    forward = model.decoder.forward
    failures = iter([torch.OutOfMemoryError("no memory")])

    def scarce(*inputs: object) -> torch.Tensor:
        for failure in failures:
            raise failure
        return forward(*inputs)  # type: ignore[arg-type]

    monkeypatch.setattr(model.decoder, "forward", scarce)
    async with Engine(model) as engine:
        with pytest.raises(EngineOutOfMemory, match="memory"):
            await run(engine, ask("a", prompt_of(1, 40), 4))
        stats = engine.stats()
        answer = await ids_of(engine, ask("b", prompt_of(1, 40), 4))

    assert (stats.failed, stats.pages_used, stats.pages_kept) == (1, 0, 0)
    assert len(answer) == 4


def test_hundreds_that_come_and_go_lose_no_page(loaded: Load) -> None:
    model = loaded("llama")
    chance = random.Random(2)
    limits = EngineLimits(max_batch=6, prefill_chunk=32, kv_bytes=24 * PAGE_BYTES)
    core = EngineCore(model, limits, clock=lambda: 0.0)
    live: set[str] = set()
    ended = 0
    for n in range(400):
        prompt = prompt_of(n % 4, 20) + prompt_of(n, chance.randint(1, 40))
        core.add(Sequence(ask(str(n), prompt, chance.randint(1, 12)), model.tokenizer, 0.0))
        live.add(str(n))
        events = core.cancel([chance.choice(sorted(live))]) if n % 3 == 0 else []
        while len(live) > 12 or (n == 399 and not core.is_idle):
            events += core.step()
            gone = {e.sequence.request.id for e in events if e.finish}
            live -= gone
            ended += len(gone)
            events = []
        gone = {e.sequence.request.id for e in events if e.finish}
        live -= gone
        ended += len(gone)

    stats = core.stats()
    assert ended == stats.finished + stats.cancelled == 400
    assert stats.cancelled == 134
    assert stats.pages_used == 0


async def test_an_int8_cache_answers_much_alike_and_fits_more(loaded: Load) -> None:
    prompt = prompt_of(8, 60)
    found = {}
    for kv_format in ("model", "int8"):
        limits = EngineLimits(kv_bytes=12 * PAGE_BYTES, kv_format=kv_format)  # type: ignore[arg-type]
        async with Engine(loaded("llama"), limits) as engine:
            tokens, _ = await run(engine, ask("a", prompt, 1, top_logprobs=5))
            found[kv_format] = (tokens[0], engine.context)

    (plain, context), (rounded, wider) = found["model"], found["int8"]
    assert wider > 3 * context // 2
    assert rounded.logprob == pytest.approx(plain.logprob, abs=0.1)
    assert rounded.logprob != plain.logprob
