"""`python -m bench.engine_gpu`: check the kernels of a GPU, then time the engine on it.

Everything in one call of less than eight minutes: what is left when the time is over is
named and not timed. Without a GPU it says so, and checks what Triton's interpreter can
run (`TRITON_INTERPRET=1`, with `triton` installed). Needs torch, triton, safetensors,
tokenizers and jinja2, and no checkpoint.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

import torch

from local_engine.bench.gpu_checks import answer_checks, can_check, kernel_checks
from local_engine.bench.gpu_products import product_rows
from local_engine.bench.gpu_rows import CASES, measure_machine, model_rows
from local_engine.bench.rows import Row
from local_engine.bench.table import print_table

_BUDGET_S = 440.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 1 where a check or a target is missed, 2 without a GPU."""
    options = _parse(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    started = time.perf_counter()
    rows = _rows(device, options, lambda: time.perf_counter() - started < options.budget)
    if options.json:
        done = list(rows)
        table = [{**asdict(row), "is_met": row.is_met} for row in done]
        print(json.dumps({"device": _name(device), "rows": table}, indent=2))
    else:
        print(_name(device))
        done = print_table(rows)
    if any(row.is_met is False for row in done):
        return 1
    return 0 if device.type == "cuda" else 2


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.engine_gpu", description=__doc__)
    parser.add_argument("--only", choices=("checks", "products", "models"), action="append")
    parser.add_argument("--tune", action="store_true", help="try other cuts of the products, too")
    parser.add_argument("--budget", type=float, default=_BUDGET_S, help="seconds for all of it")
    parser.add_argument("--json", action="store_true", help="one object instead of a table")
    return parser.parse_args(arguments)


def _rows(
    device: torch.device, options: argparse.Namespace, has_time: Callable[[], bool]
) -> Iterator[Row]:
    wanted = options.only or ("checks", "products", "models")
    if "checks" in wanted:
        if can_check(device):
            yield from kernel_checks(device)
        else:
            _say("kernels are not checked: no GPU, nor triton with TRITON_INTERPRET=1")
        if device.type == "cuda":
            yield from answer_checks(device)
    if device.type != "cuda":
        _say("nothing is timed: there is no GPU here")
        return
    machine = measure_machine(device)
    yield Row("memory, copied", machine.bandwidth / 1e12, "TB/s")
    yield Row("bf16 products", machine.flops / 1e12, "TFLOP/s")
    if "models" in wanted:
        measured = 0
        for row in model_rows(machine, has_time):
            measured += "roofline" in row.name
            yield row
        for case in CASES[measured:]:
            _say(f"not timed, as the time was over: {case.name}")
    if "products" in wanted:
        yield from product_rows(machine, has_time, tunes=options.tune)


def _name(device: torch.device) -> str:
    versions = f"torch {torch.__version__}, python {sys.version.split()[0]}"
    if device.type != "cuda":
        return f"no GPU; {versions}"
    return f"{torch.cuda.get_device_name(device)}; {versions}, CUDA {torch.version.cuda}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
