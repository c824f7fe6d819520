"""Whether what a bundle foretells of replies comes true: a diagram and figures for each model.

    python -m bench.router reliability --bundle BUNDLE --data ../shared/data/zeroeval_crux \
        --split dev --out docs/images/reliability.svg

The bundle is one of `frugal train`; nothing is trained here. Each model's replies are judged
beside those of the other models to the same query, as `frugal predict` does it. `chance` is the
95th percentile of the calibration error that a predictor without any error would show on as many
replies with the same predictions, by simulation.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.router.svg import Dot, Panel, reliability
from gateway.learning.quality_report import wilson
from router.bundled import load_learnt
from router.evaluate import foretell
from router.learn_table import LearnTable
from router.metrics import auroc, brier, calibration_error
from router.train import complete_rows

Floats = NDArray[np.float64]
_BINS = 10
_DRAWS = 1000


def main(argv: Sequence[str]) -> int:
    """Draw and print. Returns the exit status."""
    asked = _arguments(argv)
    bundled = load_learnt(asked.bundle)
    models = bundled.learnt.models
    table = LearnTable.from_outcomes(asked.data, models=models, split=asked.split, replies=True)
    table = table.subset(complete_rows(table))
    rows = foretell(bundled.learnt, bundled.operating, table, {})
    known = np.array([
        np.nan if row["quality_after"] is None else row["quality_after"] for row in rows
    ]).reshape(len(table), len(models))  # fmt: skip
    names = ", ".join(path.name for path in asked.data)
    print(f"{len(table)} queries of {names}, bundle {bundled.id}")
    print(f"{'model':32} replies  AUROC  Brier    ECE  chance")
    panels = []
    for place, name in enumerate(models):
        told = ~np.isnan(known[:, place])
        if told.any():
            panels.append(_panel(name, known[told, place], table.score[told, place]))
    asked.out.write_text(reliability(panels), encoding="utf-8")
    print(f"drawn in {asked.out}")
    return 0


def _panel(name: str, foretold: Floats, score: Floats) -> Panel:
    error, chance = calibration_error(foretold, score), by_chance(foretold)
    sharp, off = auroc(foretold, score > 0.5), brier(foretold, score)
    print(f"{name:32} {len(score):7d}  {sharp:.3f}  {off:.3f}  {error:.3f}   {chance:.3f}")
    note = f"AUROC {sharp:.3f}, ECE {error:.3f} (chance {chance:.3f})"
    return Panel(name, dots(foretold, score), note)


def by_chance(foretold: Floats, *, draws: int = _DRAWS, seed: int = 0) -> float:
    """Return the 95th percentile of the calibration error where every prediction is right."""
    chance = np.random.default_rng(seed)
    found = [
        calibration_error(foretold, (chance.random(len(foretold)) < foretold).astype(float))
        for _ in range(draws)
    ]
    return float(np.quantile(found, 0.95))


def dots(foretold: Floats, score: Floats, *, bins: int = _BINS) -> list[Dot]:
    """Return one dot for each of `bins` equal parts of the replies, with a 95 % interval."""
    parts = np.array_split(np.argsort(foretold, kind="stable"), min(bins, len(score)))
    found = []
    for part in parts:
        right = float(score[part].sum())
        low, high = wilson(round(right), len(part))
        found.append(Dot(float(foretold[part].mean()), right / len(part), low, high))
    return found


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.router reliability",
                                     description=(__doc__ or "").splitlines()[0])  # fmt: skip
    parser.add_argument("--bundle", type=Path, required=True, help="a folder of frugal train")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="outcomes tables")
    parser.add_argument("--split", help="read only this split, such as dev")
    parser.add_argument("--out", type=Path, required=True, help="the .svg to write")
    return parser.parse_args(argv)
