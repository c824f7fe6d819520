"""Beam search: the answers of transformers, in batches with others or alone."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from local_engine.app import App, Ready
from local_engine.beam_search import beam_search
from local_engine.beams import BeamRules, Beams, EarlyStopping
from local_engine.engine import Engine
from local_engine.errors import DeadlineExceeded
from local_engine.http1 import HttpRequest
from local_engine.loader import LoadedModel
from local_engine.types import EngineLimits, GenerationRequest, Token
from tests.local_engine.support import ask, prompt_of, run

Load = Callable[[str], LoadedModel]
Oracle = Callable[[str], PreTrainedModel]
LENGTH = 18


@pytest.fixture
async def engine(loaded: Load) -> AsyncIterator[Engine]:
    async with Engine(loaded("llama"), EngineLimits(max_batch=4)) as made:
        yield made


def theirs(
    model: PreTrainedModel, prompt: tuple[int, ...], rules: BeamRules, answers: int
) -> list[tuple[int, ...]]:
    """Search with transformers; cut what pads the shorter answers."""
    ends = sorted(rules.end_ids) or None
    ids: Any = torch.tensor([prompt])
    found = model.generate(  # type: ignore[operator]
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=rules.max_tokens,
        do_sample=False,
        num_beams=rules.width,
        num_return_sequences=answers,
        length_penalty=rules.length_penalty,
        early_stopping=rules.early_stopping,
        eos_token_id=ends,
        pad_token_id=0,
    )
    return [_until_end(row[len(prompt) :].tolist(), rules.end_ids) for row in found]


def _until_end(ids: list[int], ends: frozenset[int]) -> tuple[int, ...]:
    end = next((n for n, id in enumerate(ids, 1) if id in ends), len(ids))
    return tuple(ids[:end])


def frequent(model: PreTrainedModel, prompt: tuple[int, ...]) -> frozenset[int]:
    """Return tokens that answers to a prompt often hold, to end them with."""
    found = theirs(model, prompt, BeamRules(8, LENGTH), 8)
    later = [id for ids in found for id in ids[4:]]
    return frozenset(sorted(set(later), key=lambda id: (-later.count(id), id))[:2])


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("early", [False, True, "never"])
async def test_answers_are_those_of_transformers(
    loaded: Load, oracle: Oracle, kind: str, early: EarlyStopping
) -> None:
    async with Engine(loaded(kind), EngineLimits(max_batch=4)) as engine:
        ended = 0
        for n, (width, penalty) in enumerate(itertools.product((2, 5), (0.0, 1.0, -1.0))):
            prompt = prompt_of(n, 9 + 11 * n)
            ends = frequent(oracle(kind), prompt) if n % 3 != 2 else frozenset[int]()
            rules = BeamRules(width, LENGTH, ends, penalty, early)
            request = ask(f"r{n}", prompt, LENGTH)
            found = await beam_search(engine, request, rules, width)

            assert [tuple(t.id for t in a.tokens) for a in found] == theirs(
                oracle(kind), prompt, rules, width
            )
            ended += sum(a.finish.reason == "stop" for a in found)
        assert ended > 0
        assert engine.stats().finished == 6
        assert engine.stats().pages_used == 0


async def test_searches_and_others_share_batches_and_keep_their_answers(engine: Engine) -> None:
    rules = BeamRules(3, 12)
    searches = [ask(f"s{n}", prompt_of(n, 30), 12) for n in range(3)]
    others = [ask(f"o{n}", prompt_of(n, 20), 12) for n in range(4)]
    alone = [await beam_search(engine, r, rules, 3) for r in searches]
    plain = [(await run(engine, r))[0] for r in others]
    both = await asyncio.gather(
        asyncio.gather(*(beam_search(engine, r, rules, 3) for r in searches)),
        asyncio.gather(*(run(engine, r) for r in others)),
    )

    assert [[ids(a.tokens) for a in s] for s in both[0]] == [
        [ids(a.tokens) for a in s] for s in alone
    ]
    assert [ids(tokens) for tokens, _ in both[1]] == [ids(tokens) for tokens in plain]


def ids(tokens: list[Token]) -> list[int]:
    return [token.id for token in tokens]


async def test_one_beam_is_the_greedy_answer_with_its_text(engine: Engine) -> None:
    request = ask("a", prompt_of(4, 20), 16, top_logprobs=2)
    (answer,) = await beam_search(engine, request, BeamRules(1, 16), 1)
    tokens, finish = await run(engine, request)

    assert ids(answer.tokens) == ids(tokens)
    assert "".join(t.text for t in answer.tokens) == "".join(t.text for t in tokens)
    assert [t.top[0][0] for t in answer.tokens] == [t.top[0][0] for t in tokens]
    assert all(len(t.top) == 2 for t in answer.tokens)
    assert (answer.finish.reason, answer.finish.completion_tokens) == ("length", 16)
    assert finish.prompt_tokens == answer.finish.prompt_tokens


async def test_a_search_ends_at_its_deadline(engine: Engine) -> None:
    late = ask("a", prompt_of(4, 20), 16, deadline_s=1e-9)

    with pytest.raises(DeadlineExceeded):
        await beam_search(engine, late, BeamRules(2, 16), 1)


async def test_a_search_that_is_left_gives_its_pages_back(engine: Engine) -> None:
    task = asyncio.create_task(
        beam_search(engine, ask("a", prompt_of(4, 20), 400), BeamRules(4, 400), 1)
    )
    await run(engine, ask("b", prompt_of(5, 20), 4))
    task.cancel()
    await asyncio.wait((task,))
    await run(engine, ask("c", prompt_of(5, 20), 4))

    assert task.cancelled()
    assert engine.stats().pages_used == 0
    assert engine.stats().running == 0


def test_candidates_leave_enough_to_go_on_with() -> None:
    rules = BeamRules(2, 8, frozenset({1, 2, 3}))
    beams = Beams(rules)
    ending = tuple((id, -0.1 * id) for id in (1, 2, 3, 7, 8, 9, 10, 11))
    beams.advance([Token(1, "", b"", -0.1, 0.0, 0.0, ending)])

    assert rules.candidates == 8
    assert [beam.ids for beam in beams.running] == [(7,), (8,)]
    assert [beam.ids for beam in beams.answers] == [(1,), (2,)]


async def test_the_server_returns_the_best_answers(engine: Engine, loaded: Load) -> None:
    app = App()
    app.ready = Ready(engine, "tiny")
    model = loaded("llama")
    prompts = ["the quick", "the lazy dog"]
    status, body = await post(app, prompt=prompts, n=2, best_of=4, length_penalty=0.5, logprobs=1)

    assert status == 200
    rules = BeamRules(4, 8, frozenset(), 0.5)
    for n, prompt in enumerate(prompts):
        tokens = model.tokenizer.encode(prompt, add_special=True)
        request = GenerationRequest(f"x{n}", tokens, 8)
        best = await beam_search(engine, request, rules, 2)
        texts = ["".join(t.text for t in a.tokens) for a in best]
        assert [c["text"] for c in body["choices"][2 * n : 2 * n + 2]] == texts
    assert body["usage"]["completion_tokens"] == 32
    assert [c["index"] for c in body["choices"]] == [0, 1, 2, 3]
    assert len(body["choices"][0]["logprobs"]["token_logprobs"]) == 8


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stream": True}, "stream"),
        ({"temperature": 0.7}, "temperature"),
        ({"repetition_penalty": 1.2}, "repetition_penalty"),
        ({"stop": "."}, "stop"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"guided_regex": "a"}, "guided_regex"),
        ({"early_stopping": "maybe"}, "early_stopping"),
        ({"length_penalty": "long"}, "length_penalty"),
        ({"n": 4, "best_of": 2}, "best_of"),
        ({"use_beam_search": False, "length_penalty": 2.0}, "length_penalty"),
    ],
)
async def test_what_means_nothing_in_a_search_is_refused(
    engine: Engine, fields: dict[str, Any], param: str
) -> None:
    app = App()
    app.ready = Ready(engine, "tiny")
    status, body = await post(app, prompt="the", **fields)

    assert status == 400
    assert body["error"]["param"] == param


async def post(app: App, **fields: Any) -> tuple[int, dict[str, Any]]:
    asked = {"use_beam_search": True, "max_tokens": 8, "ignore_eos": True, **fields}
    data = json.dumps(asked).encode()
    request = HttpRequest("POST", "/v1/completions", {}, data, keeps_alive=True, can_chunk=True)
    found = await app(request)
    assert isinstance(found.body, bytes)
    return found.status, json.loads(found.body)
