"""Learning what a call is worth, and walking requests through it.

From the deepest course back to none, the worth that requests really reach after a call
is regressed on what was known before it (fitted value iteration).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from router.beliefs import DEEPEST, Beliefs, Seen
from router.value import (
    HOPE,
    LIVE,
    RATES,
    STOP,
    WIDE,
    Calls,
    Known,
    Lineup,
    Objective,
    ValueModel,
    features_of,
    joined,
    known_of,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

_RIDGE = 1.0
_RIDGE_BEFORE = 10.0  # what was learnt from thousands outweighs a hundred probes


@dataclass(frozen=True, slots=True)
class Records:
    """What the decision is learnt from and simulated on: n requests, K models.

    All estimates are cross-fitted: made by parts that did not see the request. `first`
    [n, K] before any call, `drafts[calls]` [n, len(calls)] the quality of each draft once
    all of them were seen, `usd` [n, K] what a call was expected to cost and `paid` what it
    cost, `score` [n, K] what was true; no NaN anywhere.
    """

    lineup: Lineup
    first: Floats
    drafts: Mapping[Calls, Floats]
    usd: Floats
    score: Floats
    paid: Floats
    tolerance: float = 0.0

    def __len__(self) -> int:
        return len(self.first)

    def take(self, rows: Ints) -> Records:
        """Return some of the requests."""
        drafts = {calls: quality[rows] for calls, quality in self.drafts.items()}
        return replace(
            self,
            first=self.first[rows],
            drafts=drafts,
            usd=self.usd[rows],
            score=self.score[rows],
            paid=self.paid[rows],
        )

    def states(self) -> list[Seen]:
        """Return every set of drafts that may have been seen."""
        return [Seen(calls, quality) for calls, quality in self.drafts.items() if calls]

    def is_worse(self, served: Ints) -> NDArray[np.bool_]:
        """Return which requests lost: served by another than the reference, and worse."""
        rows = np.arange(len(self))
        lost = self.score[:, self.lineup.reference] - self.score[rows, served]
        return np.asarray((served != self.lineup.reference) & (lost > self.tolerance))


def fit_value(
    records: Records,
    beliefs: Beliefs,
    *,
    objective: Objective,
    depth: int = DEEPEST,
    start: ValueModel | None = None,
) -> ValueModel:
    """Learn what follows each call, from the deepest course back to none.

    `start` is that of a line-up to which models were added at the end: its money is kept, and
    what it knows of a call is moved by the records only as far as they are many.
    """
    lineup = records.lineup
    depth = min(depth, DEEPEST)
    reference_usd = max(float(records.usd[:, lineup.reference].mean()), 1e-12)
    rates = RATES
    if start is not None:
        reference_usd, rates = start.reference_usd, start.rates
    before = {} if start is None else start.ahead
    ahead: dict[tuple[Calls, int], Floats] = {}
    model = ValueModel(lineup, objective, reference_usd, depth, rates, ahead)
    reached: dict[Calls, Floats] = {}
    for calls in sorted(lineup.courses(depth), key=len, reverse=True):
        known, _ = known_in(records, calls, beliefs, model)
        features = features_of(known, model.live(known))
        for step in sorted(lineup.judged - set(calls)) if len(calls) < depth else ():
            ahead[calls, step] = _ridge(
                features[:, step], reached[joined(calls, step)], before.get((calls, step))
            )
        reached[calls] = _reached(known, features, reached, model)
    return model


@dataclass(frozen=True, slots=True)
class Run:
    """How n requests went: who served, what was called [n, K], and what that cost."""

    served: Ints
    called: NDArray[np.bool_]
    usd: Floats

    def quality(self, records: Records) -> Floats:
        """Return the true score of each answer served."""
        return np.asarray(records.score[np.arange(len(records)), self.served])


def simulate(model: ValueModel, beliefs: Beliefs, records: Records, rate: float) -> Run:
    """Let every request take its course at one exchange rate."""
    served = np.full(len(records), STOP)
    called = np.zeros(records.first.shape, np.bool_)
    waiting: dict[Calls, list[Ints]] = {(): [np.arange(len(records))]}
    for calls in model.lineup.courses(model.depth):
        rows = np.concatenate(waiting.pop(calls, [np.zeros(0, np.int64)]))
        if not len(rows):
            continue
        known, best = known_in(records.take(rows), calls, beliefs, model)
        step = model.choose(known, rate).step
        served[rows] = np.where(step == STOP, best, step)
        for place in np.unique(step[step != STOP]):
            there = rows[step == place]
            called[there, place] = True
            if place in model.lineup.judged:
                waiting.setdefault(joined(calls, int(place)), []).append(there)
    return Run(served, called, (records.paid * called).sum(axis=1))


def known_in(
    records: Records, calls: Calls, beliefs: Beliefs, model: ValueModel
) -> tuple[Known, Ints]:
    """Return what is known of each request after these calls, and which draft it would serve."""
    return known_of(calls, records.first, records.drafts[calls], records.usd, beliefs, model)


def _ridge(rows: Floats, targets: Floats, before: Floats | None = None) -> Floats:
    """Fit [rates, features], shrunk towards what was known before, or else the myopic worth.

    The myopic worth is that of stopping right after this call.
    """
    ridge = _RIDGE if before is None else _RIDGE_BEFORE
    if before is None:
        before = np.zeros((targets.shape[1], WIDE))
        before[:, HOPE] = 1.0
    towards = before
    rest = targets - rows @ towards.T
    gram = rows.T @ rows + ridge * np.eye(WIDE)
    return np.asarray(np.linalg.solve(gram, rows.T @ rest).T + towards)


def _reached(
    known: Known, features: Floats, reached: Mapping[Calls, Floats], model: ValueModel
) -> Floats:
    """Return what each request reaches from here, prices taken off, at each rate: [n, rates]."""
    rows = np.arange(len(known.estimates))
    worth = np.empty((len(rows), len(model.rates)))
    for place, rate in enumerate(model.rates):
        step = model.choose_by(known, features, rate).step
        worth[:, place] = known.worth
        for each in np.unique(step[step != STOP]):
            there = step == each
            price = (rate / model.reference_usd) * known.usd[there, each]
            if each in model.lineup.judged:
                after = reached[joined(known.calls, int(each))][there, place]
            else:
                after = features[there, each, LIVE]
            worth[there, place] = after - price
    return worth
