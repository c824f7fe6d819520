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
from local_engine.kv import PAGE_SIZE, KvShape, bytes_per_token
from local_engine.loader import LoadedModel, LoadOptions, load_model
from local_engine.types import EngineLimits, EngineStats
from tests.local_engine.conftest import CPU
from tests.local_engine.families import FAMILIES, build_family
from tests.local_engine.support import ask, prompt_of, run, write_tokenizer

LENGTHS = (40, 9, 70)
COUNT = 12
WAYS = ("alone", "batched", "chunked", "preempted", "prefix hit")


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


def limits_of(way: str, model: LoadedModel) -> EngineLimits:
    """Return limits that force the way of running on three requests."""
    if way == "alone":
        return EngineLimits(max_batch=1)
    if way == "preempted":
        # Room for the longest alone and a little more, so that they are put back in turn.
        page = PAGE_SIZE * bytes_per_token(KvShape.of(model.config), model.decoder.dtype)
        pages = (max(LENGTHS) + COUNT) // PAGE_SIZE + 2
        return EngineLimits(max_batch=3, kv_bytes=page * pages)
    return EngineLimits(max_batch=3, prefill_chunk=16 if way == "chunked" else 128)


async def by_engine(
    model: LoadedModel, limits: EngineLimits, *turns: list[tuple[int, ...]]
) -> tuple[list[list[int]], EngineStats]:
    """Return the answers of the last turn, whose requests run together, after the others."""
    async with Engine(model, limits) as engine:
        for turn, prompts in enumerate(turns):
            asks = [ask(f"{turn}/{n}", p, COUNT) for n, p in enumerate(prompts)]
            replies = await asyncio.gather(*(run(engine, request) for request in asks))
        stats = engine.stats()
    return [[token.id for token in tokens] for tokens, _ in replies], stats


@pytest.mark.parametrize("name", FAMILIES)
async def test_greedy_tokens_equal_transformers_in_every_way_of_running(
    name: str, family: Callable[[str], Path], greedy: Callable[[str], list[list[int]]]
) -> None:
    model = load_model(family(name), CPU)
    prompts = [prompt_of(n, n) for n in LENGTHS]
    # Prompts that begin alike and go on otherwise fill the pages found again later.
    before = [(*p[:-3], 9, 9, 9) for p in prompts]
    cells = {}
    for way in WAYS:
        turns = [before, prompts] if way == "prefix hit" else [prompts]
        found, stats = await by_engine(model, limits_of(way, model), *turns)
        cells[way] = found == greedy(name)
        # Where every layer slides, old pages come back early enough for all.
        assert stats.preempted or way != "preempted" or all(model.config.windows)
        assert stats.reused_tokens or way != "prefix hit"
    print(f"{name:22}", *(f"{way}: {'equal' if ok else 'DIFFERS'}" for way, ok in cells.items()))

    assert all(cells.values()), cells
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
    found, _ = await by_engine(long, EngineLimits(max_batch=1), [prompt])
    assert found == [by_transformers(theirs, prompt, COUNT)]
