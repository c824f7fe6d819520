"""A model that joins a trained cascade by some 100 to 200 probes; the others stay as they are.

Learnt anew are what concerns the newcomer (its quality, its lengths and prices) and what
calls are worth in the longer line-up. The estimates of the other models, and what is said
of their drafts, are not touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from router.beliefs import Beliefs
from router.costs import Price
from router.drafts import Drafts
from router.guarantee import Floor
from router.learn_table import LearnTable
from router.learnt import Learnt, Operating
from router.metrics import auroc
from router.quality.linear import base_rates
from router.quality.model import QualityModel
from router.targets import (
    Mix,
    PriceOfQuality,
    QualityLoss,
    Spend,
    Target,
    mix_for_spend,
    rate_of_price,
    whole_path,
)
from router.train import records_of, worth_judging
from router.types import RouterError
from router.value import Lineup
from router.value_fit import Records, fit_value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Rows = NDArray[np.intp]

FEWEST_PROBES = 50
"""Scored probes below which nobody joins: an estimate of a model would be a guess."""

_FOLDS = 5
_TOLD = 0.99

Advance = Callable[[str, float], None]


class JoinError(RouterError):
    """Probes that no model can join by; says how many there are of what."""


@dataclass(frozen=True, slots=True)
class Newcomer:
    """How a model joined. `compared` probes had a score and a reply of every tier, too.

    `foretold` is the mean of what is expected of its answers, cross-fitted, beside `mean_score`.
    Of its drafts, where they are judged, `judged` is the mean and `auroc` how well they are
    told apart, where some are right and some are not. `met` is the share of the probes'
    prompts that the bundle was trained on.
    """

    model: str
    probes: int
    compared: int
    mean_score: float
    foretold: float
    judged: float | None
    auroc: float | None
    met: float


@dataclass(frozen=True, slots=True)
class Joined:
    """A cascade with a model more. No certificate holds for it; `path` is what may be certified."""

    learnt: Learnt
    operating: Operating
    path: tuple[float, ...]
    newcomer: Newcomer


def join(
    learnt: Learnt,
    operating: Operating,
    table: LearnTable,
    price: Price,
    *,
    target: Target | None = None,
    seed: int = 0,
    advance: Advance | None = None,
) -> Joined:
    """Add the last of a table's models to what was learnt of the others.

    `table` has the line-up's models in their order and the newcomer's after them; it was read
    with `replies=True` and has the vectors that the line-up was trained with. Without a
    `target` the exchange rate stays as it is, and a floor stays that floor, uncertified.
    Raises JoinError for a model that is known already and for too few probes.
    """
    tell = advance or (lambda what, share: None)
    name = table.models[-1]
    probes = _probes(learnt, table)
    tell(f"estimates of {name}", 0.0)
    own = probes.of_models((name,))
    quality = learnt.quality.add_model(name, own.queries, own.score[:, 0].tolist())
    first = _first(learnt.quality, probes, seed)
    tell(f"estimates of {name}", 1.0)
    mean = float(base_rates(own.score)[0])
    beginnings = learnt.beginnings and learnt.beginnings.add_model(name, mean)
    wider = replace(
        learnt,
        quality=quality,
        costs=learnt.costs.add_model(own),
        scorer=learnt.scorer.add_model(name, mean),
        prices={**learnt.prices, name: price},
        beginnings=beginnings,
    )
    tell("reading replies", 0.0)
    drafts = Drafts.read(probes)
    rows = _comparable(learnt, probes, drafts)
    compared = probes.subset(rows)
    drafts = Drafts.read(compared) if len(rows) < len(probes) else drafts
    tell("decision", 0.0)
    lineup = _lineup(wider, compared, drafts)
    records = _decision_records(wider, lineup, first[rows], drafts, compared)
    made = _decided(wider, records, learnt)
    tell("decision", 1.0)
    set_so, path = _operate(operating, made, records, target)
    return Joined(made, set_so, path, _newcomer(learnt, probes, first[:, -1], compared, records))


def check_name(learnt: Learnt, name: str) -> None:
    """Refuse a model that is known already. Raises JoinError."""
    if name in learnt.models:
        raise JoinError(
            f"model {name!r} is in the bundle already; train the bundle again to learn it anew"
        )


def _probes(learnt: Learnt, table: LearnTable) -> LearnTable:
    """Return the rows that the newcomer has a score for."""
    name, known = table.models[-1], table.models[:-1]
    check_name(learnt, name)
    if known != learnt.models:
        raise JoinError(f"expected outcomes of {', '.join(learnt.models)}, found {known}")
    rows = np.flatnonzero(~np.isnan(table.score[:, -1]))
    if len(rows) < FEWEST_PROBES:
        raise JoinError(
            f"expected at least {FEWEST_PROBES} scored probes of {name!r}, better 100 to 200, "
            f"found {len(rows)}"
        )
    return table.subset(rows)


def _first(quality: QualityModel, probes: LearnTable, seed: int) -> Floats:
    """Return [n, K + 1]: the others' estimates as they are, the newcomer's cross-fitted."""
    name, score = probes.models[-1], probes.score[:, -1]
    first = np.empty(probes.score.shape)
    for inside, outside in probes.folds(_FOLDS, seed):
        part = quality.add_model(name, probes.subset(inside).queries, score[inside].tolist())
        first[outside] = part.estimate(probes.subset(outside).queries).quality
    return first


def _comparable(learnt: Learnt, probes: LearnTable, drafts: Drafts) -> Rows:
    """Return the probes with a score of every tier, and a reply of each whose drafts are judged."""
    old = next(iter(learnt.values.values())).lineup
    is_scored = ~np.isnan(probes.score)
    told = {name: is_scored[:, place] for place, name in enumerate(learnt.models)}
    for place in old.judged:
        told[learnt.models[place]] = told[learnt.models[place]] & drafts.present[:, place]
    rows = np.flatnonzero(np.all(list(told.values()), axis=0))
    if len(rows) < FEWEST_PROBES:
        counts = ", ".join(f"{name} {int(there.sum())}" for name, there in told.items())
        judged = ", ".join(old.models[place] for place in sorted(old.judged)) or "none"
        raise JoinError(
            f"expected {FEWEST_PROBES} probes of {probes.models[-1]!r} at least whose prompts "
            f"have a score of every tier (the reference is {old.models[old.reference]}) and a "
            f"reply of those that are judged ({judged}), found {len(rows)}; of {len(probes)} "
            f"probes there are: {counts}"
        )
    return rows


def _lineup(wider: Learnt, compared: LearnTable, drafts: Drafts) -> Lineup:
    """Judge whom the bundle judges and, where it has replies, the newcomer: those worth it."""
    old = next(iter(wider.values.values())).lineup
    place = len(old.models)
    told = sorted(old.judged)
    if drafts.present[:, place].mean() > _TOLD:
        told.append(place)
    judged = worth_judging(told, compared, wider.prices, old.reference)
    return Lineup(compared.models, old.reference, frozenset(judged))


def _decision_records(
    wider: Learnt, lineup: Lineup, first: Floats, drafts: Drafts, compared: LearnTable
) -> Records:
    depth = next(iter(wider.values.values())).depth
    return records_of(
        lineup, depth, first, wider.scorer, drafts, compared, wider.costs, wider.prices
    )


def _decided(wider: Learnt, records: Records, before: Learnt) -> Learnt:
    """Return it with what follows each call, in the longer line-up."""
    beliefs = _beliefs(before, records)
    values = {
        objective: fit_value(
            records, beliefs, objective=value.objective, depth=value.depth, start=value
        )
        for objective, value in before.values.items()
    }
    return replace(wider, beliefs=beliefs, values=values)


def _beliefs(before: Learnt, records: Records) -> Beliefs:
    """Keep what was learnt of drafts; learn of more drafts at once than there were before."""
    reach = len(next(iter(before.values.values())).lineup.judged)
    deeper = [state for state in records.states() if len(state.models) > reach]
    reference = records.lineup.reference
    found = Beliefs.fit(records.first, deeper, records.score, reference, records.tolerance)
    move, harm = before.beliefs.move.copy(), before.beliefs.harm.copy()
    move[reach:], harm[reach:] = found.move[reach:], found.harm[reach:]
    return Beliefs(move, harm)


def _operate(
    before: Operating, learnt: Learnt, records: Records, target: Target | None
) -> tuple[Operating, tuple[float, ...]]:
    """Return how the longer line-up runs; under a floor the reference answers, till certified."""
    floor: Floor | None = before.floor
    if isinstance(target, QualityLoss):
        floor = target.floor
    if isinstance(target, QualityLoss) or (target is None and before.objective == "floor"):
        return Operating("floor", None, floor), whole_path(learnt.values["floor"])
    value = learnt.values["quality"]
    if target is None:
        # The rate stays, but what it spends in a longer line-up nobody has solved.
        kept = None if isinstance(before.solved_for, Spend) else before.solved_for
        return replace(before, early=None, solved_for=kept), ()
    if isinstance(target, PriceOfQuality):
        rate = rate_of_price(target, value)
        return Operating("quality", Mix(rate, rate), solved_for=target), ()
    assert not isinstance(target, QualityLoss), "answered above"
    mix = mix_for_spend(target, value, learnt.beliefs, records)
    return Operating("quality", mix, solved_for=target), ()


def _newcomer(
    before: Learnt, probes: LearnTable, foretold: Floats, compared: LearnTable, records: Records
) -> Newcomer:
    place = len(probes.models) - 1
    judged, told_apart = None, None
    if place in records.lineup.judged:
        found, right = records.drafts[place,][:, 0], compared.score[:, place] > 0.5
        judged = float(found.mean())
        told_apart = auroc(found, right) if 0 < right.sum() < len(right) else None
    return Newcomer(
        model=probes.models[-1],
        probes=len(probes),
        compared=len(compared),
        mean_score=float(probes.score[:, -1].mean()),
        foretold=float(foretold.mean()),
        judged=judged,
        auroc=told_apart,
        met=before.quality.met_share(probes.queries),
    )
