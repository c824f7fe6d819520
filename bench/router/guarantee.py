"""How often a certified floor is broken, and how many reference calls it takes.

    python -m bench.router guarantee --pool mmlu-pro-pair --data ../shared/data

The cascade and the order of its operating points are learnt on train. Calibration draws are
taken from dev with replacement, so that dev's own share of losses is the truth that the
certified point is held against. *Naive* takes the last point whose share in the draw meets
the floor, without a bound. The goal is what a point saves: dollars, as a gateway does, or
reference calls alone, where any other call costs a thousandth of one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.router.pool import POOLS, dev_records, learnt_on, pool_tables
from router.guarantee import Floor, walk
from router.targets import path_of
from router.train import Trained
from router.value_fit import Records, fit_value, simulate

COLUMNS = ("goal", "floor", "draw of", "way", "broken", "reference calls", "cost", "certified")
GOALS = ("dollars", "reference calls")


def main(argv: Sequence[str]) -> int:
    """Print the table. Returns the exit status."""
    arguments = _arguments(argv)
    taught, asked_table, prices = pool_tables(
        arguments.data, POOLS[arguments.pool], limit=arguments.limit
    )
    trained = learnt_on(taught, prices, ())
    asked = dev_records(trained, asked_table)
    rows = [
        row
        for goal in GOALS
        for most in arguments.floors
        for row in _rows(goal, Floor(most), trained, asked, arguments.counts, arguments.draws)
    ]
    if arguments.json:
        print(json.dumps([dict(zip(COLUMNS, row, strict=True)) for row in rows], indent=1))
        return 0
    table = Table()
    for name in COLUMNS:
        table.add_column(name)
    for row in rows:
        table.add_row(*row)
    print(f"pool {arguments.pool}: {len(trained.records)} train, {len(asked)} dev queries, "
          f"{arguments.draws} draws")  # fmt: skip
    Console(width=140).print(table)
    return 0


def _rows(
    goal: str, floor: Floor, trained: Trained, asked: Records, counts: Sequence[int], draws: int
) -> Iterator[tuple[str, ...]]:
    beliefs, value = trained.learnt.beliefs, trained.learnt.values["floor"]
    known, held = trained.records, asked
    if goal == "reference calls":
        known, held = _by_calls(known), _by_calls(asked)
        value = fit_value(known, beliefs, objective="floor", depth=value.depth)
    path = path_of(floor, value, beliefs, known)
    runs = [simulate(value, beliefs, held, rate) for rate in path]
    losses = np.stack([asked.is_worse(run.served) for run in runs])
    reference = asked.lineup.reference
    calls = np.array([run.called[:, reference].mean() for run in runs])
    usd = np.array([(run.called * asked.paid).sum() for run in runs])
    usd /= asked.paid[:, reference].sum()
    for count in counts:
        for way in ("naive", "learn then test"):
            chosen = _chosen(losses, count, floor, way, draws)
            told = _told(chosen, losses, calls, usd, floor.max_loss)
            yield goal, f"{floor.max_loss:.0%}", str(count), way, *told


def _by_calls(records: Records) -> Records:
    usd = np.full_like(records.usd, 0.001)
    usd[:, records.lineup.reference] = 1.0
    return replace(records, usd=usd, paid=usd)


def _chosen(
    losses: NDArray[Any], count: int, floor: Floor, way: str, draws: int
) -> list[int | None]:
    draw = np.random.default_rng(7)
    found: list[int | None] = []
    for _ in range(draws):
        rows = draw.choice(losses.shape[1], count)
        seen = losses[:, rows].sum(axis=1)
        if way == "naive":
            held = np.flatnonzero(seen / len(rows) <= floor.max_loss)
            found.append(int(held[-1]) if len(held) else None)
        else:
            certified = walk([int(each) for each in seen], len(rows), floor).chosen
            found.append(None if certified is None else certified.point)
    return found


def _told(
    chosen: list[int | None],
    losses: NDArray[Any],
    calls: NDArray[Any],
    usd: NDArray[Any],
    most: float,
) -> tuple[str, ...]:
    truth = losses.mean(axis=1)
    broken = np.mean([each is not None and truth[each] > most for each in chosen])
    asked = np.mean([1.0 if each is None else calls[each] for each in chosen])
    cost = np.mean([1.0 if each is None else usd[each] for each in chosen])
    certified = np.mean([each is not None for each in chosen])
    return f"{broken:.1%}", f"{asked:.1%}", f"{cost:.1%}", f"{certified:.0%}"


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.router guarantee", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder of the outcomes")
    parser.add_argument("--pool", choices=sorted(POOLS), default="mmlu-pro-pair")
    parser.add_argument("--limit", type=int, help="learn from at most so many queries")
    parser.add_argument("--floors", type=float, nargs="+", default=[0.05, 0.02])
    parser.add_argument("--counts", type=int, nargs="+", default=[200, 500, 1000])
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(argv)
