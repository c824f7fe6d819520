"""Learning a route's cascade from outcomes: every part, its records, its operating point.

All that a decision is learnt or solved on is cross-fitted: estimated by parts that did
not see the request. What a certificate stands on is kept apart from all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from router.beliefs import DEEPEST, Beliefs
from router.correctness import AnswerScorer, HeldOut, fit_scorer
from router.costs import CostModel, Price
from router.drafts import Drafts
from router.early import fit_beginnings, halves_of, lowest_of, threshold_of
from router.guarantee import Certified, share_of_look
from router.learn_table import LearnTable
from router.learnt import Learnt, Operating
from router.quality.model import QualityModel
from router.query import content_key
from router.reply import Reply
from router.targets import (
    Mix,
    PriceOfQuality,
    QualityLoss,
    Spend,
    Target,
    certify,
    mix_for_spend,
    path_of,
    rate_of_price,
)
from router.types import RouterError
from router.value import Lineup
from router.value_fit import Records, fit_value, simulate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Rows = NDArray[np.intp]

FOLDS = 5
FEWEST = 50
"""Complete requests below which a cascade is not learnt: the cold start does better."""

MOST_JUDGED = 5
"""Tiers whose drafts are judged: the sets of drafts that may have been seen grow fast."""

MOST_HEARD = 8
"""Up to so many tiers, all replies are read; of more, only those of tiers to be judged."""

Advance = Callable[[str, float], None]


class TrainingError(RouterError):
    """Outcomes that no cascade can be learnt from; says what is missing."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be learnt: the route's tiers in their order, and what it is to achieve.

    `reference` is the model that quality is measured against. A floor's certificate is
    made on `held_out` of the requests, which nothing else sees. `without` names families
    of a reply's features to leave out, for ablations.
    """

    tiers: tuple[str, ...]
    reference: str
    target: Target
    prices: Mapping[str, Price]
    route: str | None = None
    held_out: float = 0.3
    depth: int = DEEPEST
    seed: int = 0
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse tasks that name the reference nowhere. Raises TrainingError."""
        if len(self.tiers) < 2 or self.reference not in self.tiers:
            raise TrainingError(
                "expected two tiers at least and the reference among them, found "
                f"{', '.join(self.tiers) or 'none'} and {self.reference!r}; a cascade is learnt "
                "from what two models at least replied to the same requests"
            )
        if len(set(self.tiers)) < len(self.tiers):
            raise TrainingError(f"expected each tier once, found {', '.join(self.tiers)}")


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of it. `records` are those the decision was learnt on, by `table`'s rows."""

    learnt: Learnt
    operating: Operating
    certified: Certified | None
    path: tuple[float, ...]
    records: Records
    rows: Rows
    calibration: Records | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


def train(table: LearnTable, task: Task, advance: Advance | None = None) -> Trained:
    """Learn everything from a table that was read with `replies=True`.

    Raises TrainingError where too few requests were answered by every tier.
    """
    tell = advance or (lambda what, share: None)
    table = table.of_models(task.tiers)
    rows = complete_rows(table)
    if len(rows) < FEWEST:
        raise TrainingError(
            f"expected at least {FEWEST} requests with a score for each of "
            f"{', '.join(task.tiers)}, found {len(rows)}; until then the cold start decides"
        )
    table = table.subset(rows)
    _check_variety(table)
    taught, kept = _split(table, task)
    learnt, records = _learn(table.subset(taught), task, tell)
    calibration = None
    if len(kept):
        tell("certificate", 0.0)
        apart = table.subset(kept)
        calibration = records_at(learnt, apart, Drafts.read(apart))
    operating, certified, path = _operate(task, learnt, records, calibration)
    if operating.mix is not None:
        rows_apart = halves_of(len(taught))[1]
        apart = table.subset(taught[rows_apart])
        early = early_at(learnt, operating, apart, records.take(rows_apart))
        operating = replace(operating, early=early)
    counts = {"requests": len(table), "learnt from": len(taught), "kept apart": len(kept)}
    return Trained(learnt, operating, certified, path, records, rows[taught], calibration, counts)


def _check_variety(table: LearnTable) -> None:
    """Refuse requests that are all alike, and those without replies. Raises TrainingError."""
    different = len({content_key(query.text) for query in table.queries})
    if different < 2 * FOLDS:
        raise TrainingError(
            f"expected at least {2 * FOLDS} different prompts, found {different} in {len(table)} "
            "requests: what one prompt teaches cannot be tested on another; gather more"
        )
    places = range(len(table.models))
    if not any(_has_reply(table, row, place) for row in range(len(table)) for place in places):
        raise TrainingError(
            "expected replies (column `response`) in some rows, found none: drafts are judged by "
            "what is learnt of them; add the texts, or set privacy.store_texts for a ledger's"
        )


def complete_rows(table: LearnTable) -> Rows:
    """Return the requests for which every model has a score."""
    return np.flatnonzero(~np.isnan(table.score).any(axis=1))


def _split(table: LearnTable, task: Task) -> tuple[Rows, Rows]:
    """Keep requests apart for a certificate, whole groups of near-duplicates at a time."""
    if not isinstance(task.target, QualityLoss) or task.held_out <= 0.0:
        return np.arange(len(table)), np.zeros(0, np.intp)
    parts = 20
    fold = table.fold_of(parts, task.seed + 1)
    kept = fold < round(parts * task.held_out)
    return np.flatnonzero(~kept), np.flatnonzero(kept)


def _learn(table: LearnTable, task: Task, tell: Advance) -> tuple[Learnt, Records]:
    fold = table.fold_of(FOLDS, task.seed)
    tell("estimates before generating", 0.0)
    first = np.empty(table.score.shape)
    for each in range(FOLDS):
        inside, outside = np.flatnonzero(fold != each), np.flatnonzero(fold == each)
        model = QualityModel.fit(table.subset(inside), seed=task.seed, bare=not _has_vectors(table))
        first[outside] = model.estimate([table.queries[int(row)] for row in outside]).quality
        tell("estimates before generating", (each + 1) / (FOLDS + 1))
    quality = QualityModel.fit(table, seed=task.seed)
    costs = CostModel.fit(table)
    tell("reading replies", 0.0)
    read = 0

    def count() -> None:
        nonlocal read
        read += 1
        if read % 50 == 0:
            tell("reading replies", read / len(table))

    heard = _heard(table, task)
    drafts = Drafts.read(
        table, shorten=lambda row, model, text: len(text) if model in heard else 0, advance=count
    )
    step = 0

    def count_fit() -> None:
        nonlocal step
        step += 1
        tell("confidence after generating", step / (2 * (FOLDS + 1)))

    scorer, held = fit_scorer(
        drafts,
        table.score,
        first,
        _routes(table),
        fold,
        without=task.without,
        advance=count_fit,
        seed=task.seed,
    )
    lineup = _lineup(task, drafts, table)
    tell("decision", 0.0)
    records = records_of(lineup, task.depth, first, held, drafts, table, costs, task.prices)
    beliefs = Beliefs.fit(first, records.states(), table.score, lineup.reference, records.tolerance)
    values = {}
    for objective in ("quality", "floor"):
        values[objective] = fit_value(records, beliefs, objective=objective, depth=task.depth)
        tell("decision", 0.5 if objective == "quality" else 1.0)
    tell("beginnings of drafts", 0.0)
    rows = halves_of(len(table))[0]
    routes = _routes(table.subset(rows))
    beginnings = fit_beginnings(
        table.subset(rows), first[rows], routes, lineup.judged, seed=task.seed
    )
    tell("beginnings of drafts", 1.0)
    return Learnt(quality, costs, scorer, beliefs, values, task.prices, beginnings), records


def _has_vectors(table: LearnTable) -> bool:
    return all(query.vector is not None for query in table.queries)


def _routes(table: LearnTable) -> Sequence[str | None]:
    return [query.category for query in table.queries]


def _heard(table: LearnTable, task: Task) -> frozenset[int]:
    """Return the models whose replies are read: all of a few, those worth judging of many."""
    places = range(len(task.tiers))
    if len(places) <= MOST_HEARD:
        return frozenset(places)
    some = range(0, len(table), max(1, len(table) // 50))
    told = [p for p in places if all(_has_reply(table, row, p) for row in some)]
    return frozenset(worth_judging(told, table, task.prices, task.tiers.index(task.reference)))


def worth_judging(
    told: Sequence[int], table: LearnTable, prices: Mapping[str, Price], reference: int
) -> list[int]:
    """Return whose drafts are to be judged: those that save most.

    A draft that is right saves the reference's price, and costs its own whatever it is.
    """
    usd = np.array(_mean_usd(table, prices))
    right = table.score.mean(axis=0)
    price = usd[reference] if np.isfinite(usd[reference]) else 0.0
    order = sorted((p for p in told if p != reference), key=lambda p: usd[p] - right[p] * price)
    return order[:MOST_JUDGED]


def _has_reply(table: LearnTable, row: int, model: int) -> bool:
    cell = table.cell(row, model)
    return cell is not None and Reply.of_outcome(cell) is not None


def _lineup(task: Task, drafts: Drafts, table: LearnTable) -> Lineup:
    """Judge the tiers worth it whose replies are there to learn judging from."""
    told = np.flatnonzero(drafts.present.mean(axis=0) > 0.99)
    reference = task.tiers.index(task.reference)
    judged = worth_judging([int(place) for place in told], table, task.prices, reference)
    return Lineup(task.tiers, reference, frozenset(judged))


def records_of(
    lineup: Lineup,
    depth: int,
    first: Floats,
    scorer: AnswerScorer | HeldOut,
    drafts: Drafts,
    table: LearnTable,
    costs: CostModel,
    prices: Mapping[str, Price],
) -> Records:
    """Return records of a table's requests, by the parts that are handed in."""
    routes = _routes(table)
    judged = {}
    for calls in lineup.courses(depth):
        found = scorer.quality(drafts, first, calls, routes) if calls else np.zeros((len(table), 0))
        # A reply that is not there is one that cannot be served.
        judged[calls] = np.nan_to_num(found, nan=0.0)
    usd = costs.estimate(table.queries, prices).usd
    paid = _paid(table, prices)
    return Records(lineup, first, judged, usd, table.score, np.where(np.isnan(paid), usd, paid))


def _mean_usd(table: LearnTable, prices: Mapping[str, Price]) -> list[float]:
    """Return what each model's reply cost on average; infinity where nothing was counted."""
    return [
        float(known.mean()) if len(known := column[~np.isnan(column)]) else float("inf")
        for column in _paid(table, prices).T
    ]


def _paid(table: LearnTable, prices: Mapping[str, Price]) -> Floats:
    """Return what each reply cost: as logged, else by its tokens; NaN where neither is known."""
    listed = [prices[name] for name in table.models]
    counted = table.prompt_tokens * [price.input for price in listed]
    counted = (counted + table.completion_tokens * [price.output for price in listed]) / 1e6
    return np.where(np.isnan(table.cost_usd), counted, table.cost_usd)


def records_at(learnt: Learnt, table: LearnTable, drafts: Drafts) -> Records:
    """Return the records of requests that no part has seen, by the finished parts.

    `table` has the line-up's models in their order, and was read with `replies=True`.
    """
    value = next(iter(learnt.values.values()))
    first = learnt.quality.estimate(table.queries).quality
    return records_of(
        value.lineup, value.depth, first, learnt.scorer, drafts, table, learnt.costs, learnt.prices
    )


def early_at(
    learnt: Learnt, operating: Operating, table: LearnTable, records: Records
) -> float | None:
    """Return below what score a beginning may be given up, certified on these requests.

    None of them may have taught what judges beginnings; `records` are theirs.
    """
    if learnt.beginnings is None or operating.mix is None:
        return None
    value = learnt.values[operating.objective]
    judged = value.lineup.judged
    run = simulate(value, learnt.beliefs, records, operating.mix.rate)
    lowest = lowest_of(learnt.beginnings, table, records.first, _routes(table), judged)
    return threshold_of(lowest, run.served, judged)


def _operate(
    task: Task, learnt: Learnt, records: Records, calibration: Records | None
) -> tuple[Operating, Certified | None, tuple[float, ...]]:
    target, beliefs = task.target, learnt.beliefs
    if isinstance(target, QualityLoss):
        value = learnt.values["floor"]
        path = path_of(target.floor, value, beliefs, records)
        if calibration is None:
            return Operating("floor", None, target.floor), None, path
        # The first of all the looks that may follow, of which each spends its share.
        error = share_of_look(target.floor.error, 1)
        rate, certified = certify(target.floor, value, beliefs, path, calibration, error=error)
        mix = None if rate is None else Mix(rate, rate)
        return Operating("floor", mix, target.floor), certified, path
    value = learnt.values["quality"]
    if isinstance(target, Spend):
        mix = mix_for_spend(target, value, beliefs, records)
        return Operating("quality", mix, solved_for=target), None, ()
    assert isinstance(target, PriceOfQuality)
    rate = rate_of_price(target, value)
    return Operating("quality", Mix(rate, rate), solved_for=target), None, ()
