"""The probability that a draft is right, from the draft itself and all that is known beside it.

One forest serves all models: what a wrong calculation means is learnt from
everybody's. It sees the reply's features, what the first stage expected of each
model, the log-odds of the reply's words (learnt apart, and shown to the forest
only for queries they were not learnt from) and the answers of other drafts.

A second scorer, fitted on drafts cut off early (`Drafts.read(table,
shorten=cut_at(...))`), judges a draft under way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from router.company import MOST_OTHERS, CompanyCalibrators
from router.drafts import DraftRead, Drafts, agrees
from router.forest import Forest, grow
from router.linear import sigmoid
from router.reply import GROUPS
from router.reply import NAMES as REPLY
from router.state import State
from router.types import RouterError
from router.words import Bag, Words

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Routes = Sequence[str | None]

ESTIMATES: tuple[str, ...] = (
    "estimate", "estimate_mean", "estimate_lowest", "estimate_highest", "model_mean",
)  # fmt: skip
AGREEMENT: tuple[str, ...] = (
    "others", "agreeing", "differing", "agreeing_best", "differing_best", "others_agree",
)  # fmt: skip
NAMES: tuple[str, ...] = (*REPLY, *ESTIMATES, "words", *AGREEMENT)
FAMILIES = {**GROUPS, "estimates": ESTIMATES, "words": ("words",), "agreement": AGREEMENT}

_RISING = {
    "logprob_q00": 1, "logprob_q05": 1, "logprob_q10": 1, "logprob_q20": 1, "logprob_q50": 1,
    "margin": 1, "entropy": -1, "output_same": 1, "examples_held_share": 1, "schema_held": 1,
    "arguments_held": 1, "estimate": 1, "words": 1, "agreeing": 1, "agreeing_best": 1,
    "differing": -1, "differing_best": -1,
}  # fmt: skip
_FEW = 4_000
_THIRD_VIEW = 0.5  # what a third view of one draft weighs, or trees learn that draft by heart
_SHOWN = 5


class CorrectnessError(RouterError):
    """Drafts that a scorer cannot be fitted on, or a state that holds none."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The probability that a draft is right, and what weighed most: (feature, log-odds, value)."""

    quality: float
    why: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, slots=True, eq=False)
class AnswerScorer:
    """Says of drafts how likely they are right. Models are told by their place in `models`.

    The last `joined` of them came later, and are no part of what the forest is told of all:
    so it says of the others' drafts what it said before.
    """

    models: tuple[str, ...]
    means: Floats
    words: Words
    forest: Forest
    calibrators: CompanyCalibrators
    joined: int = 0

    def quality(
        self, drafts: Drafts, estimates: Floats | None, calls: Sequence[int], routes: Routes
    ) -> Floats:
        """Return [n, len(calls)]: each of these models' drafts, judged beside the others.

        NaN where a model gave no draft. `estimates` [n, models] are the first stage's.
        """
        odds = _odds_of_words(self.words, drafts, calls)
        return _table_quality(self, self.forest, drafts, estimates, odds, calls, routes)

    def judge(
        self, seen: Sequence[DraftRead], estimates: Floats | None, route: str | None = None
    ) -> list[Judgement]:
        """Judge each of one request's drafts beside the others; `estimates` is [models]."""
        return [self._judged(at, seen, estimates, route) for at in range(len(seen))]

    def _judged(
        self, at: int, seen: Sequence[DraftRead], estimates: Floats | None, route: str | None
    ) -> Judgement:
        draft = seen[at]
        known = np.full(len(self.models), np.nan) if estimates is None else estimates
        taught = known[: len(known) - self.joined]
        others = [each for place, each in enumerate(seen) if place != at]
        same = [agrees(draft.answer, each.answer) for each in others]
        pairs = [
            agrees(one.answer, other.answer)
            for place, one in enumerate(others)
            for other in others[:place]
        ]
        row = np.array([
            *draft.features,
            *(known[draft.model], _mean(taught), np.min(taught), np.max(taught)),
            *(self.means[draft.model], float(self.words((draft.bag,))[0])),
            *_agreement(same, [float(known[each.model]) for each in others], pairs),
        ])  # fmt: skip
        first, added = self.forest.explain(row.astype(np.float32))
        odds = first + float(added.sum())
        order = np.argsort(-np.abs(added))[:_SHOWN]
        why = tuple((NAMES[i], float(added[i]), float(row[i])) for i in order if added[i])
        quality = self.calibrators(
            sigmoid(np.array([odds])), (route,), [min(len(others), MOST_OTHERS)]
        )
        return Judgement(float(quality[0]), why)

    def add_model(self, name: str, mean: float) -> AnswerScorer:
        """Return a scorer that also knows a new model, by its mean score on a few probes."""
        if name in self.models or not 0.0 <= mean <= 1.0:
            raise CorrectnessError(f"expected a new model with a mean of 0 to 1, found {name!r}")
        return AnswerScorer(
            (*self.models, name), np.append(self.means, mean),
            self.words, self.forest, self.calibrators, self.joined + 1,
        )  # fmt: skip

    def to_state(self) -> State:
        """Return what is to be kept of it."""
        return State(
            values={
                "models": list(self.models),
                "features": list(NAMES),
                "joined": self.joined,
            },
            arrays={"means": self.means},
            parts={
                "words": self.words.to_state(),
                "forest": self.forest.to_state(),
                "calibrators": self.calibrators.to_state(),
            },
        )

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Make it again. Raises RouterError for a state that is not one of its own."""
        models = state.values.get("models")
        means = np.asarray(state.arrays.get("means", ()), dtype=np.float64)
        if state.values.get("features") != list(NAMES):
            raise CorrectnessError("scorer: made for other features; train the bundle again")
        if not isinstance(models, list) or means.shape != (len(models),):
            raise CorrectnessError("scorer: expected models with a mean for each; train it again")
        joined = state.values.get("joined", 0)
        if not isinstance(joined, int) or not 0 <= joined < max(1, len(models)):
            raise CorrectnessError(f"scorer: joined: expected a count, found {joined!r:.60}")
        parts = [state.parts.get(name, State()) for name in ("words", "forest", "calibrators")]
        forest = Forest.from_state(parts[1])
        if forest.width != len(NAMES) or not np.isfinite(means).all():
            raise CorrectnessError(f"scorer: expected a forest over {len(NAMES)} features")
        names = tuple(map(str, models))
        calibrators = CompanyCalibrators.from_state(parts[2])
        return cls(names, means, Words.from_state(parts[0]), forest, calibrators, joined)


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Scorers that did not see the rows they are asked of: for choosing what to do with drafts."""

    scorer: AnswerScorer
    fold: Ints
    forests: Sequence[Forest]
    odds: Floats

    def quality(
        self, drafts: Drafts, estimates: Floats | None, calls: Sequence[int], routes: Routes
    ) -> Floats:
        """Return [n, len(calls)] for the very rows that were fitted on, each from outside."""
        found = np.full((len(drafts), len(calls)), np.nan)
        for each, forest in enumerate(self.forests):
            judged = _table_quality(
                self.scorer, forest, drafts, estimates, self.odds, calls, routes, self.fold == each
            )
            found[self.fold == each] = judged[self.fold == each]
        return found


def fit_scorer(
    drafts: Drafts,
    score: Floats,
    estimates: Floats | None,
    routes: Routes,
    fold: Ints,
    *,
    judged: Sequence[int] | None = None,
    without: Sequence[str] = (),
    advance: Callable[[], None] | None = None,
    seed: int = 0,
) -> tuple[AnswerScorer, HeldOut]:
    """Fit a scorer, and beside it one for each fold that did not see that fold.

    `score` is [n, models], NaN where unknown; `estimates` must come from outside
    each row's fold. `judged` are the models whose drafts are judged, alone and beside
    each other; without it all are, and learnt from. `without` names families of
    features to leave out, for ablations. `advance` is called after each of twice
    (folds + 1) steps. Raises CorrectnessError where fewer than two scored replies are
    there.
    """
    every = range(score.shape[1])
    chosen = np.isin(every, every if judged is None else judged)
    known = drafts.present & ~np.isnan(score) & chosen
    if known.sum() < 2:
        raise CorrectnessError(f"expected at least 2 scored replies, found {known.sum()}")
    step = advance or (lambda: None)
    folds = int(fold.max()) + 1
    means = np.array([_shrunk(one[~np.isnan(one)]) for one in score.T])
    odds, words = _fit_words(drafts, score, known, fold, folds, step)
    views = _views(drafts.present & chosen, known, seed)
    rows = _view_rows(drafts, estimates, means, odds, views)
    hidden = [at for at, name in enumerate(NAMES) if _family(name) in without]
    rows[:, hidden] = 0.0
    labels = score[views.row, views.model]
    company = (views.others >= 0).sum(axis=1)
    weight = np.where(company == MOST_OTHERS, _THIRD_VIEW, 1.0)
    forests, held = [], np.zeros(len(labels))
    for each in range(folds):
        inside = fold[views.row] != each
        forests.append(_grown(rows[inside], labels[inside], weight[inside], seed))
        held[~inside] = forests[-1](rows[~inside])
        step()
    names = [routes[int(row)] for row in views.row]
    calibrators = CompanyCalibrators.fit(sigmoid(held), labels, names, company)
    forest = _grown(rows, labels, weight, seed)
    step()
    scorer = AnswerScorer(drafts.models, means, words, forest, calibrators)
    return scorer, HeldOut(scorer, fold, forests, odds)


def _family(name: str) -> str:
    return next(family for family, names in FAMILIES.items() if name in names)


def _shrunk(scores: Floats) -> float:
    """Return a mean that a handful of scores cannot drive to an extreme."""
    return float((scores.sum() + 1.0) / (len(scores) + 2.0))


def _grown(rows: NDArray[np.float32], labels: Floats, weight: Floats, seed: int) -> Forest:
    rising = {NAMES.index(name): way for name, way in _RISING.items()}
    told: dict[str, Any] = {"weight": weight, "rising": rising, "seed": seed}
    if len(rows) < _FEW:
        return grow(rows, labels, **told, trees=150, leaves=8, rate=0.04)
    return grow(rows, labels, **told, trees=250, leaves=15, rate=0.08)


def _fit_words(
    drafts: Drafts, score: Floats, known: Any, fold: Ints, folds: int, step: Callable[[], None]
) -> tuple[Floats, Words]:
    """Return log-odds [n, m] from words learnt outside each fold, and the words of all."""
    places = np.argwhere(known)
    bags = [_bag(drafts, row, model) for row, model in places]
    labels = score[known]
    odds = np.full(score.shape, np.nan)
    for each in range(folds):
        inside = fold[places[:, 0]] != each
        taught = [bag for bag, is_in in zip(bags, inside, strict=True) if is_in]
        words = Words.fit(taught, labels[inside]) if taught else Words.untaught()
        for row, model in np.argwhere(drafts.present & (fold == each)[:, None]):
            odds[row, model] = words((_bag(drafts, row, model),))[0]
        step()
    words = Words.fit(bags, labels)
    step()
    return odds, words


def _bag(drafts: Drafts, row: int, model: int) -> Bag:
    bag = drafts.bags[row][model]
    assert bag is not None, "present drafts have words"
    return bag


def _odds_of_words(words: Words, drafts: Drafts, calls: Sequence[int]) -> Floats:
    odds = np.full(drafts.present.shape, np.nan)
    for row, model in np.argwhere(drafts.present):
        if model in calls:
            odds[row, model] = words((_bag(drafts, row, model),))[0]
    return odds


@dataclass(frozen=True, slots=True, eq=False)
class _Views:
    """Drafts as they may be met: [v] rows and models, and [v, 2] others, -1 for none."""

    row: Ints
    model: Ints
    others: Ints


def _views(present: Any, known: Any, seed: int) -> _Views:
    """Show every draft alone, beside one other, and (every second) beside two."""
    chance = np.random.default_rng(seed)
    found: list[tuple[int, int, int, int]] = []
    for row, model in np.argwhere(known):
        found.append((row, model, -1, -1))
        others = np.flatnonzero(present[row])
        others = chance.permutation(others[others != model])
        if len(others) > 0:
            found.append((row, model, others[0], -1))
        if len(others) > 1 and (row + model) % 2 == 0:
            found.append((row, model, others[0], others[1]))
    table = np.array(found, dtype=np.intp)
    return _Views(table[:, 0], table[:, 1], table[:, 2:])


def _table_quality(
    scorer: AnswerScorer,
    forest: Forest,
    drafts: Drafts,
    estimates: Floats | None,
    odds: Floats,
    calls: Sequence[int],
    routes: Routes,
    only: Any = None,
) -> Floats:
    found = np.full((len(drafts), len(calls)), np.nan)
    for at, model in enumerate(calls):
        chosen = drafts.present[:, model] if only is None else drafts.present[:, model] & only
        rows = np.flatnonzero(chosen)
        others = [each for each in calls if each != model][:MOST_OTHERS]
        beside = np.full((len(rows), MOST_OTHERS), -1, dtype=np.intp)
        for place, other in enumerate(others):
            beside[:, place] = np.where(drafts.present[rows, other], other, -1)
        views = _Views(rows, np.full(len(rows), model, dtype=np.intp), beside)
        table = _view_rows(drafts, estimates, scorer.means, odds, views, scorer.joined)
        names = [routes[int(row)] for row in rows]
        company = (beside >= 0).sum(axis=1)
        found[rows, at] = scorer.calibrators(sigmoid(forest(table)), names, company)
    return found


def _view_rows(
    drafts: Drafts,
    estimates: Floats | None,
    means: Floats,
    odds: Floats,
    views: _Views,
    joined: int = 0,
) -> NDArray[np.float32]:
    """Return [v, len(NAMES)]."""
    row, model = views.row, views.model
    known = np.full((len(drafts), len(means)), np.nan) if estimates is None else estimates
    mine = known[row, : len(means) - joined]
    columns = [
        known[row, model], mine.mean(axis=1), mine.min(axis=1), mine.max(axis=1),
        means[model], odds[row, model], *_table_agreement(drafts, known, views),
    ]  # fmt: skip
    return np.column_stack([drafts.features[row, model], *columns]).astype(np.float32)


def _table_agreement(drafts: Drafts, known: Floats, views: _Views) -> list[Floats]:
    """Return the columns of `AGREEMENT`: what `_agreement` says of one draft."""
    row, others = views.row[:, None], views.others
    there = others >= 0
    same = np.where(there, drafts.agree[row, views.model[:, None], others], -1)
    expected = np.where(there, known[row, others], np.nan)
    pair = drafts.agree[views.row, others[:, 0], others[:, 1]]
    return [
        there.sum(axis=1).astype(np.float64),
        (same == 1).sum(axis=1).astype(np.float64),
        (same == 0).sum(axis=1).astype(np.float64),
        _best(np.where(same == 1, expected, np.nan)),
        _best(np.where(same == 0, expected, np.nan)),
        np.where(there.all(axis=1) & (pair >= 0), pair, np.nan).astype(np.float64),
    ]


def _best(expected: Floats) -> Floats:
    filled = np.where(np.isnan(expected), -np.inf, expected).max(axis=1)
    return np.where(np.isfinite(filled), filled, np.nan)


def _agreement(
    same: Sequence[int], expected: Sequence[float], pairs: Sequence[int]
) -> tuple[float, ...]:
    """Return the features of `AGREEMENT` for one draft: how many others agree, and how able."""
    agreeing = [e for s, e in zip(same, expected, strict=True) if s == 1 and not np.isnan(e)]
    differing = [e for s, e in zip(same, expected, strict=True) if s == 0 and not np.isnan(e)]
    return (
        float(len(same)), float(sum(s == 1 for s in same)), float(sum(s == 0 for s in same)),
        max(agreeing, default=np.nan), max(differing, default=np.nan),
        float(pairs[0]) if pairs and pairs[0] >= 0 else np.nan,
    )  # fmt: skip


def _mean(known: Floats) -> float:
    return float(known.mean())
