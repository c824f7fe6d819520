"""The routers that ours is compared with over a pool, and the area under what each reaches.

Every rival is learnt on train and gives operating points on train (cross-fitted) and on dev.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from bench.router import ways
from router.learn_table import LearnTable
from router.linear import sigmoid
from router.metrics import Frontier
from router.value_fit import Records
from router.words import Words, bag_of

Floats = NDArray[np.float64]
Estimates = Callable[[LearnTable, LearnTable], Floats]

ROUTERS: dict[str, Estimates] = {
    "kNN (50)": ways.nearest,
    "clusters": ways.clusters,
    "TF-IDF logistic": ways.words,
}
"""Routers that estimate every model's score from the prompt: `(train, asked) -> [n, models]`."""

_CUTS = np.array([-0.1, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95])


@dataclass(frozen=True, slots=True)
class Way:
    """A way of answering, on train and on dev: quality and dollars a request."""

    name: str
    on_train: tuple[Floats, Floats]
    on_dev: tuple[Floats, Floats]


def crossfitted(
    estimates: Estimates, taught: LearnTable, asked: LearnTable
) -> tuple[Floats, Floats]:
    """Return a router's estimates of train, each row from outside its fold, and of dev."""
    held = np.empty(taught.score.shape)
    for rest, out in taught.folds(5, 0):
        held[out] = estimates(taught.subset(rest), taught.subset(out))
    return held, estimates(taught, asked)


def routed(records: Records, quality: Floats, rate: float) -> tuple[Floats, Floats]:
    """Return quality and dollars where each request goes to the model worth most at a rate."""
    price = rate * records.usd / records.usd[:, records.lineup.reference].mean()
    chosen = np.argmax(quality - price, axis=1)
    rows = np.arange(len(records))
    return records.score[rows, chosen], records.paid[rows, chosen]


def frugal_gpt(
    taught: LearnTable, asked: LearnTable, known: Records, later: Records, *, most: int = 4
) -> list[Way]:
    """Return chains of up to three models, each draft scored by its words, as FrugalGPT does.

    The scorer is a logistic regression on question and answer in place of DistilBERT. Chains
    are of up to `most` cheap models whose replies are there and the best single one; all
    thresholds of a grid are tried.
    """
    reference = known.lineup.reference
    heard = sorted(known.lineup.judged)[:most]
    scores = _scored_words(taught, asked, heard)
    found = []
    for chain in _chains(heard, reference):
        for cuts in _grids(len(chain) - 1):
            name = " > ".join(known.lineup.models[m] for m in chain) + f" {cuts}"
            runs = [
                _walk(records, [part[m] for m in chain[:-1]], chain, cuts)
                for records, part in ((known, scores[0]), (later, scores[1]))
            ]
            found.append(Way(name, *runs))
    return found


def _chains(heard: Sequence[int], reference: int) -> Iterator[tuple[int, ...]]:
    for length in (1, 2):
        for chain in combinations(heard, length):
            yield (*chain, reference)


def _grids(hops: int) -> Iterator[tuple[float, ...]]:
    if hops == 1:
        yield from ((float(cut),) for cut in _CUTS)
        return
    for one in _CUTS:
        yield from ((float(one), float(other)) for other in _CUTS)


def _walk(
    records: Records, scores: Sequence[Floats], chain: Sequence[int], cuts: Sequence[float]
) -> tuple[Floats, Floats]:
    quality = records.score[:, chain[-1]].copy()
    usd = records.paid[:, chain[-1]].copy()
    for place in reversed(range(len(scores))):
        model = chain[place]
        is_kept = scores[place] > cuts[place]
        quality = np.where(is_kept, records.score[:, model], quality)
        usd = records.paid[:, model] + np.where(is_kept, 0.0, usd)
    return quality, usd


def _scored_words(
    taught: LearnTable, asked: LearnTable, heard: Sequence[int]
) -> tuple[dict[int, Floats], dict[int, Floats]]:
    """Return each heard model's drafts' scores on train, cross-fitted, and on dev."""
    bags = {
        (id(table), model): [
            bag_of(query.text, _reply(table, row, model), table.models[model])
            for row, query in enumerate(table.queries)
        ]
        for table in (taught, asked)
        for model in heard
    }
    fold = taught.fold_of(5, 0)
    held = {model: np.empty(len(taught)) for model in heard}

    def fitted(rows: NDArray[np.intp]) -> Words:
        return Words.fit(
            [bags[id(taught), model][row] for model in heard for row in rows],
            np.concatenate([taught.score[rows, model] for model in heard]),
        )

    for each in range(5):
        scorer, out = fitted(np.flatnonzero(fold != each)), np.flatnonzero(fold == each)
        for model in heard:
            held[model][out] = sigmoid(scorer(bags[id(taught), model][row] for row in out))
    scorer = fitted(np.arange(len(taught)))
    return held, {model: sigmoid(scorer(bags[id(asked), model])) for model in heard}


def _reply(table: LearnTable, row: int, model: int) -> str:
    cell = table.cell(row, model)
    return (cell.response if cell else None) or ""


def on_hull(found: Sequence[Way]) -> list[Way]:
    """Return the ways that lie on the hull of quality over cost, on train."""
    cost = np.array([way.on_train[1].mean() for way in found])
    quality = np.array([way.on_train[0].mean() for way in found])
    hull = Frontier(cost, quality).hull()
    kept = dict(zip(zip(cost, quality, strict=True), found, strict=True))
    return [kept[pair] for pair in zip(hull.cost, hull.quality, strict=True)]


def areas(
    found: Sequence[Way], singles: Sequence[Way], span: tuple[float, float], draw: NDArray[np.int64]
) -> Floats:
    """Return AIQ on dev: of all its queries first, then of each row of `draw`.

    Operating points are those on train's hull. Any router may also send all requests to one
    model, so these points are everybody's.
    """
    points = [*on_hull(found), *singles]
    quality = np.stack([way.on_dev[0] for way in points], axis=1)
    cost = np.stack([way.on_dev[1] for way in points], axis=1)
    rows = np.vstack([np.arange(draw.shape[1]), draw])
    return np.array([
        Frontier(cost[row].mean(axis=0), quality[row].mean(axis=0)).aiq(*span) for row in rows
    ])  # fmt: skip
