"""How well drafts are judged after they were written: the figures of the answer scorer.

    python -m bench.router_post zeroeval          # Llama-8B beside Qwen2-7B, against Sonnet
    python -m bench.router_post gsm8k             # RouteLLM's pair
    python -m bench.router_post mmlu_pro          # Llama-8B against Gemini-1.5-pro
    python -m bench.router_post within zeroeval   # AUROC within one model and set, averaged
    python -m bench.router_post prefix            # the same on drafts cut off early
    python -m bench.router_post speed             # CPU time of one judgement
    python -m bench.router_post zeroeval --without examples   # an ablation
    python -m bench.router_post zeroeval --labels 0,50,200,1500,all --json
    python -m bench.router_post zeroeval --leave              # each set held out as a whole

Pair rows come from five-fold cross-fitting over train and dev, grouped by
question; intervals are paired bootstraps over questions. With few labels only so many
questions of a training fold are scored; with none, drafts are told apart by their own
signs, as a cold start does. The first stage here
is a plain one (a tf-idf logistic regression for each model on the prompt and
its category), so that these figures need no other part of the router.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.router.pairs import held_out
from router.calibration import error_by_chance
from router.correctness import FAMILIES, AnswerScorer, fit_scorer
from router.drafts import Drafts, Shorten, cut_at, read_draft
from router.learn_table import LearnTable
from router.linear import sigmoid
from router.metrics import Interval, apgr, auroc, brier, calibration_error, interval
from router.quality.model import QualityModel
from router.reading import read_question
from router.reply import Reply
from router.signs import Checked
from router.types import Draft
from router.words import Words, bag_of

DATA = Path(__file__).parents[2] / "shared" / "data"
ZEROEVAL = ("zeroeval_gsm8k", "zeroeval_math_l5", "zeroeval_crux")
SMALL = (
    "Meta-Llama-3.1-8B-Instruct", "Qwen2-7B-Instruct", "gemma-2-2b-it", "gemma-2-9b-it",
    "Phi-3.5-mini-instruct", "Meta-Llama-3-8B-Instruct", "gpt-4o-mini-2024-07-18",
)  # fmt: skip
PREFIXES = (200, 400, 800)
Floats = NDArray[np.float64]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Pair:
    """A set of questions, the draft's model, the one asked beside it, and the one above."""

    sets: tuple[str, ...]
    models: tuple[str, ...]
    small: str
    beside: str | None
    large: str
    judged: tuple[str, ...]


PAIRS = {
    "zeroeval": Pair(
        ZEROEVAL, (*SMALL, "claude-3-5-sonnet-20240620"), SMALL[0], SMALL[1],
        "claude-3-5-sonnet-20240620", SMALL,
    ),
    "gsm8k": Pair(
        ("routellm_gsm8k",), ("mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"),
        "mistralai/Mixtral-8x7B-Instruct-v0.1", None, "gpt-4-1106-preview",
        ("mistralai/Mixtral-8x7B-Instruct-v0.1",),
    ),
    "mmlu_pro": Pair(
        ("mmlu_pro",),
        ("Meta-Llama-3_1-8B-Instruct", "Phi-3-mini-4k-instruct", "mathstral-7B",
         "gemini-1.5-pro-002"),
        "Meta-Llama-3_1-8B-Instruct", "Phi-3-mini-4k-instruct", "gemini-1.5-pro-002",
        ("Meta-Llama-3_1-8B-Instruct", "Phi-3-mini-4k-instruct", "mathstral-7B"),
    ),
}  # fmt: skip


def first_stage(table: LearnTable, taught: Rows, asked: Rows) -> Floats:
    """Estimate every model on the asked rows from the prompts of the taught ones."""
    bags = [bag_of(f"{q.text} {q.category}", "", "") for q in table.queries]
    found = np.full((len(asked), len(table.models)), np.nan)
    for model in range(len(table.models)):
        known = [int(row) for row in taught if not np.isnan(table.score[row, model])]
        words = Words.fit([bags[row] for row in known], table.score[known, model])
        found[:, model] = sigmoid(words([bags[int(row)] for row in asked]))
    return found


def some(drafts: Drafts, rows: Rows) -> Drafts:
    """Return the drafts of these rows."""
    return Drafts(
        drafts.models, drafts.features[rows], drafts.present[rows], drafts.agree[rows],
        [drafts.bags[int(row)] for row in rows],
    )  # fmt: skip


def taught(
    table: LearnTable, drafts: Drafts, rows: Rows, judged: Sequence[str], without: Sequence[str]
) -> AnswerScorer:
    """Fit a scorer on these rows alone, the first stage cross-fitted within them."""
    part = table.subset(rows)
    fold = part.fold_of(4, seed=1)
    estimates = np.full(part.score.shape, np.nan)
    for each in range(4):
        inside, outside = np.flatnonzero(fold != each), np.flatnonzero(fold == each)
        estimates[outside] = first_stage(part, inside, outside)
    at = [table.models.index(name) for name in judged]
    scorer, _ = fit_scorer(
        some(drafts, rows), part.score, estimates, part.categories, fold,
        judged=at, without=without,
    )  # fmt: skip
    return scorer


@dataclass(frozen=True, slots=True)
class Row:
    """How one pair's drafts were judged; `chance` is the calibration error of a perfect judge."""

    pair: str
    judged: str
    labels: int | None
    leave: str
    auroc: Interval
    brier: Interval
    ece: float
    chance: float
    by_confidence: Interval
    by_gain: Interval
    by_gain_of_50: Interval


def judged_pair(
    name: str, data: Path, labels: int | None, leave: str, without: Sequence[str], seed: int
) -> Iterator[Row]:
    """Yield the figures of one pair, drafts alone and beside another cheap model's."""
    pair = PAIRS[name]
    table = LearnTable.from_outcomes(
        [data / each for each in pair.sets], models=pair.models, replies=True
    )
    place = {each: at for at, each in enumerate(pair.models)}
    small, large = place[pair.small], place[pair.large]
    table = table.subset(~np.isnan(table.score[:, [small, large]]).any(axis=1))
    drafts = Drafts.read(table)
    settings = {"alone": [small]}
    if pair.beside is not None and labels != 0:
        settings[f"beside {pair.beside}"] = [small, place[pair.beside]]
    found = {each: np.full(len(table), np.nan) for each in settings}
    before = np.full(table.score.shape, 0.5)
    for number, (inside, outside) in enumerate(held_out(table, leave, seed)):
        if labels == 0:
            found["alone"][outside] = [_by_signs(table, int(row), small) for row in outside]
            continue
        inside = np.random.default_rng((seed, number)).permutation(inside)[:labels]
        scorer = taught(table, drafts, inside, pair.judged, without)
        before[outside] = first_stage(table, inside, outside)
        names = [table.categories[int(row)] for row in outside]
        for setting, calls in settings.items():
            ask = (some(drafts, outside), before[outside], calls, names)
            found[setting][outside] = scorer.quality(*ask)[:, 0]
    one, other = table.score[:, small], table.score[:, large]
    above = before[:, large]
    if labels != 0:
        yield _row(name, "before generating", labels, leave, before[:, small], above, one, other)
    for setting, quality in found.items():
        yield _row(name, setting, labels, leave, quality, above, one, other)


def _by_signs(table: LearnTable, row: int, model: int) -> float:
    cell = table.cell(row, model)
    text = (cell.response if cell else None) or ""
    return Checked(table.queries[row]).signs(Draft(table.models[model], text, "stop")).raw


def _row(
    pair: str, judged: str, labels: int | None, leave: str,
    quality: Floats, above: Floats, one: Floats, other: Floats,
) -> Row:  # fmt: skip
    def figure(of: Callable[[Rows], float]) -> Interval:
        return interval(of, len(one), resamples=300)

    gain = above - quality
    return Row(
        pair, judged, labels, leave,
        auroc=figure(lambda at: auroc(quality[at], one[at] > 0.5)),
        brier=figure(lambda at: brier(quality[at], one[at])),
        ece=calibration_error(quality, one),
        chance=error_by_chance(quality),
        by_confidence=figure(lambda at: apgr(one[at], other[at], -quality[at])),
        by_gain=figure(lambda at: apgr(one[at], other[at], gain[at])),
        by_gain_of_50=figure(lambda at: apgr(one[at], other[at], gain[at], points=50)),
    )  # fmt: skip


def told(row: Row) -> None:
    """Print one row of figures with intervals."""
    labels = "all" if row.labels is None else row.labels
    print(f"{row.pair}, {row.judged}, {labels} labels, held out by {row.leave}")
    for name, found in (
        ("AUROC", row.auroc), ("Brier", row.brier), ("APGR by confidence", row.by_confidence),
        ("APGR by gain", row.by_gain), ("APGR by gain, J=50", row.by_gain_of_50),
    ):  # fmt: skip
        print(f"  {name:<22}{found:.3f}")
    print(f"  {'ECE':<22}{row.ece:.4f} (95 % of perfectly calibrated ones stay below "
          f"{row.chance:.4f})")  # fmt: skip


def estimated(table: LearnTable, inside: Rows, outside: Rows) -> tuple[Floats, Rows]:
    """Return the router's own estimates of every row by rows it is not among, and inside's folds.

    No query that is estimated tells its category.
    """
    train = table.subset(inside)
    fold = train.fold_of(3, seed=1)
    found = np.full(table.score.shape, np.nan)
    parts = [(np.flatnonzero(fold != each), inside[fold == each]) for each in range(3)]
    for known, asked in (*parts, (np.arange(len(train)), outside)):
        model = QualityModel.fit(train.subset(known))
        found[asked] = model.estimate(table.subset(asked).without_categories().queries).quality
    return found, fold


def replied(table: LearnTable) -> LearnTable:
    """Return the table of the models whose replies were kept."""

    def has(model: int) -> bool:
        cells = (table.cell(row, model) for row in range(len(table)))
        return any(cell is not None and cell.response is not None for cell in cells)

    return table.of_models([name for at, name in enumerate(table.models) if has(at)])


def within(
    which: str, data: Path, without: Sequence[str], beside: str, shorten: Shorten | None = None
) -> None:
    """Print AUROC within one model and set, averaged over both: fitted on train, asked on dev."""
    sets = ZEROEVAL if which == "zeroeval" else ("mmlu_pro",)
    table = replied(LearnTable.from_outcomes([data / name for name in sets], replies=True))
    if beside not in table.models:
        raise SystemExit(f"--beside: expected one of {', '.join(table.models)}, found {beside!r}")
    drafts = Drafts.read(table, shorten=shorten)
    train = np.array([split == "train" for split in table.split])
    inside, outside = np.flatnonzero(train), np.flatnonzero(~train)
    estimates, fold = estimated(table, inside, outside)
    scorer, _ = fit_scorer(
        some(drafts, inside), table.score[inside], estimates[inside],
        [table.source[int(row)] for row in inside], fold, without=without,
    )  # fmt: skip
    test, asked = table.subset(outside), some(drafts, outside)
    other = table.models.index(beside)
    known = estimates[outside]

    def judged(*calls: int) -> Floats:
        return scorer.quality(asked, known, calls, test.source)[:, 0]

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
    drafts = Drafts.read(table)
    scorer = taught(table, drafts, np.arange(len(table)), pair.judged, ())
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


def main() -> None:
    """Run one of the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", choices=[*PAIRS, "within", "prefix", "speed"])
    parser.add_argument("which", nargs="?", default="zeroeval", choices=["zeroeval", "mmlu_pro"])
    parser.add_argument("--without", nargs="*", default=[], choices=list(FAMILIES))
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the outcomes tables")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--labels", default="all", help="such as 0,50,200,1500,all")
    parser.add_argument("--leave", action="store_const", const="dataset", default="fold")
    parser.add_argument("--beside", help="within: whose draft is there, too")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if asked.table in PAIRS:
        budgets = [None if each == "all" else int(each) for each in asked.labels.split(",")]
        rows = [
            row
            for labels in budgets
            for row in judged_pair(
                asked.table, asked.data, labels, asked.leave, asked.without, asked.seed
            )
        ]
        if asked.json:
            print(json.dumps([asdict(row) for row in rows], indent=1))
        else:
            for row in rows:
                told(row)
    elif asked.table == "speed":
        speed(asked.data)
    else:
        cut = cut_at(PREFIXES) if asked.table == "prefix" else None
        beside = asked.beside or PAIRS[asked.which].beside
        within(asked.which, asked.data, asked.without, beside or "", cut)


if __name__ == "__main__":
    main()
