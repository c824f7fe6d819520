"""The local engine beside others on the same weights, in turns: decoding of one request.

python -m bench.engine --shape 100m
python -m bench.engine --shape 500m --threads 2 --json

`frugal engine bench` measures the engine alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from local_engine.bench.loops import EngineLoop, prompt_of, request_of
from local_engine.bench.rows import Row
from local_engine.bench.shapes import SHAPES, write_checkpoint
from local_engine.bench.table import print_table
from local_engine.loader import LoadedModel, LoadOptions, load_model
from local_engine.types import EngineLimits

PROMPT = 48
SHORT, LONG = 8, 56
"""Answers of two lengths: their difference is decoding alone, without prompt and set-up."""

ROUNDS = 5


def by_engine(model: LoadedModel, prompt: tuple[int, ...], tokens: int) -> None:
    """Answer one prompt with this engine."""
    loop = EngineLoop(model, EngineLimits(max_batch=1), time.perf_counter)
    loop.add(request_of(prompt, tokens))
    while loop.live:
        loop.step()


def by_transformers(model: Any, prompt: tuple[int, ...], tokens: int) -> None:
    """Answer one prompt with `transformers.generate`, greedy, as it comes."""
    ids = torch.tensor([prompt])
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        min_new_tokens=tokens,
        max_new_tokens=tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )


def decode_s(answer: Callable[[int], None], clock: Callable[[], float]) -> float:
    """Return the seconds that one decoded token takes."""
    started = clock()
    answer(SHORT)
    middle = clock()
    answer(LONG)
    return (clock() - middle - (middle - started)) / (LONG - SHORT)


def compare(folder: Path, dtype: torch.dtype, clock: Callable[[], float]) -> Iterator[Row]:
    """Yield tokens a second of both, and how many times as fast this engine is."""
    ours = load_model(folder, LoadOptions(dtype=dtype))
    theirs: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    theirs.eval()
    prompt = prompt_of(ours.config.vocab, PROMPT, 0)
    found: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(ROUNDS):
        found["ours"].append(decode_s(lambda n: by_engine(ours, prompt, n), clock))
        found["theirs"].append(decode_s(lambda n: by_transformers(theirs, prompt, n), clock))
    mine, other = (sorted(found[name])[ROUNDS // 2] for name in ("ours", "theirs"))
    yield Row("engine, batch 1", 1 / mine, "tok/s")
    yield Row("transformers.generate, batch 1", 1 / other, "tok/s")
    yield Row("engine over transformers.generate", other / mine, "x", 1.5)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=tuple(SHAPES), default="100m")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("cpu", "wall"), default="cpu")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    with tempfile.TemporaryDirectory() as name:
        write_checkpoint(Path(name), options.shape)
        rows = compare(Path(name), getattr(torch, options.dtype), clock)
        if not options.json:
            done = print_table(rows)
        else:
            done = list(rows)
            print(json.dumps({row.name: row.value for row in done}, indent=2))
    return int(any(row.is_met is False for row in done))


if __name__ == "__main__":
    sys.exit(main())
