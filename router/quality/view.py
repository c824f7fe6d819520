"""Estimates from one way of seeing a prompt: learners side by side, stacked.

There are two views: one by the embedder's vectors, and one by hashed words
alone, for where there is no embedder. Both see the words and the structure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.quality.blend import Blend
from router.quality.groups import Clusters, group_means
from router.quality.linear import Linear, expit
from router.quality.neighbours import Neighbours
from router.quality.state import QualityError, array_of, part_of
from router.quality.topics import Topics
from router.quality.trees import Trees, rows_of
from router.state import State

Floats = NDArray[np.float64]

LEARNERS = ("text", "dense", "near", "cluster", "category")
"""What a view blends: see the fields of `Learners`."""

EVERY = (*LEARNERS, "trees")
"""What a view is made of: the learners, and the trees over what they say."""

_TEXT_PENALTY, _DENSE_PENALTY = 4.0, 5.0
_CLUSTER_PRIOR, _CATEGORY_PRIOR = 10.0, 20.0
_STRUCTURE_SCALE, _SHARE_SCALE = 0.3, 2.0  # beside vectors of unit length
_OUTLIER = 4.0  # standard deviations a structural feature may be from its mean


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Prompts as a view sees them: sparse words, dense vectors, structure; one row each.

    `labels` are the categories where known.
    """

    words: Any
    vectors: NDArray[np.float32]
    structure: NDArray[np.float32]
    labels: Sequence[str | None]

    def rows(self, at: NDArray[np.intp]) -> Seen:
        """Return some of the prompts."""
        labels = [self.labels[row] for row in at]
        return Seen(self.words[at], self.vectors[at], self.structure[at], labels)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """What is known of prompts without scores: topics, clusters, scales; makes dense rows."""

    topics: Topics | None
    clusters: Clusters
    middle: Floats
    scale: Floats

    @classmethod
    def fit(cls, seen: Seen, fold: NDArray[np.intp]) -> tuple[Frame, Floats]:
        """Return the frame, and the topic shares of each row that saw not its own label."""
        found = Topics.fit(seen.vectors, seen.labels, fold)
        topics, held = found if found else (None, np.zeros((len(seen.labels), 0)))
        middle = seen.structure.mean(0, dtype=np.float64)
        scale = np.maximum(seen.structure.std(0, dtype=np.float64), 1e-3)
        return cls(topics, Clusters.fit(seen.vectors), middle, scale), held

    def topic_shares(self, seen: Seen) -> Floats:
        """Return [queries, topics], inferred from the prompts."""
        if self.topics is None:
            return np.zeros((len(seen.labels), 0))
        return self.topics.shares(seen.vectors)

    def told(self, shares: Floats, labels: Sequence[str | None]) -> Floats:
        """Return the shares with known categories in place of inferred ones."""
        if self.topics is None:
            return shares
        number = {name: at for at, name in enumerate(self.topics.names)}
        told = shares.copy()
        for row, label in enumerate(labels):
            if label is not None and label in number:
                told[row] = 0.0
                told[row, number[label]] = 1.0
        return told

    def dense(self, seen: Seen, topics: Floats, clusters: Floats) -> NDArray[np.float32]:
        """Return one dense row a prompt for the linear learner."""
        plain = np.clip((seen.structure - self.middle) / self.scale, -_OUTLIER, _OUTLIER)
        shares = np.sqrt(np.hstack([topics, clusters])) * _SHARE_SCALE
        return np.hstack([seen.vectors, plain * _STRUCTURE_SCALE, shares], dtype=np.float32)

    def to_state(self) -> State:
        """Return what is kept on disk."""
        parts = {"clusters": self.clusters.to_state()}
        if self.topics is not None:
            parts["topics"] = self.topics.to_state()
        return State(arrays={"middle": self.middle, "scale": self.scale}, parts=parts)

    @classmethod
    def from_state(cls, state: State, *, width: int, structure: int) -> Frame:
        """Make it again. Raises QualityError."""
        kept = state.parts.get("topics")
        return cls(
            None if kept is None else Topics.from_state(kept, width=width),
            Clusters.from_state(part_of(state, "clusters"), width=width),
            array_of(state, "middle", (structure,)),
            np.maximum(array_of(state, "scale", (structure,)), 1e-3),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Learners:
    """Those that learn from scores: `text` and `dense` are logistic, `near` the neighbours,
    `cluster` and `category` the models' shrunk means there.
    """

    text: Linear
    dense: Linear
    near: Neighbours
    cluster: Floats
    category: Floats

    @classmethod
    def fit(cls, words: Any, rows: _Rows, scores: Floats) -> Learners:
        """Fit all of them on the same rows."""
        told = np.flatnonzero(~np.isnan(scores).all(1))
        words, rows, scores = words[told], rows.at(told), scores[told]
        return cls(
            Linear.fit(words, scores, penalty=_TEXT_PENALTY),
            Linear.fit(rows.dense, scores, penalty=_DENSE_PENALTY),
            Neighbours.fit(rows.vectors, scores),
            group_means(rows.clusters, scores, prior=_CLUSTER_PRIOR),
            group_means(rows.topics, scores, prior=_CATEGORY_PRIOR),
        )

    def estimate(self, words: Any, rows: _Rows) -> tuple[Floats, Floats]:
        """Return qualities [queries, models, learners], and the evidence that neighbours give."""
        found = self.near.find(rows.vectors)
        text, dense = self.text.log_odds(words), self.dense.log_odds(rows.dense)
        cluster = rows.clusters @ self.cluster
        category = rows.topics @ self.category if rows.topics.shape[1] else cluster
        every = [expit(text), expit(dense), found.quality, cluster, category]
        return np.stack(every, axis=2), found.evidence


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Prompts ready for the learners."""

    vectors: NDArray[np.float32]
    dense: NDArray[np.float32]
    topics: Floats
    clusters: Floats

    def at(self, chosen: NDArray[np.intp]) -> _Rows:
        return _Rows(
            self.vectors[chosen], self.dense[chosen], self.topics[chosen], self.clusters[chosen]
        )


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A frame, its learners, their blend, and trees over them where there are scores enough."""

    frame: Frame
    learners: Learners
    blend: Blend
    trees: Trees | None = None

    @classmethod
    def fit(
        cls, seen: Seen, scores: Floats, fold: NDArray[np.intp], *, use: Sequence[str] = EVERY
    ) -> View:
        """Fit the learners, and the others on what they say of rows held out of them."""
        frame, held_topics = Frame.fit(seen, fold)
        rows = _rows(frame, seen, held_topics)
        held = np.zeros((*scores.shape, len(LEARNERS)))
        for each in np.unique(fold):
            rest, out = np.flatnonzero(fold != each), np.flatnonzero(fold == each)
            part = Learners.fit(seen.words[rest], rows.at(rest), scores[rest])
            held[out], _ = part.estimate(seen.words[out], rows.at(out))
        names = tuple(name for name in use if name in LEARNERS)
        chosen = [LEARNERS.index(name) for name in names]
        blend = Blend.fit(names, held[:, :, chosen], scores)
        trees = None
        if "trees" in use:
            mixed = blend.mix(held[:, :, chosen])
            trees = Trees.fit(rows_of(mixed, seen.structure, held_topics), scores)
        return cls(frame, Learners.fit(seen.words, rows, scores), blend, trees)

    def estimate(self, seen: Seen) -> ViewEstimates:
        """Return what this view makes of prompts."""
        topics = self.frame.topic_shares(seen)
        rows = _rows(self.frame, seen, topics)
        every, evidence = self.learners.estimate(seen.words, rows)
        used = every[:, :, [LEARNERS.index(name) for name in self.blend.learners]]
        mixed = self.blend.mix(used)
        if self.trees is not None:
            mixed = self.trees.mix(rows_of(mixed, seen.structure, topics), mixed)
        return ViewEstimates(mixed, used, evidence)

    def to_state(self) -> State:
        """Return what is kept on disk."""
        learners = self.learners
        trees = {} if self.trees is None else {"trees": self.trees.to_state()}
        return State(
            arrays={"cluster": learners.cluster, "category": learners.category},
            parts={
                "frame": self.frame.to_state(),
                "blend": self.blend.to_state(),
                "text": learners.text.to_state(),
                "dense": learners.dense.to_state(),
                "near": learners.near.to_state(),
                **trees,
            },
        )

    @classmethod
    def from_state(
        cls, state: State, *, width: int, words: int, structure: int, models: int
    ) -> View:
        """Make it again. Raises QualityError."""
        frame = Frame.from_state(part_of(state, "frame"), width=width, structure=structure)
        topics = 0 if frame.topics is None else len(frame.topics.names)
        clusters = len(frame.clusters.centres)
        across = width + structure + topics + clusters
        learners = Learners(
            Linear.from_state(part_of(state, "text"), width=words, models=models),
            Linear.from_state(part_of(state, "dense"), width=across, models=models),
            Neighbours.from_state(part_of(state, "near"), width=width, models=models),
            array_of(state, "cluster", (clusters, models)),
            array_of(state, "category", (topics, models)),
        )
        blend = Blend.from_state(part_of(state, "blend"), models=models)
        if not blend.learners or not set(blend.learners) <= set(LEARNERS):
            raise QualityError(f"quality model: expected learners of {LEARNERS}, found others")
        trees = None
        if "trees" in state.parts:
            across = models + structure + topics
            trees = Trees.from_state(state.parts["trees"], width=across, models=models)
        return cls(frame, learners, blend, trees)


@dataclass(frozen=True, slots=True, eq=False)
class ViewEstimates:
    """Quality [queries, models], that of each learner [.., learners], evidence [queries]."""

    quality: Floats
    by_learner: Floats
    evidence: Floats


def _rows(frame: Frame, seen: Seen, topics: Floats) -> _Rows:
    clusters = frame.clusters.shares(seen.vectors)
    dense = frame.dense(seen, topics, clusters)
    return _Rows(seen.vectors, dense, frame.told(topics, seen.labels), clusters)
