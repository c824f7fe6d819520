"""What estimating costs: CPU seconds to fit, CPU milliseconds a query.

    python -m bench.router speed --data ../shared/data
    OMP_NUM_THREADS=2 python -m bench.router speed --data ../shared/data --whole

Eight models of MMLU-Pro on its train part (some 57,000 outcomes), both views; then
dev queries one by one, with their vectors and without. CPU time of this process,
with as many threads as OMP_NUM_THREADS says; the embedding itself is not in it. `--whole`
learns the whole cascade instead, as `frugal train` does, from some 50,000 outcomes of seven models
with their replies, and prints seconds too, which mean something on a quiet machine alone.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.router.pool import PRICED, learnt_on, listed_prices
from bench.router.sets import outcomes
from router.costs import Price
from router.quality.model import QualityModel
from router.query import Query
from router.train import complete_rows

MODELS = (
    "Meta-Llama-3_1-8B-Instruct", "Mixtral-8x7B-Instruct-v0.1", "Qwen1.5-72B-Chat",
    "Meta-Llama-3_1-70B-Instruct", "Yi-34B", "gemini-1.5-flash-002", "DeepSeek-Coder-V2",
    "gemini-1.5-pro-002",
)  # fmt: skip
_UNPRICED = Price(1.0, 1.0, PRICED)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="bench.router speed", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--data", type=Path, required=True, help="folder of datasets")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--whole", action="store_true", help="learn a whole cascade")
    arguments = parser.parse_args(argv)
    if arguments.whole:
        return _whole(arguments.data)
    table = outcomes(arguments.data, ("mmlu_pro",), MODELS)
    train, dev = table.of_split("train"), table.of_split("dev")
    began = time.process_time()
    model = QualityModel.fit(train)
    count = int((~np.isnan(train.score)).sum())
    print(f"fit {count} outcomes, both views: {time.process_time() - began:.0f} CPU s")
    asked = list(dev.queries)[: arguments.queries]
    _report("with a vector", model, asked)
    _report("words alone", model, [replace(query, vector=None) for query in asked])
    return 0


def _whole(data: Path) -> int:
    wall, began = time.perf_counter(), time.process_time()
    table = outcomes(data, ("mmlu_pro",), (*MODELS[:4], *MODELS[5:]), replies=True)
    table = table.of_split("train")
    table = table.subset(complete_rows(table))
    known = listed_prices(data)
    prices = {name: known.get(name, _UNPRICED) for name in table.models}
    learnt_on(table, prices, ())
    cpu, wall = time.process_time() - began, time.perf_counter() - wall
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"whole cascade of {table.score.size} outcomes: {cpu:.0f} CPU s, {wall:.0f} s; {load}")
    return 0


def _report(name: str, model: QualityModel, queries: Sequence[Query]) -> None:
    model.estimate(queries[:1])
    spent = []
    for query in queries:
        began = time.process_time()
        model.estimate([query])
        spent.append(1000 * (time.process_time() - began))
    middle, high = np.quantile(spent, [0.5, 0.99])
    print(f"{name}: {middle:.2f} CPU ms a query at the median, {high:.2f} at p99")
