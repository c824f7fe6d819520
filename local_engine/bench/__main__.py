"""`python -m local_engine.bench`: what `frugal engine bench` prints."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from local_engine.bench.rows import ROWS, Bench, Row
from local_engine.bench.shapes import SHAPES, write_checkpoint
from local_engine.bench.table import print_table
from local_engine.loader import LoadOptions, load_model

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="frugal engine bench", description="Measure the engine on random weights."
    )
    parser.add_argument("--shape", choices=tuple(SHAPES), default="100m")
    parser.add_argument("--dtype", choices=tuple(_DTYPES), default="bf16")
    parser.add_argument("--quantization", default="none")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=tuple(ROWS), action="append", help="measure this alone")
    parser.add_argument(
        "--clock",
        choices=("cpu", "wall"),
        help="cpu (of one thread) is what to read on a busy machine; default: cpu with one thread",
    )
    parser.add_argument("--json", action="store_true", help="one object instead of a table")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Yield the rows asked for."""
    torch.set_num_threads(options.threads)
    is_cpu = (options.clock or ("cpu" if options.threads == 1 else "wall")) == "cpu"
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), options.shape)
        loading = LoadOptions(options.quantization, _DTYPES[options.dtype])
        bench = Bench(load_model(Path(folder), loading), _CLOCKS[is_cpu])
        for name in options.only or ROWS:
            yield from ROWS[name](bench)


_CLOCKS = {True: time.process_time, False: time.perf_counter}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 1 where a target is missed."""
    options = parse_arguments(arguments)
    if options.json:
        rows = list(measure(options))
        table = [{**asdict(row), "is_met": row.is_met} for row in rows]
        settings = {k: v for k, v in vars(options).items() if k not in ("json", "only")}
        print(json.dumps({"torch": torch.__version__, **settings, "rows": table}, indent=2))
    else:
        rows = print_table(measure(options))
    return int(any(row.is_met is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
