"""Every family and rotary scaling gives transformers' own greedy tokens, however it is run."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from local_engine.engine import Engine
from local_engine.loader import LoadedModel, LoadOptions, load_model
from local_engine.types import EngineLimits
from tests.local_engine.conftest import CPU
from tests.local_engine.families import FAMILIES, build_family
from tests.local_engine.support import ask, prompt_of, run, write_tokenizer

LENGTHS = (40, 9, 70)
COUNT = 12
LIMITS = {
    "alone": EngineLimits(max_batch=1),
    "batched": EngineLimits(max_batch=3),
    "chunked": EngineLimits(max_batch=3, prefill_chunk=16),
}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the directory of a checkpoint of the named family; not to be changed."""

    @functools.cache
    def directory(name: str) -> Path:
        path = tmp_path_factory.mktemp(name)
        build_family(name).save_pretrained(path)
        write_tokenizer(path)
        return path

    return directory


@pytest.fixture(scope="module")
def greedy(family: Callable[[str], Path]) -> Callable[[str], list[list[int]]]:
    """Return transformers' greedy tokens of a family for each prompt."""

    @functools.cache
    def tokens(name: str) -> list[list[int]]:
        model = AutoModelForCausalLM.from_pretrained(
            family(name), dtype=torch.float32, attn_implementation="eager"
        )
        return [by_transformers(model.eval(), prompt_of(n, n), COUNT) for n in LENGTHS]

    return tokens


def by_transformers(model: PreTrainedModel, prompt: tuple[int, ...], count: int) -> list[int]:
    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    found: list[int] = out[0, len(prompt) :].tolist()
    return found


async def by_engine(
    model: LoadedModel, limits: EngineLimits, prompts: list[tuple[int, ...]]
) -> list[list[int]]:
    async with Engine(model, limits) as engine:
        asks = [ask(str(n), prompt, COUNT) for n, prompt in enumerate(prompts)]
        replies = await asyncio.gather(*(run(engine, request) for request in asks))
    return [[token.id for token in tokens] for tokens, _ in replies]


@pytest.mark.parametrize("name", FAMILIES)
async def test_greedy_tokens_equal_transformers_in_every_way_of_running(
    name: str, family: Callable[[str], Path], greedy: Callable[[str], list[list[int]]]
) -> None:
    model = load_model(family(name), CPU)
    prompts = [prompt_of(n, n) for n in LENGTHS]

    for limits in LIMITS.values():
        assert await by_engine(model, limits, prompts) == greedy(name)
    assert len({t for tokens in greedy(name) for t in tokens}) > COUNT  # the model says something


async def test_long_context_uses_the_other_frequencies_from_the_first_token(
    family: Callable[[str], Path],
) -> None:
    path = family("rope-longrope")
    short = load_model(path, CPU)
    long = load_model(path, LoadOptions(device=CPU.device, is_long=True))
    theirs = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    prompt = prompt_of(5, 200)

    assert (short.config.context, long.config.context) == (128, 512)
    found = await by_engine(long, EngineLimits(max_batch=1), [prompt])
    assert found == [by_transformers(theirs, prompt, COUNT)]
