"""Before generating: how well each model's quality is estimated from the prompt.

    python -m bench.router models --data ../shared/data --dataset mmlu_pro --models A B

Fitted on train, measured on dev: AUROC of "its answer is right", Brier and
calibration error, beside the Brier score of its mean score alone. Without
`--models`, the eight that the dataset has most replies of.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.router.sets import outcomes
from router.learn_table import LearnTable
from router.metrics import Interval, auroc, brier, calibration_error, interval
from router.quality.model import QualityModel


@dataclass(frozen=True, slots=True)
class Row:
    """One model of one dataset."""

    dataset: str
    model: str
    mean: float
    auroc: Interval
    brier: float
    brier_of_mean: float
    calibration_error: float


def main(argv: Sequence[str] | None = None) -> int:
    """Fit, measure and print. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="bench.router models", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--data", type=Path, required=True, help="folder of datasets")
    parser.add_argument("--dataset", nargs="+", required=True)
    parser.add_argument("--models", nargs="+", help="these alone")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(argv)
    rows: list[Row] = []
    for name in arguments.dataset:
        table = outcomes(arguments.data, (name,), arguments.models)
        rows += _rows(name, table if arguments.models else _most_asked(table))
    if arguments.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        _print(rows)
    return 0


def _most_asked(table: LearnTable, count: int = 8) -> LearnTable:
    asked = (~np.isnan(table.score)).sum(axis=0)
    chosen = sorted(np.argsort(-asked, kind="stable")[:count])
    return table.of_models([table.models[at] for at in chosen])


def _rows(dataset: str, table: LearnTable) -> list[Row]:
    train, dev = table.of_split("train"), table.of_split("dev")
    found = QualityModel.fit(train, bare=False).estimate(dev.without_categories().queries)
    return [
        _row(dataset, name, float(np.nanmean(train.score[:, at])), found.quality[:, at],
             dev.score[:, at])
        for at, name in enumerate(table.models)
    ]  # fmt: skip


def _row(
    dataset: str, model: str, mean: float,
    estimate: np.ndarray[tuple[int], np.dtype[np.float64]],
    score: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> Row:  # fmt: skip
    known = ~np.isnan(score)
    p, y = estimate[known], score[known]
    return Row(
        dataset=dataset,
        model=model,
        mean=float(y.mean()),
        auroc=interval(lambda rows: auroc(p[rows], y[rows] > 0.5), len(y), resamples=300),
        brier=brier(p, y),
        brier_of_mean=brier(np.full(len(y), mean), y),
        calibration_error=calibration_error(p, y),
    )


def _print(rows: Sequence[Row]) -> None:
    shown = Table(title="estimated before generating; fitted on train, measured on dev")
    for heading in ("dataset", "model", "mean score", "AUROC", "Brier", "of the mean", "ECE"):
        is_text = heading in ("dataset", "model")
        shown.add_column(heading, justify="left" if is_text else "right")
    for row in rows:
        shown.add_row(row.dataset, row.model, f"{row.mean:.3f}",
                      f"{row.auroc:.3f}".replace("[", "\\["), f"{row.brier:.4f}",
                      f"{row.brier_of_mean:.4f}", f"{row.calibration_error:.3f}")  # fmt: skip
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 130).print(shown)
