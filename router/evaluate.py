"""What a bundle is worth on outcomes it has not seen, and what it foretells of single prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from router.drafts import Drafts
from router.learn_table import LearnTable
from router.learnt import Learnt, Operating
from router.metrics import auroc, brier, calibration_error
from router.targets import PriceOfQuality, Spend
from router.train import records_at
from router.value import RATES
from router.value_fit import Records, Run, known_in, simulate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_DRAWS = 1000
_POINTS = 16


@dataclass(frozen=True, slots=True)
class Share:
    """A mean with its 95 % interval, by bootstrap over the queries."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Row:
    """One way of answering: its quality, its dollars a thousand requests, and what was lost.

    `gap` is its quality less the reference's, paired by query. `loss` is the share
    answered by another than the reference and worse.
    """

    way: str
    quality: Share
    usd_per_1k: float
    of_reference: float
    gap: Share
    loss: float
    reference_share: float
    calls: float


@dataclass(frozen=True, slots=True)
class ModelRow:
    """How well one model was foretold; NaN where its scores are all alike."""

    model: str
    mean_score: float
    usd_per_1k: float
    auroc_before: float
    auroc_after: float
    brier_after: float
    ece_after: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `frugal evaluate` prints. `left_out` requests had no score for every tier.

    `solved_for` is the target of money that the bundle's exchange rate was solved for.
    """

    count: int
    reference: str
    rows: Sequence[Row]
    models: Sequence[ModelRow]
    left_out: int = 0
    solved_for: Spend | PriceOfQuality | None = None


def evaluate(
    learnt: Learnt, operating: Operating, table: LearnTable, *, seed: int = 0
) -> Evaluation:
    """Measure a bundle on complete outcomes that were read with `replies=True`."""
    drafts = Drafts.read(table)
    records = records_at(learnt, table, drafts)
    lineup = records.lineup
    draw = np.random.default_rng(seed).integers(0, len(records), (_DRAWS, len(records)))
    rows = [
        _row(f"always {name}", _always(records, place), records, draw)
        for place, name in enumerate(lineup.models)
    ]
    rows.append(_row("best there is", _oracle(records), records, draw))
    value = learnt.values[operating.objective]
    for rate in np.geomspace(RATES[0], RATES[-1], _POINTS):
        run = simulate(value, learnt.beliefs, records, float(rate))
        rows.append(_row(f"cascade at {rate:.3g}", run, records, draw))
    rows.append(_row("as it is set", _operated(learnt, operating, records), records, draw))
    models = [_model_row(place, records) for place in range(len(lineup.models))]
    reference = lineup.models[lineup.reference]
    return Evaluation(len(records), reference, rows, models, solved_for=operating.solved_for)


def _operated(learnt: Learnt, operating: Operating, records: Records) -> Run:
    if operating.mix is None:
        return _always(records, records.lineup.reference)
    value = learnt.values[operating.objective]
    run = simulate(value, learnt.beliefs, records, operating.mix.rate)
    if not operating.mix.share:
        return run
    other = simulate(value, learnt.beliefs, records, operating.mix.other)
    chance = np.random.default_rng(0).random(len(records)) < operating.mix.share
    return Run(
        np.where(chance, other.served, run.served),
        np.where(chance[:, None], other.called, run.called),
        np.where(chance, other.usd, run.usd),
    )


def _always(records: Records, place: int) -> Run:
    served = np.full(len(records), place)
    called = np.zeros(records.first.shape, np.bool_)
    called[:, place] = True
    return Run(served, called, records.paid[:, place])


def _oracle(records: Records) -> Run:
    """Return whom one would ask who knew every score: the cheapest of the best."""
    rank = records.score - 1e-9 * records.paid / max(float(records.paid.max()), 1e-12)
    served = np.argmax(rank, axis=1)
    called = np.zeros(records.first.shape, np.bool_)
    called[np.arange(len(records)), served] = True
    return Run(served, called, records.paid[np.arange(len(records)), served])


def _row(way: str, run: Run, records: Records, draw: Any) -> Row:
    quality = run.quality(records)
    reference = records.lineup.reference
    gap = quality - records.score[:, reference]
    of_reference = float(run.usd.mean() / max(float(records.paid[:, reference].mean()), 1e-12))
    return Row(
        way=way,
        quality=_share(quality, draw),
        usd_per_1k=1000.0 * float(run.usd.mean()),
        of_reference=of_reference,
        gap=_share(gap, draw),
        loss=float(records.is_worse(run.served).mean()),
        reference_share=float(run.called[:, reference].mean()),
        calls=float(run.called.sum(axis=1).mean()),
    )


def _share(values: Floats, draw: Any) -> Share:
    low, high = np.quantile(values[draw].mean(axis=1), (0.025, 0.975))
    return Share(float(values.mean()), float(low), float(high))


def _model_row(place: int, records: Records) -> ModelRow:
    score = records.score[:, place]
    right = score >= 0.5
    alone = records.drafts.get((place,))
    after = None if alone is None else alone[:, 0]
    mixed = 0 < right.sum() < len(right)
    return ModelRow(
        model=records.lineup.models[place],
        mean_score=float(score.mean()),
        usd_per_1k=1000.0 * float(records.paid[:, place].mean()),
        auroc_before=auroc(records.first[:, place], right) if mixed else float("nan"),
        auroc_after=auroc(after, right) if mixed and after is not None else float("nan"),
        brier_after=brier(after, score) if after is not None else float("nan"),
        ece_after=calibration_error(after, score) if after is not None else float("nan"),
    )


def foretell(
    learnt: Learnt, operating: Operating, table: LearnTable, rates: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return one row a query and model: what is foretold, and what would be done.

    `predicted_quality` is the best estimate there is: where the table holds the model's
    reply the probability that it is right, judged beside the query's other replies, else
    `quality_before`, from the prompt alone. With `rates`, named operating points,
    `decisions` says for each whom the request would be sent to first and, where all replies
    are there, who was called and who served.
    """
    estimates = learnt.quality.estimate(table.queries)
    costs = learnt.costs.estimate(table.queries, learnt.prices)
    drafts = Drafts.read(table)
    lineup = next(iter(learnt.values.values())).lineup
    after = _after(learnt, drafts, estimates.quality, table)
    decisions = _decisions(learnt, operating, table, drafts, rates)
    rows = []
    for row, name in enumerate(table.ids):
        for place, model in enumerate(lineup.models):
            before, known = float(estimates.quality[row, place]), float(after[row, place])
            rows.append(
                {
                    "query_id": name,
                    "model": model,
                    "predicted_quality": before if np.isnan(known) else known,
                    "quality_before": before,
                    "spread": float(estimates.spread[row, place]),
                    "predicted_cost": float(costs.usd[row, place]),
                    "predicted_cost_p90": float(costs.usd_p90[row, place]),
                    "quality_after": None if np.isnan(known) else known,
                    "decisions": decisions[row],
                }
            )
    return rows


def _after(learnt: Learnt, drafts: Drafts, first: Floats, table: LearnTable) -> Floats:
    """Return P(right) [n, K] of each reply, beside the other replies to its query; else NaN.

    An empty one is wrong.
    """
    found = np.full(first.shape, np.nan)
    for pattern in np.unique(drafts.present, axis=0):
        calls = tuple(int(place) for place in np.flatnonzero(pattern))
        rows = np.flatnonzero((drafts.present == pattern).all(axis=1))
        if calls:
            quality = learnt.scorer.quality(drafts, first, calls, table.categories)
            found[rows[:, None], np.array(calls)] = quality[rows]
    for row, place in zip(*np.nonzero(drafts.present), strict=True):
        if _is_empty(table, int(row), int(place)):
            found[row, place] = 0.0
    return found


def _is_empty(table: LearnTable, row: int, place: int) -> bool:
    """Return whether a reply says nothing, which no gateway serves however sure it were of it."""
    cell = table.cell(row, place)
    return cell is not None and not (cell.response or "").strip() and not cell.tool_calls


def _decisions(
    learnt: Learnt,
    operating: Operating,
    table: LearnTable,
    drafts: Drafts,
    rates: Mapping[str, float],
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{} for _ in table.ids]
    value = learnt.values[operating.objective]
    lineup = value.lineup
    records = records_at(learnt, table, drafts)
    judged = sorted(lineup.judged)
    complete = [bool(drafts.present[row, judged].all()) for row in range(len(table.ids))]
    for name, rate in rates.items():
        run = simulate(value, learnt.beliefs, records, rate)
        first = simulate_first(learnt, operating, records, rate)
        for row in range(len(table.ids)):
            told: dict[str, Any] = {"first": lineup.models[first[row]]}
            if complete[row]:
                asked = zip(lineup.models, run.called[row], strict=True)
                told["called"] = [model for model, was_asked in asked if was_asked]
                told["served"] = lineup.models[int(run.served[row])]
            found[row][name] = told
    return found


def simulate_first(
    learnt: Learnt, operating: Operating, records: Records, rate: float
) -> Sequence[int]:
    """Return whom each request is sent to before anything was generated."""
    value = learnt.values[operating.objective]
    known, _ = known_in(records, (), learnt.beliefs, value)
    return [int(step) for step in value.choose(known, rate).step]
