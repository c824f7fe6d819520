"""How well drafts are told apart within one model and set, and what judging one costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.router.after import PAIRS
from bench.router.crossfit import fitted, some
from router.drafts import Drafts, Shorten, read_draft
from router.learn_table import LearnTable
from router.metrics import auroc
from router.reading import read_question
from router.reply import Reply

Floats = NDArray[np.float64]


def within(
    which: str, data: Path, without: Sequence[str], beside: str, shorten: Shorten | None = None
) -> None:
    """Print AUROC within one model and set, averaged over both: fitted on train, asked on dev."""
    sets = PAIRS[which].sets
    table = replied(LearnTable.from_outcomes([data / name for name in sets], replies=True))
    if beside not in table.models:
        raise SystemExit(f"--beside: expected one of {', '.join(table.models)}, found {beside!r}")
    drafts = Drafts.read(table, shorten=shorten)
    train = np.array([split == "train" for split in table.split])
    inside, outside = np.flatnonzero(train), np.flatnonzero(~train)
    parts = fitted(table, drafts, inside, outside, without=tuple(without))
    test, asked = table.subset(outside), some(drafts, outside)
    other = table.models.index(beside)
    known = parts.first[outside]

    def judged(*calls: int) -> Floats:
        return parts.scorer.quality(asked, known, calls, test.source)[:, 0]

    settings: dict[str, Callable[[int], Floats]] = {
        "before generating": lambda model: known[:, model],
        "alone": judged,
        f"beside {beside}": lambda model: judged(model, other),
    }
    for setting, quality in settings.items():
        models = [at for at in range(len(table.models)) if at != other or setting == "alone"]
        found = {model: quality(model) for model in models}
        means = [_within_set(name, found, test, setting) for name in sets]
        print(f"{setting}: mean of the sets {np.mean(means):.3f}", flush=True)


def replied(table: LearnTable) -> LearnTable:
    """Return the table of the models whose replies were kept."""

    def has(model: int) -> bool:
        cells = (table.cell(row, model) for row in range(len(table)))
        return any(cell is not None and cell.response is not None for cell in cells)

    return table.of_models([name for at, name in enumerate(table.models) if has(at)])


def _within_set(name: str, found: dict[int, Floats], table: LearnTable, setting: str) -> float:
    """Print the mean of the models' AUROC in one set, and return it."""
    is_here = np.array([each == name for each in table.source])
    values = []
    for model, quality in found.items():
        rows = is_here & ~np.isnan(quality) & ~np.isnan(table.score[:, model])
        right = table.score[rows, model] > 0.5
        if rows.sum() > 50 and 0 < right.mean() < 1:
            values.append(auroc(quality[rows], right))
    mean = float(np.mean(values))
    print(f"{name}, {setting}: AUROC within one model {mean:.3f} over {len(values)} models")
    return mean


def speed(data: Path) -> None:
    """Print the CPU time of reading and judging one draft, and what of it is the judging."""
    pair = PAIRS["gsm8k"]
    table = LearnTable.from_outcomes(data / pair.sets[0], models=pair.models, replies=True)
    every = np.arange(len(table))
    scorer = fitted(table, Drafts.read(table), every, every, judged=[0]).scorer
    cells = [table.cell(row, 0) for row in range(300)]
    replies = [Reply.of_outcome(cell) for cell in cells if cell is not None]
    questions = [read_question(query.text) for query in table.queries[:300]]
    known = np.array([0.6, 0.8])
    spent, judging = [], []
    for question, reply in zip(questions, replies, strict=True):
        if reply is None:
            continue
        begin = time.process_time()
        draft = read_draft(question, reply, 0, pair.small)
        middle = time.process_time()
        scorer.judge([draft], known)
        end = time.process_time()
        spent.append(end - begin)
        judging.append(end - middle)
    for name, values in (("read and judge", spent), ("judge", judging)):
        middle, worst = np.quantile(values, [0.5, 0.99]) * 1e3
        print(f"{name}: CPU ms a draft, median {middle:.2f}, p99 {worst:.2f}")
