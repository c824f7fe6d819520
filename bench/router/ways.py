"""The ways to rank queries of a pair that the tables compare: ours, the baselines, the oracle.

Each is given labelled rows (and the rest of the training prompts, unlabelled) and
ranks the rows held out: the higher, the rather the large model is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.learn_table import LearnTable
from router.quality.model import QualityModel
from router.quality.view import EVERY

Floats = NDArray[np.float64]
Way = Callable[[LearnTable, LearnTable], Floats]
"""`(training rows, rows held out) -> rank`; column 0 is the small model, 1 the large."""


def ours(use: Sequence[str] = EVERY, *, vectors: bool = True, told: bool = False) -> Way:
    """Rank by the difference of the estimated qualities.

    `told`: categories are known of the rows held out, else they are inferred.
    """

    def rank(train: LearnTable, test: LearnTable) -> Floats:
        fitted = QualityModel.fit(
            train if vectors else train.with_vectors(None), use=use, bare=not vectors
        )
        asked = test if told else test.without_categories()
        queries = (asked if vectors else asked.with_vectors(None)).queries
        quality = fitted.estimate(queries).quality
        gain: Floats = quality[:, 1] - quality[:, 0]
        return gain

    return rank


def unsupervised(way: Way) -> Way:
    """Return the same way, never told a category, also not in training."""
    return lambda train, test: way(train.without_categories(), test)


def by_chance(train: LearnTable, test: LearnTable) -> Floats:
    """Rank at random: the line that mixing the two models reaches."""
    return np.random.default_rng(len(test)).random(len(test))


def oracle(train: LearnTable, test: LearnTable) -> Floats:
    """Rank by what the models did score, the cheaper call first among equals."""
    gain: Floats = test.score[:, 1] - test.score[:, 0]
    return np.asarray(gain + 1e-6 * np.random.default_rng(1).random(len(test)), dtype=np.float64)


def nearest(train: LearnTable, test: LearnTable, *, count: int = 50) -> Floats:
    """Return [queries, models]: mean scores of the 50 nearest labelled prompts."""
    known = _labelled(train)
    count = min(count, len(known))
    alike = _vectors(test) @ _vectors(known).T
    chosen = np.argpartition(-alike, count - 1, axis=1)[:, :count]
    return np.asarray(known.score[chosen].mean(axis=1), dtype=np.float64)


def clusters(train: LearnTable, test: LearnTable) -> Floats:
    """Return [queries, models]: mean scores in the nearest of up to 64 clusters (k-means)."""
    from sklearn.cluster import KMeans

    known = _labelled(train)
    count = min(64, max(2, len(known) // 20))
    found = KMeans(count, n_init=1, random_state=0).fit(_vectors(known))
    member = np.eye(count)[found.labels_]
    means = (member.T @ known.score) / np.maximum(member.sum(axis=0), 1)[:, None]
    return np.asarray(means[found.predict(_vectors(test))], dtype=np.float64)


def words(train: LearnTable, test: LearnTable) -> Floats:
    """Return [queries, models], each by a logistic regression on TF-IDF (C = 0.5)."""
    from sklearn.linear_model import LogisticRegression

    known = _labelled(train)
    matrix = _WORDS.matrix(train, test)
    seen, asked = matrix(known), matrix(test)
    right = np.zeros((len(test), len(train.models)))
    for model in range(len(train.models)):
        labels = known.score[:, model] > 0.5
        right[:, model] = labels.mean()
        if 0 < labels.sum() < len(labels):
            fitted = LogisticRegression(C=0.5, solver="liblinear").fit(seen, labels)
            right[:, model] = fitted.predict_proba(asked)[:, 1]
    return right


def by_gain(estimates: Way) -> Way:
    """Rank by the difference of two models' estimated scores."""

    def rank(train: LearnTable, test: LearnTable) -> Floats:
        found = estimates(train, test)
        gain: Floats = found[:, 1] - found[:, 0]
        return gain

    return rank


def ridge(train: LearnTable, test: LearnTable) -> Floats:
    """Rank by a ridge regression of the gain on the same words (penalty 3)."""
    from sklearn.linear_model import Ridge

    known = _labelled(train)
    matrix = _WORDS.matrix(train, test)
    fitted = Ridge(3.0, solver="sparse_cg", tol=1e-3).fit(matrix(known), _gain(known))
    return np.asarray(fitted.predict(matrix(test)), dtype=np.float64)


def decisive(train: LearnTable, test: LearnTable) -> Floats:
    """Rank by the chance that the large model wins where one does, linear in the vector.

    For two models RouteLLM's matrix factorisation comes to this: a difference of bilinear scores.
    """
    from sklearn.linear_model import LogisticRegression

    known = _labelled(train)
    known = known.subset(_gain(known) != 0)
    wins = _gain(known) > 0
    if not 0 < wins.sum() < len(wins):
        return np.zeros(len(test))
    fitted = LogisticRegression(C=10.0, max_iter=200).fit(_vectors(known), wins)
    return np.asarray(fitted.decision_function(_vectors(test)), dtype=np.float64)


def similar_wins(train: LearnTable, test: LearnTable) -> Floats:
    """Rank by the share of the large model's wins, the more alike prompts weighing more.

    RouteLLM's similarity-weighted ranking for two models: weights 10·10^(cosine / the highest).
    """
    known = _labelled(train)
    known = known.subset(_gain(known) != 0)
    if not len(known):
        return np.zeros(len(test))
    alike = _vectors(test) @ _vectors(known).T
    weight = 10.0 * 10.0 ** (alike / np.maximum(alike.max(axis=1, keepdims=True), 1e-6))
    share: Floats = weight @ (_gain(known) > 0) / np.maximum(weight.sum(axis=1), 1e-9)
    return share


def by_category(train: LearnTable, test: LearnTable) -> Floats:
    """Rank by the category's mean gain, shrunk by 20; it is told of the rows held out, too."""
    known = _labelled(train)
    gain, names = _gain(known), np.array([str(name) for name in known.categories])
    mean = gain.mean()
    of = {
        name: (gain[names == name].sum() + 20 * mean) / ((names == name).sum() + 20)
        for name in set(names)
    }
    return np.array([of.get(str(name), mean) for name in test.categories])


class _Words:
    """TF-IDF rows of a task's prompts; the vocabulary is that of all of them, unlabelled."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._rows: Any = None

    def matrix(self, *tables: LearnTable) -> Callable[[LearnTable], Any]:
        """Return what gives the rows of a table that is part of these."""
        texts = {query.text for table in tables for query in table.queries}
        if self._places.keys() != texts:
            self._read(sorted(texts))
        return lambda table: self._rows[[self._places[query.text] for query in table.queries]]

    def _read(self, texts: Sequence[str]) -> None:
        from scipy.sparse import hstack
        from sklearn.feature_extraction.text import TfidfVectorizer

        kept: dict[str, Any] = {"sublinear_tf": True, "max_features": 60_000, "dtype": np.float32}
        readers = (
            TfidfVectorizer(ngram_range=(1, 2), min_df=2, **kept),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), min_df=3, **kept),
        )
        self._rows = hstack([reader.fit_transform(texts) for reader in readers]).tocsr()
        self._places = {text: place for place, text in enumerate(texts)}


_WORDS = _Words()

BASELINES: dict[str, Way] = {
    "random (mix line)": by_chance,
    "kNN (50)": by_gain(nearest),
    "clusters": by_gain(clusters),
    "large wins (as RouteLLM's mf)": decisive,
    "alike wins (as RouteLLM's SW)": similar_wins,
    "TF-IDF ridge": ridge,
    "TF-IDF logistic": by_gain(words),
    "category mean, told": by_category,
    "oracle": oracle,
}


def labelled(train: LearnTable, budget: int | None, seed: int) -> LearnTable:
    """Return the training rows with the scores of all but `budget` of them taken away."""
    if budget is None or budget >= len(train):
        return train
    kept = np.random.default_rng(seed).permutation(len(train))[:budget]
    score = np.full_like(train.score, np.nan)
    score[kept] = train.score[kept]
    return replace(train, score=score)


def _labelled(train: LearnTable) -> LearnTable:
    return train.subset(~np.isnan(train.score).any(axis=1))


def _gain(table: LearnTable) -> Floats:
    gain: Floats = table.score[:, 1] - table.score[:, 0]
    return gain


def _vectors(table: LearnTable) -> NDArray[np.float32]:
    rows = [query.vector for query in table.queries if query.vector is not None]
    return np.asarray(rows, dtype=np.float32)
