"""The ways to rank queries of a pair that the tables compare: ours, the baselines, the oracle.

Each is given labelled rows (and the rest of the training prompts, unlabelled) and
ranks the rows held out: the higher, the rather the large model is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from router.learn_table import LearnTable
from router.quality.model import QualityModel
from router.quality.view import LEARNERS

Floats = NDArray[np.float64]
Way = Callable[[LearnTable, LearnTable], Floats]
"""`(training rows, rows held out) -> rank`; column 0 is the small model, 1 the large."""


def ours(use: Sequence[str] = LEARNERS, *, vectors: bool = True, told: bool = False) -> Way:
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
    """Rank by the mean gain of the 50 nearest labelled prompts."""
    known = _labelled(train)
    count = min(count, len(known))
    alike = _vectors(test) @ _vectors(known).T
    chosen = np.argpartition(-alike, count - 1, axis=1)[:, :count]
    gain: Floats = _gain(known)[chosen].mean(axis=1)
    return gain


def clusters(train: LearnTable, test: LearnTable) -> Floats:
    """Rank by the mean gain in the nearest of up to 64 clusters (k-means)."""
    from sklearn.cluster import KMeans

    known = _labelled(train)
    count = min(64, max(2, len(known) // 20))
    found = KMeans(count, n_init=1, random_state=0).fit(_vectors(known))
    total = np.bincount(found.labels_, _gain(known), count)
    means: Floats = total / np.maximum(np.bincount(found.labels_, minlength=count), 1)
    return np.asarray(means[found.predict(_vectors(test))], dtype=np.float64)


def words(train: LearnTable, test: LearnTable) -> Floats:
    """Rank by two TF-IDF logistic regressions, one a model (C = 0.5)."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    known = _labelled(train)
    readers = (
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, max_features=60_000),
        TfidfVectorizer(
            analyzer="char_wb", ngram_range=(2, 4), min_df=3, sublinear_tf=True, max_features=60_000
        ),
    )
    for reader in readers:
        reader.fit([query.text for query in train.queries])
    seen, asked = (
        hstack([reader.transform([q.text for q in table.queries]) for reader in readers]).tocsr()
        for table in (known, test)
    )
    right = np.zeros((len(test), 2))
    for model in (0, 1):
        labels = known.score[:, model] > 0.5
        right[:, model] = labels.mean()
        if 0 < labels.sum() < len(labels):
            fitted = LogisticRegression(C=0.5, solver="liblinear").fit(seen, labels)
            right[:, model] = fitted.predict_proba(asked)[:, 1]
    gain: Floats = right[:, 1] - right[:, 0]
    return gain


BASELINES: dict[str, Way] = {
    "random (mix line)": by_chance,
    "kNN (50)": nearest,
    "clusters": clusters,
    "TF-IDF logistic": words,
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
