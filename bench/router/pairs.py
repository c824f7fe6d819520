"""Before generating: which of two models to call, over label budgets, against the baselines.

    python -m bench.router pairs --data ../shared/data --task mmlu --labels 1500,all

Five-fold cross-fitting over train and dev (near-duplicates kept together), once a
seed; with `--leave dataset` or `--leave category` each of these is held out as a whole
instead. Of a training fold only `--labels` scores are shown; its other prompts and
their categories are, for no operator lacks those. No way is told the category of
a query held out, unless its name says so. Intervals are 95 %, over resampled
queries, the difference to the TF-IDF baseline paired by query.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.router.resampled import intervals
from bench.router.sets import TASKS, PairTask, pair_table
from bench.router.ways import BASELINES, Floats, Way, labelled, ours, unsupervised
from router.learn_table import LearnTable
from router.metrics import Interval, PairCurve, pair_curve
from router.quality.view import EVERY, LEARNERS

Rows = NDArray[np.intp]
AGAINST = "TF-IDF logistic"
OURS: dict[str, Way] = {
    "ours": ours(),
    "ours, no category in training": unsupervised(ours()),
    "ours, no embedder": ours(vectors=False),
    "ours, category told": ours(told=True),
}
ABLATIONS: dict[str, Way] = {
    f"ours, without {name}": ours(tuple(each for each in EVERY if each != name)) for name in EVERY
} | {f"ours, {name} alone": ours((name,)) for name in LEARNERS}


@dataclass(frozen=True, slots=True)
class Row:
    """One way at one label budget; means over seeds, `seeds` their APGR one by one."""

    task: str
    way: str
    labels: int | None
    leave: str
    apgr: Interval
    against: Interval | None
    cpt50: float
    cpt80: float
    seeds: tuple[float, ...]
    cpu_s: float


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print. Returns the exit status."""
    arguments = _arguments(argv)
    rows: list[Row] = []
    for name in arguments.task:
        table = pair_table(arguments.data, TASKS[name])
        for budget in arguments.labels:
            rows += _rows(TASKS[name], table, budget, arguments)
            if not arguments.json:
                _print(rows[-len(_ways(arguments)) :], len(table))
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.router pairs", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--data", type=Path, required=True, help="folder of datasets")
    parser.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--labels", type=_budgets, default=[None], help="such as 50,200,1500,all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ablate", action="store_true", help="also without, and with only, each")
    parser.add_argument("--leave", choices=["fold", "dataset", "category"], default="fold")
    parser.add_argument("--only", nargs="+", default=[], help="these ways alone, by name")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(argv)


def _budgets(text: str) -> list[int | None]:
    return [None if each == "all" else int(each) for each in text.split(",")]


def _ways(arguments: argparse.Namespace) -> dict[str, Way]:
    every = BASELINES | OURS | (ABLATIONS if arguments.ablate else {})
    return {name: every[name] for name in arguments.only} if arguments.only else every


def _rows(
    task: PairTask, table: LearnTable, budget: int | None, arguments: argparse.Namespace
) -> list[Row]:
    ranks: dict[str, list[Floats]] = {}
    spent: dict[str, float] = {}
    for name, way in _ways(arguments).items():
        began = time.process_time()
        told = f"{task.name}, {'all' if budget is None else budget} labels, {name}"
        ranks[name] = [
            _crossfitted(way, table, budget, seed, arguments.leave)
            for seed in track(range(arguments.seeds), told, console=Console(stderr=True))
        ]
        spent[name] = time.process_time() - began
    names = list(ranks)
    rival = names.index(AGAINST) if AGAINST in ranks else None
    small, large = table.score.T
    figures = intervals(small, large, list(ranks.values()), rival)
    return [
        _row(task, name, budget, arguments.leave, spent[name], found,
             [pair_curve(small, large, rank) for rank in ranks[name]])
        for name, found in zip(names, figures, strict=True)
    ]  # fmt: skip


def _crossfitted(way: Way, table: LearnTable, budget: int | None, seed: int, leave: str) -> Floats:
    """Return each row's rank by a router that never saw it, nor its fold, dataset or category."""
    rank = np.empty(len(table))
    for number, (rest, out) in enumerate(held_out(table, leave, seed)):
        train = labelled(table.subset(rest), budget, 100 * seed + number)
        is_blank = bool(np.isnan(train.score).all())
        is_told = way is BASELINES["oracle"] or not is_blank
        rank[out] = way(train, table.subset(out)) if is_told else 0.0
    if not rank.any():  # no labels, nothing learnt: a coin decides
        rank = np.random.default_rng(seed).random(len(table))
    return rank


def held_out(table: LearnTable, leave: str, seed: int) -> Iterator[tuple[Rows, Rows]]:
    """Yield (rows to fit on, rows held out): five folds, or whole datasets or categories."""
    if leave == "fold":
        yield from table.folds(5, seed)
        return
    names = np.array([str(name) for name in (
        table.source if leave == "dataset" else table.categories
    )])  # fmt: skip
    groups = np.array(table.group)
    for name in sorted(set(names)):
        out = names == name
        # A question that stands in two of them is left out where its twin is held out.
        yield np.flatnonzero(~out & ~np.isin(groups, groups[out])), np.flatnonzero(out)


def _row(
    task: PairTask, name: str, budget: int | None, leave: str, spent: float,
    found: tuple[Interval, Interval | None], curves: Sequence[PairCurve],
) -> Row:  # fmt: skip
    return Row(
        task=task.name,
        way=name,
        labels=budget,
        leave=leave,
        apgr=found[0],
        against=found[1],
        cpt50=float(np.mean([curve.cpt(0.5) for curve in curves])),
        cpt80=float(np.mean([curve.cpt(0.8) for curve in curves])),
        seeds=tuple(curve.apgr for curve in curves),
        cpu_s=spent,
    )


def _print(rows: Sequence[Row], queries: int) -> None:
    first = rows[0]
    labels = "all" if first.labels is None else first.labels
    shown = Table(title=f"{first.task}: {queries} queries, {labels} labels, "
                        f"{len(first.seeds)} seeds, held out by {first.leave}")  # fmt: skip
    for heading in ("way", "APGR", f"against {AGAINST}", "CPT50", "CPT80", "CPU s"):
        shown.add_column(heading, justify="left" if heading == "way" else "right")
    for row in rows:
        against = "" if row.against is None else f"{row.against:+.3f}".replace("[", "\\[")
        shown.add_row(row.way, f"{row.apgr:.3f}".replace("[", "\\["), against,
                      f"{row.cpt50:.1%}", f"{row.cpt80:.1%}", f"{row.cpu_s:.0f}")  # fmt: skip
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120).print(shown)
