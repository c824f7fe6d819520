"""The engine against transformers, and its promises about joining, leaving and limits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from local_engine.checkpoint import find_checkpoint
from local_engine.core import Event
from local_engine.engine import Engine
from local_engine.errors import (
    ContextLengthExceeded,
    EngineBusy,
    EngineStopped,
    EngineUnavailable,
    GenerationFailed,
    InvalidRequest,
)
from local_engine.loader import LoadedModel, load_model
from local_engine.types import EngineLimits, Finish, GenerationRequest, Sampling
from tests.local_engine.conftest import CPU
from tests.local_engine.support import GREEDY, KINDS, ask, drained, eventually, prompt_of, run

Load = Callable[[str], LoadedModel]
Oracle = Callable[[str], PreTrainedModel]

LONG = 480


def expected(
    model: PreTrainedModel, prompt: tuple[int, ...], count: int
) -> tuple[list[int], torch.Tensor]:
    """Return transformers' greedy tokens and the log-probabilities at each step."""
    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return out.sequences[0, len(prompt) :].tolist(), torch.stack(out.logits)[:, 0].log_softmax(-1)


@pytest.mark.parametrize("kind", KINDS)
async def test_greedy_tokens_and_logprobs_equal_transformers(
    kind: str, loaded: Load, oracle: Oracle
) -> None:
    prompt = prompt_of(1, 21)
    tokens, logprobs = expected(oracle(kind), prompt, 24)
    async with Engine(loaded(kind)) as engine:
        found, finish = await run(engine, ask("a", prompt, 24, top_logprobs=5))

    assert [t.id for t in found] == tokens
    assert finish.reason == "length"
    for token, row in zip(found, logprobs, strict=True):
        best = row.topk(5)
        assert token.logprob == pytest.approx(row[token.id].item(), abs=1e-4)
        assert token.entropy == pytest.approx(-(row.exp() * row).sum().item(), abs=1e-3)
        assert token.margin == pytest.approx((best.values[0] - best.values[1]).item(), abs=1e-4)
        assert [i for i, _ in token.top] == best.indices.tolist()
        assert [v for _, v in token.top] == pytest.approx(best.values.tolist(), abs=1e-4)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
async def test_greedy_tokens_equal_transformers_beside_others_that_come_and_go(
    kind: str, loaded: Load, oracle: Oracle
) -> None:
    prompts = [prompt_of(n, 3 + 17 * n) for n in range(7)]
    lengths = [5 + 3 * n for n in range(7)]
    wanted = [expected(oracle(kind), p, n)[0] for p, n in zip(prompts, lengths, strict=True)]
    limits = EngineLimits(max_batch=3, prefill_chunk=16)
    async with Engine(loaded(kind), limits) as engine:

        async def arrive(n: int) -> list[int]:
            async with engine.submit(ask(f"early{n}", prompts[0], 1 + n)) as first:
                await first.take()  # by now the engine is in the middle of something
            tokens, _ = await run(engine, ask(str(n), prompts[n], lengths[n]))
            return [t.id for t in tokens]

        found = await asyncio.gather(*(arrive(n) for n in range(7)))

    assert found == wanted


async def test_shipped_model_reads_and_answers_as_transformers_does() -> None:
    path = find_checkpoint("demo/tiny")
    model = load_model(path, CPU)
    assert model.template is not None
    theirs = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    async with Engine(model) as engine:
        for question in ("What is 17 + 25?", "Reverse the letters: f o x", "¿Qué? 🦊 <b>"):
            messages = [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": question},
            ]
            text = model.template.render(messages, now=datetime(2026, 11, 20))
            prompt = model.tokenizer.encode(text, add_special=False)
            wanted = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_dict=False
            )
            tokens, _ = await run(engine, ask(question, prompt, 20))
            assert list(prompt) == wanted
            assert [t.id for t in tokens] == expected(theirs, prompt, 20)[0]
            said = tokenizer.decode([t.id for t in tokens], skip_special_tokens=True)
            assert "".join(t.text for t in tokens) == said


async def test_a_prompt_computed_in_chunks_gives_the_same_logprobs(loaded: Load) -> None:
    prompt = prompt_of(3, 300)
    results = []
    for chunk in (512, 64, 7):
        async with Engine(loaded("qwen3"), EngineLimits(prefill_chunk=chunk)) as engine:
            results.append((await run(engine, ask("a", prompt, 8)))[0])

    for other in results[1:]:
        assert [t.id for t in other] == [t.id for t in results[0]]
        assert [t.logprob for t in other] == pytest.approx(
            [t.logprob for t in results[0]], abs=1e-4
        )


async def test_raw_logprobs_do_not_depend_on_the_way_of_sampling(loaded: Load) -> None:
    prompt = prompt_of(4, 12)
    forced = Sampling(temperature=1.7, presence_penalty=1.5, logit_bias={77: 100.0}, seed=3)
    async with Engine(loaded("llama")) as engine:
        plain, _ = await run(engine, ask("a", prompt, 1, top_logprobs=20))
        biased, _ = await run(engine, ask("b", prompt, 1, forced, top_logprobs=20))

    assert biased[0].id == 77
    assert dict(biased[0].top) == pytest.approx(dict(plain[0].top))
    assert biased[0].entropy == pytest.approx(plain[0].entropy)
    assert biased[0].logprob < plain[0].logprob


async def test_seeded_sampling_repeats_whatever_the_batch(loaded: Load) -> None:
    prompt = prompt_of(5, 10)
    sampling = Sampling(temperature=0.9, top_p=0.95, seed=11)
    async with Engine(loaded("llama"), EngineLimits(prefill_chunk=8)) as engine:
        alone, _ = await run(engine, ask("alone", prompt, 30, sampling))
        others = [ask(f"o{n}", prompt_of(n, 9 + n), 40, Sampling(seed=n)) for n in range(6)]
        crowd = await asyncio.gather(
            *(run(engine, r) for r in [*others, ask("again", prompt, 30, sampling)])
        )
        other, _ = await run(engine, ask("other", prompt, 30, Sampling(temperature=0.9, seed=12)))

    again = crowd[-1][0]
    assert [t.id for t in again] == [t.id for t in alone]
    assert [t.id for t in other] != [t.id for t in alone]


async def test_end_token_stops_and_is_counted_but_not_shown(loaded: Load) -> None:
    sampling = Sampling(temperature=0.0, logit_bias={2: 100.0})
    request = GenerationRequest("a", prompt_of(6, 5), 10, sampling)
    async with Engine(loaded("llama")) as engine:
        tokens, finish = await run(engine, request)

    assert [(t.id, t.text, t.data, t.is_end) for t in tokens] == [(2, "", b"", True)]
    assert (finish.reason, finish.completion_tokens) == ("stop", 1)


async def test_stop_string_ends_across_tokens_and_never_shows(loaded: Load) -> None:
    prompt = prompt_of(7, 9)
    async with Engine(loaded("llama")) as engine:
        plain, _ = await run(engine, ask("a", prompt, 40))
        text = "".join(t.text for t in plain)
        stop = text[6:11]
        cut, finish = await run(engine, ask("b", prompt, 40, stop=(stop, "never there")))

    assert "".join(t.text for t in cut) == text[: text.index(stop)]
    assert finish.reason == "stop"
    assert finish.completion_tokens < 40


async def test_cancel_ends_at_the_next_step_and_frees_the_pages(loaded: Load) -> None:
    async with Engine(loaded("llama"), EngineLimits(max_batch=1)) as engine:
        async with engine.submit(ask("long", prompt_of(8, 6), LONG)) as long:
            waiting = engine.submit(ask("next", prompt_of(9, 6), 4))
            await long.take()
            engine.cancel("long")
            engine.cancel("long")
            engine.cancel("unknown")
            rest = [t async for t in long]
            tokens = [t async for t in waiting]
        stats = engine.stats()

    assert long.finish is not None
    assert long.finish.reason == "cancelled"
    assert long.finish.completion_tokens < LONG
    assert len(rest) < LONG
    assert len(tokens) == 4
    assert (stats.cancelled, stats.finished, stats.running, stats.waiting) == (1, 1, 0, 0)


async def test_each_request_gets_one_final_event(loaded: Load) -> None:
    finals: list[str] = []
    async with Engine(loaded("llama"), EngineLimits(max_batch=2)) as engine:
        generations = [engine.submit(ask(str(n), prompt_of(n, 6), 12)) for n in range(6)]
        for generation in generations:
            inner = generation._receive

            def counted(event: Event, inner: Callable[[Event], None] = inner) -> None:
                if event.finish is not None:
                    finals.append(event.sequence.request.id)
                inner(event)

            generation._receive = counted  # type: ignore[method-assign]
        for n in range(0, 6, 2):
            engine.cancel(str(n))
        for generation in generations:
            while await generation.take():
                engine.cancel(generation.request.id)

    assert sorted(finals) == [str(n) for n in range(6)]


async def test_leaving_a_generation_early_cancels_it(loaded: Load) -> None:
    async with Engine(loaded("llama")) as engine:
        async with engine.submit(ask("a", prompt_of(1, 6), LONG)) as generation:
            await generation.take()
        await eventually(lambda: engine.stats().cancelled == 1)

        assert engine.stats().running == 0


async def test_waiting_request_can_be_cancelled_before_it_runs(loaded: Load) -> None:
    async with (
        Engine(loaded("llama"), EngineLimits(max_batch=1)) as engine,
        engine.submit(ask("a", prompt_of(1, 6), LONG)) as running,
    ):
        await running.take()
        waiting = engine.submit(ask("b", prompt_of(2, 6), 4))
        engine.cancel("b")
        tokens = [t async for t in waiting]

    assert tokens == []
    assert waiting.finish is not None
    assert (waiting.finish.reason, waiting.finish.compute_s) == ("cancelled", 0.0)


async def test_full_line_refuses_and_recovers(loaded: Load) -> None:
    async with Engine(loaded("llama"), EngineLimits(max_batch=1, max_queue=1)) as engine:
        held = [engine.submit(ask(str(n), prompt_of(n, 6), LONG)) for n in range(2)]
        with pytest.raises(EngineBusy) as caught:
            engine.submit(ask("2", prompt_of(2, 6)))
        for generation in held:
            engine.cancel(generation.request.id)
            while await generation.take():
                pass
        tokens, _ = await run(engine, ask("3", prompt_of(3, 6), 3))

        assert caught.value.retry_after_s >= 1
        assert engine.stats().refused == 1
        assert len(tokens) == 3


async def test_requests_that_cannot_fit_are_refused(loaded: Load) -> None:
    async with Engine(loaded("llama"), EngineLimits(max_context=32)) as engine:
        assert engine.context == 32
        with pytest.raises(ContextLengthExceeded, match="32 tokens"):
            engine.submit(ask("a", prompt_of(1, 32), 1))
        with pytest.raises(InvalidRequest, match="max_tokens"):
            engine.submit(ask("b", prompt_of(1, 30), 3))
        with pytest.raises(InvalidRequest, match="token ids"):
            engine.submit(ask("c", (5, 320), 3))
        with pytest.raises(InvalidRequest, match="token ids"):
            engine.submit(ask("d", (), 3))
        tokens, _ = await run(engine, ask("e", prompt_of(1, 31), 1))

    assert len(tokens) == 1


async def test_context_shrinks_to_the_memory_given(loaded: Load) -> None:
    per_token = 2 * 3 * 32 * 4
    async with Engine(
        loaded("llama"), EngineLimits(max_batch=2, kv_bytes=per_token * 200)
    ) as engine:
        assert engine.context == 192


async def test_one_id_runs_once_at_a_time(loaded: Load) -> None:
    async with Engine(loaded("llama")) as engine, engine.submit(ask("a", prompt_of(1, 6), LONG)):
        with pytest.raises(InvalidRequest, match="already running"):
            engine.submit(ask("a", prompt_of(1, 6), LONG))


async def test_stopping_lets_running_requests_end(loaded: Load) -> None:
    async with Engine(loaded("llama")) as engine:
        generation = engine.submit(ask("a", prompt_of(1, 6), 50))
        await engine.stop(deadline_s=60.0)
        tokens = [t async for t in generation]
        with pytest.raises(EngineStopped):
            engine.submit(ask("b", prompt_of(1, 6)))

    assert len(tokens) == 50


async def test_stopping_without_patience_cancels(loaded: Load) -> None:
    async with Engine(loaded("llama")) as engine:
        generation = engine.submit(ask("a", prompt_of(1, 6), LONG))
        await engine.stop(deadline_s=0.0)
        while await generation.take():
            pass

    assert generation.finish is not None
    assert generation.finish.reason == "cancelled"


async def test_a_model_that_computes_nan_fails_that_request_alone(loaded: Load) -> None:
    model = loaded("qwen2")
    poisoned = 299
    row = model.decoder.embedding[poisoned].clone()
    async with Engine(model, EngineLimits(max_batch=2)) as engine:
        model.decoder.embedding[poisoned] = float("nan")
        try:
            # The head is tied to the embedding, so every request is hit while it is broken.
            with pytest.raises(GenerationFailed, match="not finite"):
                await run(engine, ask("a", (7, poisoned, 8), 8))
        finally:
            model.decoder.embedding[poisoned] = row
        tokens, finish = await run(engine, ask("b", prompt_of(2, 6), 8, GREEDY))

        assert engine.stats().failed == 1
        assert (len(tokens), finish.reason) == (8, "length")


async def test_when_the_engine_itself_breaks_every_request_hears_of_it(
    checkpoint: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    model = load_model(checkpoint("llama"), CPU)
    async with Engine(model, EngineLimits(max_batch=1)) as engine:
        running, waiting = (engine.submit(ask(n, prompt_of(1, 6), LONG)) for n in "ab")
        await running.take()
        model.decoder.layers = [None]  # type: ignore[list-item]
        for generation in (running, waiting):
            with pytest.raises(EngineUnavailable):
                await drained(generation)
        await eventually(lambda: engine.failure is not None)
        with pytest.raises(EngineUnavailable):
            engine.submit(ask("c", prompt_of(1, 6)))

    assert {g.finish.reason for g in (running, waiting) if g.finish} == {"error"}
    assert engine.stats().pages_used == 0
    assert "the engine's thread failed" in caplog.text


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_comes_and_goes_each_request_ends_once_and_every_page_is_free(
    loaded: Load, seed: int
) -> None:
    chance = random.Random(seed)
    limits = EngineLimits(max_batch=3, max_queue=100, prefill_chunk=16)
    async with Engine(loaded("llama"), limits) as engine:

        async def live(n: int) -> Finish:
            prompt = prompt_of(n, chance.randint(1, 90))
            request = ask(str(n), prompt, chance.randint(1, 40), Sampling(seed=n))
            patience = chance.choice((0, 1, 5, 1000))
            async with engine.submit(request) as generation:
                while await generation.take() and patience:
                    patience -= 1
                if not patience:
                    engine.cancel(request.id)
                while await generation.take():
                    pass
            assert generation.finish is not None
            return generation.finish

        finishes = await asyncio.gather(*(live(n) for n in range(40)))
        stats = engine.stats()

    assert {f.reason for f in finishes} <= {"length", "cancelled"}
    assert (stats.running, stats.waiting, stats.failed) == (0, 0, 0)
    assert stats.finished + stats.cancelled == 40
    assert stats.completion_tokens == sum(f.completion_tokens for f in finishes)
    assert stats.pages_used == 0
    assert not engine._open


async def test_compute_time_is_shared_by_tokens(loaded: Load) -> None:
    ticks = iter(range(10**6))
    engine = Engine(loaded("llama"), EngineLimits(max_batch=4), clock=lambda: float(next(ticks)))
    async with engine:
        finishes = [
            f
            for _, f in await asyncio.gather(
                run(engine, ask("a", prompt_of(1, 30), 10)),
                run(engine, ask("b", prompt_of(2, 3), 2)),
            )
        ]
        stats = engine.stats()

    assert sum(f.compute_s for f in finishes) == pytest.approx(stats.busy_s)
    assert finishes[0].compute_s > finishes[1].compute_s > 0
    assert (stats.prompt_tokens, stats.completion_tokens) == (33, 12)
