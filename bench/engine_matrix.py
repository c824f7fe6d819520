"""Greedy tokens of the local engine beside transformers' own, in fp32: models by ways of running.

python -m bench.engine_matrix
python -m bench.engine_matrix --only llama-3.1 qwen3 --tokens 12 --json

Small random checkpoints of every family and rotary scaling (`bench.engine_families`). A cell
says `equal` where every token of every answer is the one that `transformers.generate` gives,
`DIFFERS` where one is not, and `-` where the engine was not brought to run in that way: no
request had to be put back, or the answers repeated nothing that could be guessed. Exits with
1 where a cell differs.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from bench.engine_families import FAMILIES, write_family
from local_engine.bench.loops import prompt_of
from local_engine.engine import Engine
from local_engine.kv import PAGE_SIZE, KvShape, bytes_per_token
from local_engine.loader import LoadedModel, LoadOptions, load_model
from local_engine.types import EngineLimits, EngineStats, GenerationRequest, Sampling

LENGTHS = (40, 9, 70)
TOKENS = 48
WAYS = ("alone", "batched", "chunked", "prefix hit", "preempted", "guesses", "draft")
_CPU = torch.device("cpu")

Prompts = Sequence[tuple[int, ...]]
Answers = list[list[int]]


@dataclass(frozen=True, slots=True)
class Cell:
    """Whether all tokens were transformers', and whether the engine really ran in that way."""

    is_equal: bool
    was_tried: bool

    def __str__(self) -> str:
        if not self.is_equal:
            return "DIFFERS"
        return "equal" if self.was_tried else "-"


@dataclass(frozen=True, slots=True)
class Subject:
    """A checkpoint in fp32, a draft for it that is often but not always right, and the truth."""

    model: LoadedModel
    draft: LoadedModel
    wanted: Answers
    tokens: int

    @classmethod
    def of(cls, folder: Path, tokens: int) -> Subject:
        """Load a checkpoint and let transformers answer its prompts."""
        model = load_model(folder, LoadOptions(device=_CPU))
        draft = load_model(folder, LoadOptions("int4-g32", device=_CPU))
        theirs: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
        wanted = [by_transformers(theirs.eval(), p, tokens) for p in prompts_of(model)]
        return cls(model, draft, wanted, tokens)

    async def cell(self, way: str) -> Cell:
        """Answer all prompts at once in one way."""
        prompts = prompts_of(self.model)
        # Prompts that begin alike and go on otherwise fill the pages that are found again.
        before = [[(*p[:-3], 9, 9, 9) for p in prompts]] if way == "prefix hit" else []
        draft = self.draft if way == "draft" else None
        limits = self._limits(way)
        found, stats = await by_engine(
            self.model, limits, self.tokens, *before, prompts, draft=draft
        )
        return Cell(found == self.wanted, _was_tried(way, stats))

    def _limits(self, way: str) -> EngineLimits:
        """Return limits that force the way of running on three requests."""
        batch = 1 if way == "alone" else len(LENGTHS)
        chunk = PAGE_SIZE if way == "chunked" else 128
        guesses = 4 if way in ("guesses", "draft") else 0
        limits = EngineLimits(max_batch=batch, prefill_chunk=chunk, guesses=guesses)
        if way != "preempted":
            return limits
        # Room for the longest alone and a little more, so that they are put back in turn.
        page = PAGE_SIZE * bytes_per_token(KvShape.of(self.model.config), self.model.decoder.dtype)
        pages = -(-(max(LENGTHS) + self.tokens) // PAGE_SIZE) + 1
        return EngineLimits(max_batch=batch, kv_bytes=page * pages)


def prompts_of(model: LoadedModel) -> list[tuple[int, ...]]:
    """Draw the prompts."""
    return [prompt_of(model.config.vocab - 20, n, n) for n in LENGTHS]


def by_transformers(model: Any, prompt: tuple[int, ...], count: int) -> list[int]:
    """Return transformers' greedy tokens, none of which ends the answer."""
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
    model: LoadedModel,
    limits: EngineLimits,
    tokens: int,
    *turns: Prompts,
    draft: LoadedModel | None = None,
) -> tuple[Answers, EngineStats]:
    """Return the answers of the last turn, whose requests run together, after the others.

    Its clock ticks alike for every step, so guessing is tried however quick it is.
    """
    ticks = itertools.count()
    async with Engine(model, limits, lambda: float(next(ticks)), draft=draft) as engine:
        answers: Answers = []
        for turn, prompts in enumerate(turns):
            requests = [_request(f"{turn}/{n}", p, tokens) for n, p in enumerate(prompts)]
            answers = list(await asyncio.gather(*(_run(engine, r) for r in requests)))
        return answers, engine.stats()


def _request(id: str, prompt: tuple[int, ...], tokens: int) -> GenerationRequest:
    return GenerationRequest(id, prompt, tokens, Sampling(temperature=0.0), ignore_end=True)


async def _run(engine: Engine, request: GenerationRequest) -> list[int]:
    async with engine.submit(request) as generation:
        return [token.id async for token in generation]


def _was_tried(way: str, stats: EngineStats) -> bool:
    counted = {
        "prefix hit": stats.reused_tokens,
        "preempted": stats.preempted,
        "guesses": stats.guessed,
        "draft": stats.guessed,
    }
    return bool(counted.get(way, True))


def matrix(names: Sequence[str], tokens: int) -> Iterator[tuple[str, dict[str, Cell]]]:
    """Yield the cells of each family as they are there."""
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            write_family(name, Path(folder))
            subject = Subject.of(Path(folder), tokens)
            yield name, {way: asyncio.run(subject.cell(way)) for way in WAYS}


def printed(rows: Iterable[tuple[str, dict[str, Cell]]]) -> Iterator[tuple[str, dict[str, Cell]]]:
    """Print rows as a table in Markdown while they pass."""
    print(f"| model | {' | '.join(WAYS)} |\n|{'---|' * (len(WAYS) + 1)}", flush=True)
    for name, cells in rows:
        print(f"| {name} | {' | '.join(map(str, cells.values()))} |", flush=True)
        yield name, cells


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Greedy tokens beside transformers' own.")
    parser.add_argument("--only", choices=tuple(FAMILIES), nargs="+", default=tuple(FAMILIES))
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of each answer")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    progress: Any = transformers_logging
    progress.disable_progress_bar()
    rows = matrix(options.only, options.tokens)
    done = dict(rows if options.json else printed(rows))
    if options.json:
        told = {name: {w: str(c) for w, c in cells.items()} for name, cells in done.items()}
        print(json.dumps({"torch": torch.__version__, "tokens": options.tokens, "rows": told}))
    return int(any(not cell.is_equal for cells in done.values() for cell in cells.values()))


if __name__ == "__main__":
    sys.exit(main())
