"""A model that joins by few probes, against the cascade without it and one learnt with it.

`python -m bench.router joins --data ../shared/data`: Llama-3.1-8B with GPT-4o as the
reference, learnt on some of train's queries; GPT-4o-mini joins by probes of others. All run
on dev, at the same exchange rates.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.router.pool import listed_prices
from bench.router.sets import ZEROEVAL, outcomes
from router.drafts import Drafts
from router.join import join
from router.learn_table import LearnTable
from router.learnt import Learnt
from router.metrics import auroc, brier
from router.targets import PriceOfQuality
from router.train import Task, complete_rows, records_at, train
from router.value_fit import simulate

OLD = ("Meta-Llama-3.1-8B-Instruct", "gpt-4o-2024-08-06")
NEW = "gpt-4o-mini-2024-07-18"
RATES = (0.03, 0.1, 0.2, 0.5)
TAUGHT = 500


def main(argv: Sequence[str]) -> int:
    """Print the table."""
    asked = _arguments(argv)
    prices = {name: listed_prices(asked.data)[name] for name in (*OLD, NEW)}
    table = outcomes(asked.data, ZEROEVAL, (*OLD, NEW), replies=True)
    table = table.subset(complete_rows(table))
    taught, dev = table.of_split("train"), table.of_split("dev")
    order = np.random.default_rng(asked.seed).permutation(len(taught))
    first, rest = order[:TAUGHT], order[TAUGHT:]
    target = PriceOfQuality(1e-4)
    task = Task(OLD, OLD[1], target, {name: prices[name] for name in OLD})
    without = train(taught.subset(first), task)
    print(f"{TAUGHT} queries learnt from, {len(dev)} of dev; reference {OLD[1]}, newcomer {NEW}")
    print("| way | AUROC before / after | Brier before / after | quality and cost, of the "
          f"reference's, at rates {', '.join(map(str, RATES))} |\n|---|---|---|---|")  # fmt: skip
    _show("without it", without.learnt, dev)
    for count in asked.probes:
        found = join(without.learnt, without.operating, taught.subset(rest[:count]), prices[NEW])
        _show(f"joined by {count} probes", found.learnt, dev)
    every = taught.subset(np.concatenate([first, rest[: max(asked.probes)]]))
    _show(
        f"learnt with it on {len(every)} queries",
        train(every, Task((*OLD, NEW), OLD[1], target, prices)).learnt,
        dev,
    )
    return 0


def _show(way: str, learnt: Learnt, dev: LearnTable) -> None:
    table = dev.of_models(learnt.models)
    records = records_at(learnt, table, Drafts.read(table))
    value, told = learnt.values["quality"], ("-", "-")
    if NEW in learnt.models:
        place = learnt.models.index(NEW)
        true = records.score[:, place]
        both = records.first[:, place], records.drafts[place,][:, 0]
        told = (
            " / ".join(f"{auroc(each, true > 0.5):.3f}" for each in both),
            " / ".join(f"{brier(each, true):.3f}" for each in both),
        )
    reference = value.lineup.reference
    runs = [simulate(value, learnt.beliefs, records, rate) for rate in RATES]
    points = ", ".join(
        f"{run.quality(records).mean() / records.score[:, reference].mean():.3f} at "
        f"{run.usd.mean() / records.paid[:, reference].mean():.3f}"
        for run in runs
    )
    print(f"| {way} | {told[0]} | {told[1]} | {points} |", flush=True)


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.router joins", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder of the outcomes")
    parser.add_argument("--probes", type=int, nargs="+", default=[50, 100, 150, 200])
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
