"""Guesses by a second model: the same answers, and pages that come back."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from local_engine.core import EngineCore
from local_engine.drafting import Drafter, check_pair
from local_engine.engine import Engine
from local_engine.errors import CheckpointError
from local_engine.grammar import Grammars
from local_engine.loader import LoadedModel
from local_engine.sequence import Sequence
from local_engine.types import EngineLimits, EngineStats, GenerationRequest, Sampling
from tests.local_engine.support import ask, prompt_of, run

Load = Callable[[str], LoadedModel]
SAMPLINGS = {
    "greedy": Sampling(temperature=0.0),
    "sampled": Sampling(temperature=0.8, top_p=0.9, seed=5),
    "penalized": Sampling(temperature=0.7, frequency_penalty=0.4, repetition_penalty=1.2, seed=6),
}
GUESSING = EngineLimits(guesses=4)


class Ticks:
    """A clock that makes every way look equally fast, so that the gate tries both."""

    def __init__(self) -> None:
        self._ticks = itertools.count()

    def __call__(self) -> float:
        return float(next(self._ticks))


Known = list[tuple[int, str, float]]


async def answers(
    model: LoadedModel,
    draft: LoadedModel | None,
    requests: list[GenerationRequest],
    limits: EngineLimits = GUESSING,
) -> tuple[list[Known], EngineStats]:
    async with Engine(model, limits, Ticks(), draft=draft) as engine:
        found = await asyncio.gather(*(run(engine, r) for r in requests))
        stats = engine.stats()
        assert stats.pages_used == 0
        drafter = engine._core._drafter
        assert drafter is None or drafter.pages_used == 0
    return [[(t.id, t.text, round(t.logprob, 3)) for t in tokens] for tokens, _ in found], stats


def asked(sampling: Sampling, count: int = 4) -> list[GenerationRequest]:
    return [ask(str(n), prompt_of(n, 12 + 30 * n), 30 + n, sampling) for n in range(count)]


@pytest.mark.parametrize("way", list(SAMPLINGS))
@pytest.mark.parametrize("draft", ["llama", "qwen2"])
async def test_answers_are_those_without_a_draft(loaded: Load, way: str, draft: str) -> None:
    requests = asked(SAMPLINGS[way])
    plain, _ = await answers(loaded("llama"), None, requests, EngineLimits())
    together, stats = await answers(loaded("llama"), loaded(draft), requests)
    alone = [(await answers(loaded("llama"), loaded(draft), [r]))[0][0] for r in requests]

    assert together == alone == plain
    assert stats.guessed > 0
    if draft == "llama":
        assert stats.guessed_right == stats.guessed


async def test_a_form_is_kept_and_guessed(loaded: Load) -> None:
    pytest.importorskip("llguidance", reason="answers of a given form need llguidance")
    model = loaded("llama")
    grammars = Grammars(model.tokenizer, model.end_ids, model.config.vocab)
    form = grammars.regex("((ab|cd){3}-){8}", "guided_regex")
    sampling = Sampling(temperature=0.3, seed=1)
    requests = [ask(str(n), prompt_of(n, 9), 90, sampling, constraint=form) for n in range(3)]
    plain, _ = await answers(model, None, requests, EngineLimits())
    guessed, stats = await answers(model, loaded("qwen3"), requests)

    assert guessed == plain
    assert stats.guessed > 0


async def test_answers_stay_where_pages_are_scarce(loaded: Load) -> None:
    per_token = 2 * 3 * 32 * 4
    tight = EngineLimits(max_batch=4, kv_bytes=per_token * 16 * 16, max_context=160, guesses=4)
    requests = [ask(str(n), prompt_of(n, 40), 60) for n in range(6)]
    plain, _ = await answers(loaded("llama"), None, requests, EngineLimits(max_batch=4))
    found, stats = await answers(loaded("llama"), loaded("llama"), requests, tight)

    assert found == plain
    assert stats.preempted > 0


async def test_an_answer_ends_with_its_end_token(loaded: Load) -> None:
    model = loaded("llama")
    (plain,), _ = await answers(model, None, [ask("a", prompt_of(1, 9), 40)], EngineLimits())
    end = plain[20][0]
    ending = dataclasses.replace(model, end_ids=frozenset({end}))
    request = ask("a", prompt_of(1, 9), 40, ignore_end=False)
    (found,), _ = await answers(ending, ending, [request])

    first = [id for id, *_ in plain].index(end)
    assert [id for id, *_ in found] == [id for id, *_ in plain[: first + 1]]


async def test_long_prompts_are_read_in_chunks_before_anything_is_guessed(loaded: Load) -> None:
    limits = EngineLimits(guesses=3, prefill_chunk=16)
    requests = [ask(str(n), prompt_of(n, 150), 40) for n in range(2)]
    plain, _ = await answers(loaded("llama"), None, requests, EngineLimits())
    found, stats = await answers(loaded("llama"), loaded("llama"), requests, limits)

    assert found == plain
    assert stats.guessed_right == stats.guessed > 0


async def test_a_draft_that_breaks_is_asked_no_more(
    loaded: Load, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        """A decoder that runs out of memory."""

        def __init__(self, decoder: object) -> None:
            self._decoder = decoder

        def __getattr__(self, name: str) -> object:
            return getattr(self._decoder, name)

        def forward(self, *inputs: object) -> Tensor:
            raise torch.OutOfMemoryError("none left")

    model = loaded("llama")
    broken = dataclasses.replace(model, decoder=Broken(model.decoder))  # type: ignore[arg-type]
    plain, _ = await answers(model, None, asked(SAMPLINGS["greedy"]), EngineLimits())
    found, stats = await answers(model, broken, asked(SAMPLINGS["greedy"]))

    assert found == plain
    assert stats.failed == 0
    assert caplog.text.count("guesses no more") == 1


async def test_what_is_not_finite_is_not_guessed(loaded: Load) -> None:
    class Spoilt:
        """A decoder whose logits are no numbers."""

        def __init__(self, decoder: object) -> None:
            self._decoder = decoder

        def __getattr__(self, name: str) -> object:
            return getattr(self._decoder, name)

        def forward(self, *inputs: object) -> Tensor:
            logits: Tensor = self._decoder.forward(*inputs)  # type: ignore[attr-defined]
            return logits * torch.nan

    model = loaded("llama")
    spoilt = dataclasses.replace(model, decoder=Spoilt(model.decoder))  # type: ignore[arg-type]
    plain, _ = await answers(model, None, asked(SAMPLINGS["sampled"]), EngineLimits())
    found, stats = await answers(model, spoilt, asked(SAMPLINGS["sampled"]))

    assert found == plain
    assert stats.guessed == 0


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=12),
    most=st.integers(1, 4),
)
def test_a_draft_reads_what_came_in_the_end_whatever_it_guessed(
    loaded: Load, steps: list[tuple[int, int]], most: int
) -> None:
    """Whatever is kept of its guesses, it goes on as if it had read the text at once."""
    model = loaded("llama")
    limits = EngineLimits(guesses=most)
    drafter = Drafter(model, limits, 512, 320)
    sequence = Sequence(ask("a", prompt_of(1, 14), 400), model.tokenizer, 0.0)
    for kept, other in steps:
        guess = drafter.propose([sequence], most)[sequence]
        for token in guess[:kept]:
            sequence.accept(token)
        sequence.accept(6 + other)
    fresh = Drafter(model, limits, 512, 320)

    assert drafter.propose([sequence], most) == fresh.propose([sequence], most)
    drafter.forget(sequence)
    assert drafter.pages_used == 0


def test_guesses_stop_at_the_draft_s_own_context_and_vocabulary(loaded: Load) -> None:
    model = loaded("llama")
    short = Drafter(model, GUESSING, 20, 320)
    strange = Drafter(model, GUESSING, 512, 200)
    near = Sequence(ask("a", prompt_of(1, 15), 40), model.tokenizer, 0.0)
    far = Sequence(ask("b", prompt_of(1, 17), 40), model.tokenizer, 0.0)
    foreign = Sequence(ask("c", (8, 250, 9), 40), model.tokenizer, 0.0)

    assert list(short.propose([near, far], 4)) == [near]
    assert strange.propose([foreign], 4) == {}


def test_models_of_other_tokens_are_refused(loaded: Load) -> None:
    model = loaded("llama")
    other = dataclasses.replace(model, tokenizer=Shorter(model))  # type: ignore[arg-type]

    check_pair(model, loaded("qwen2"), Path("draft"))
    with pytest.raises(CheckpointError, match="other tokens"):
        check_pair(model, other, Path("draft"))


class Shorter:
    """A tokenizer that lacks the last token of a model's."""

    def __init__(self, model: LoadedModel) -> None:
        self.data = model.tokenizer.data[:-1]
        self.size = len(self.data)


def test_without_guesses_no_draft_is_kept(loaded: Load) -> None:
    core = EngineCore(loaded("llama"), EngineLimits(), Ticks(), draft=loaded("llama"))

    assert core._drafter is None
