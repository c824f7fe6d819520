"""Guessing ahead: the same tokens as without, sooner where text repeats."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_engine.engine import Engine
from local_engine.grammar import Grammars
from local_engine.loader import LoadedModel
from local_engine.speculation import GuessGate, PromptLookup
from local_engine.types import EngineLimits, GenerationRequest, Sampling, Token
from tests.local_engine.support import ask, prompt_of, run

Load = Callable[[str], LoadedModel]
PHRASE = prompt_of(3, 12)


class Eager:
    """A clock that makes every way look equally fast, so that the gate tries both."""

    def __init__(self) -> None:
        self._ticks = itertools.count()

    def __call__(self) -> float:
        return float(next(self._ticks))


def copying(n: int) -> tuple[int, ...]:
    """Return a prompt that repeats itself, so that there is something to guess."""
    return prompt_of(n, 5 + n) + PHRASE * 4


SAMPLINGS = {
    "greedy": Sampling(temperature=0.0),
    "sampled": Sampling(temperature=0.4, top_p=0.9, seed=5),
    "penalized": Sampling(temperature=0.5, frequency_penalty=0.3, repetition_penalty=1.1, seed=6),
    "biased": Sampling(temperature=0.9, logit_bias=dict.fromkeys(PHRASE, 9.0), seed=7),
}


def known(token: Token) -> tuple[int, str, float]:
    return token.id, token.text, round(token.logprob, 3)


async def answers(
    model: LoadedModel, limits: EngineLimits, requests: list[GenerationRequest]
) -> tuple[list[list[tuple[int, str, float]]], int, int]:
    async with Engine(model, limits, Eager()) as engine:
        found = await asyncio.gather(*(run(engine, r) for r in requests))
        stats = engine.stats()
        assert stats.pages_used == 0
    return [[known(t) for t in tokens] for tokens, _ in found], stats.guessed, stats.guessed_right


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("way", list(SAMPLINGS))
async def test_answers_are_those_without_guessing(loaded: Load, kind: str, way: str) -> None:
    requests = [ask(str(n), copying(n), 60, SAMPLINGS[way]) for n in range(3)]
    plain, none, _ = await answers(loaded(kind), EngineLimits(), requests)
    alone = [(await answers(loaded(kind), EngineLimits(guesses=5), [r]))[0][0] for r in requests]
    together, guessed, _ = await answers(loaded(kind), EngineLimits(guesses=5), requests)

    assert alone == together == plain
    assert none == 0
    assert guessed or way == "penalized"


async def test_guesses_are_often_right_where_the_answer_repeats(loaded: Load) -> None:
    sampling = Sampling(temperature=0.0, logit_bias={PHRASE[0]: 100.0})
    _, guessed, right = await answers(
        loaded("llama"), EngineLimits(guesses=8), [ask("a", copying(1), 60, sampling)]
    )

    assert right > guessed / 2 > 0


async def test_an_answer_ends_where_it_would_have(loaded: Load) -> None:
    model = loaded("llama")
    again = ask("a", copying(2), 60, Sampling(temperature=0.0, logit_bias={PHRASE[0]: 100.0}))
    text = "".join(t for _, t, _ in (await answers(model, EngineLimits(), [again]))[0][0])
    for request in (replace(again, max_tokens=n) for n in (2, 3, 7, 30)):
        found = (await answers(model, EngineLimits(guesses=8), [request]))[0][0]
        assert len(found) == request.max_tokens
    stopped = replace(again, stop=(text[20:23],))

    plain = await answers(model, EngineLimits(), [stopped])
    assert (await answers(model, EngineLimits(guesses=8), [stopped]))[0] == plain[0]


async def test_a_form_is_kept_while_guessing(loaded: Load) -> None:
    pytest.importorskip("llguidance", reason="answers of a given form need llguidance")
    model = loaded("llama")
    grammars = Grammars(model.tokenizer, model.end_ids, model.config.vocab)
    form = grammars.regex("((ab|cd){3}-){8}", "guided_regex")
    requests = [
        ask(str(n), copying(n), 90, Sampling(temperature=0.3, seed=n), constraint=form)
        for n in range(3)
    ]
    plain, _, _ = await answers(model, EngineLimits(), requests)
    guessing, guessed, _ = await answers(model, EngineLimits(guesses=6), requests)

    assert guessing == plain
    assert guessed


async def test_guessing_yields_to_scarce_pages(loaded: Load) -> None:
    per_token = 2 * 3 * 32 * 4
    tight = EngineLimits(max_batch=4, kv_bytes=per_token * 16 * 16, max_context=160, guesses=8)
    requests = [ask(str(n), copying(n), 60, SAMPLINGS["biased"]) for n in range(5)]
    plain, _, _ = await answers(loaded("llama"), EngineLimits(max_batch=4), requests)

    assert (await answers(loaded("llama"), tight, requests))[0] == plain


async def test_prompts_read_a_token_at_a_time_where_pages_are_scarce_are_not_guessed_into(
    loaded: Load,
) -> None:
    per_token = 2 * 3 * 32 * 4
    tight = EngineLimits(
        max_batch=4, kv_bytes=per_token * 16 * 14, max_context=160, guesses=8, prefill_chunk=1
    )
    requests = [ask(str(n), copying(n), 40, SAMPLINGS["biased"]) for n in range(5)]
    plain, _, _ = await answers(loaded("llama"), EngineLimits(max_batch=4), requests)
    found, guessed, _ = await answers(loaded("llama"), tight, requests)

    # Log-probabilities of prompts cut otherwise differ in the sixth place, which may round up.
    assert [[t[:2] for t in a] for a in found] == [[t[:2] for t in a] for a in plain]
    assert guessed


def test_what_followed_last_time_is_guessed() -> None:
    lookup = PromptLookup()

    assert lookup.guess([1, 2, 3, 4, 5, 9, 2, 3], 2) == (4, 5)
    assert lookup.guess([1, 2, 3, 4, 5, 9, 2, 3, 7], 2) == ()
    assert PromptLookup().guess([5, 6, 5, 6, 5, 6], 5) == (5, 6, 5, 6, 5)
    assert PromptLookup().guess([1, 2, 3], 0) == ()


@given(tokens=st.lists(st.integers(0, 3), max_size=40), cut=st.integers(0, 40))
def test_guesses_do_not_depend_on_when_tokens_came(tokens: list[int], cut: int) -> None:
    early = PromptLookup()
    early.guess(tokens[:cut], 1)

    assert early.guess(tokens, 4) == PromptLookup().guess(tokens, 4)


def test_wrong_guesses_make_for_rest_and_a_right_one_ends_it() -> None:
    lookup = PromptLookup()
    tokens = [1, 2, 3, 1, 2, 3]
    asked = []
    for _ in range(20):
        guess = lookup.guess(tokens, 1)
        asked.append(bool(guess))
        if guess:
            lookup.note(0)

    assert [n for n, a in enumerate(asked) if a] == [0, 2, 5, 10, 19]
    lookup.note(1)
    assert lookup.guess(tokens, 1)


@pytest.mark.parametrize("fast", [True, False])
def test_the_gate_takes_the_faster_way_at_each_size(fast: bool) -> None:
    gate = GuessGate()
    taken = {1: 0, 8: 0}
    for _ in range(500):
        for batch in taken:
            is_open = gate.is_open(batch)
            taken[batch] += is_open
            is_good = fast == (batch == 1)
            seconds = 1.0 if not is_open else 0.5 if is_good else 2.0
            gate.note(batch, seconds, 1, has_guessed=is_open)

    good, bad = (taken[1], taken[8]) if fast else (taken[8], taken[1])
    assert good > 480
    assert 0 < bad < 20
