"""How good each model's answer to a prompt will be, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.learn_table import LearnTable
from router.quality.adopted import Adopted
from router.quality.linear import base_rates, expit, logit
from router.quality.sketch import WIDTH as SKETCH
from router.quality.sketch import sketch
from router.quality.state import QualityError, array_of, names_of, part_of
from router.quality.view import EVERY, Seen, View, ViewEstimates
from router.query import Query
from router.state import State
from router.surface import STRUCTURE, TextSpace, structures

Floats = NDArray[np.float64]

FEWEST = 20
"""Different scored queries below which nothing is learnt but each model's mean."""

_FOLDS = 5
_WINDOW = 1200  # characters: what follows is beyond most embedders' windows
_EQUAL = 0.9999  # the cosine of one prompt with itself, as it is computed
_UNSEEN = 0.25  # what evidence is worth when a prompt has images and the training had none
_PRIOR = 1.0  # neighbours' worth of belief in the base rate
_TRUST = 2.0  # observations that the fit itself is worth, where there are no neighbours


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """Arrays [queries, models], always finite.

    `quality` is the expected score, 0 to 1; `spread` the standard error of that
    estimate, wider for prompts unlike those learnt from. `evidence` [queries]
    counts the similar prompts behind it.
    """

    models: tuple[str, ...]
    quality: Floats
    spread: Floats
    evidence: Floats


@dataclass(frozen=True, slots=True, eq=False)
class QualityModel:
    """Estimates of several models' quality before any of them is asked.

    `bare` sees words and structure; `full` the embedder's vector too, and is None
    where the training had none. Both are None below `FEWEST` scored queries.
    """

    models: tuple[str, ...]
    counts: Floats
    rates: Floats
    space: TextSpace
    bare: View | None
    full: View | None
    width: int = 0
    saw_images: bool = False
    adopted: Mapping[str, Adopted] = field(default_factory=dict)

    @classmethod
    def fit(
        cls, table: LearnTable, *, seed: int = 0, use: Sequence[str] = EVERY, bare: bool = True
    ) -> QualityModel:
        """Learn from a table; a query without any score still teaches what prompts look like.

        `use` names what to make it of. `bare=False` leaves out the view for
        queries without a vector, which halves the time. Raises QualityError when
        a model has no score at all.
        """
        counts = (~np.isnan(table.score)).sum(0).astype(np.float64)
        if not len(table.models) or (counts == 0).any():
            missing = [m for m, count in zip(table.models, counts, strict=True) if not count]
            raise QualityError(f"expected scores of each model, found none of {missing or 'any'}")
        space = TextSpace.fit([query.text for query in table.queries])
        told = np.flatnonzero((~np.isnan(table.score)).any(axis=1))
        scored = len({table.group[int(row)] for row in told})
        width = _width(table.queries)
        fold = table.fold_of(_FOLDS, seed)
        views: dict[str, View | None] = {"bare": None, "full": None}
        if scored >= FEWEST:
            words = space.matrix([query.text for query in table.queries])
            plain = structures(table.queries)
            labels = table.categories
            if width:
                seen = Seen(words, _vectors(table.queries), plain, labels)
                views["full"] = View.fit(seen, table.score, fold, use=use)
            if bare or not width:
                seen = Seen(words, sketch(words), plain, labels)
                views["bare"] = View.fit(seen, table.score, fold, use=use)
        return cls(
            models=table.models,
            counts=counts,
            rates=base_rates(table.score),
            space=space,
            width=width,
            saw_images=any(query.has_images for query in table.queries),
            bare=views["bare"],
            full=views["full"],
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Return the models estimated, those that joined later at the end."""
        return (*self.models, *self.adopted)

    def estimate(self, queries: Sequence[Query]) -> Estimates:
        """Return the estimates of these queries.

        A query without a vector, or with one of another width than the training's,
        is estimated from its words.
        """
        if not queries:
            empty = np.zeros((0, len(self.names)))
            return Estimates(self.names, empty, empty, np.zeros(0))
        rich = np.array([self._sees_vector(query) for query in queries])
        quality = np.empty((len(queries), len(self.names)))
        spread, evidence = np.empty_like(quality), np.empty(len(queries))
        for view, at in ((self.full, rich), (self.bare or self.full, ~rich)):
            if at.any():
                some = [query for query, chosen in zip(queries, at, strict=True) if chosen]
                quality[at], spread[at], evidence[at] = self._estimate(view, some)
        return Estimates(self.names, quality, spread, evidence)

    def add_model(
        self, name: str, queries: Sequence[Query], scores: Sequence[float]
    ) -> QualityModel:
        """Return one that also estimates a new model, from some 100 to 200 probes.

        The others' estimates stay as they are. Raises QualityError for a name that
        is taken and for scores that are not numbers from 0 to 1.
        """
        if name in self.names:
            raise QualityError(f"model {name!r} is known already; train again to learn it anew")
        target = np.asarray(scores, dtype=np.float64)
        if len(target) != len(queries) or not len(target):
            raise QualityError(f"expected one score a probe, found {len(target)} of {len(queries)}")
        if not ((target >= 0) & (target <= 1)).all():
            raise QualityError(f"model {name!r}: expected scores from 0 to 1")
        known = replace(self, adopted={}).estimate(queries)
        shares = self._shares(queries)
        joined = Adopted.fit(logit(known.quality), shares, target)
        return replace(self, adopted={**self.adopted, name: joined})

    def met_share(self, queries: Sequence[Query]) -> float:
        """Return the share of these prompts that it remembers from its training, 0 to 1."""
        view = self.full if self.full and all(map(self._sees_vector, queries)) else self.bare
        if view is None or not queries:
            return 0.0
        vectors, kept = self._seen(view, queries).vectors, view.learners.near.vectors
        return float(((vectors @ kept.T).max(1) > _EQUAL).mean())

    def _sees_vector(self, query: Query) -> bool:
        return (
            self.full is not None and query.vector is not None and len(query.vector) == self.width
        )

    def _seen(self, view: View | None, queries: Sequence[Query]) -> Seen:
        words = self.space.matrix([query.text for query in queries])
        labels = [query.category for query in queries]
        if view is self.full and all(self._sees_vector(query) for query in queries):
            vectors = _vectors(queries)
        elif view is self.full:
            vectors = np.zeros((len(queries), self.width), np.float32)
        else:
            vectors = sketch(words)
        return Seen(words, vectors, structures(queries), labels)

    def _estimate(
        self, view: View | None, queries: Sequence[Query]
    ) -> tuple[Floats, Floats, Floats]:
        if view is None:
            rates = np.tile(self.rates, (len(queries), 1))
            found = ViewEstimates(rates, rates[:, :, None], np.zeros(len(queries)))
        else:
            found = view.estimate(seen := self._seen(view, queries))
            found = replace(found, evidence=found.evidence * self._familiarity(queries, seen))
        evidence = found.evidence
        quality, spread = self._hedged(found, evidence)
        if not self.adopted:
            return quality, spread, evidence
        return self._with_adopted(queries, quality, spread, evidence)

    def _familiarity(self, queries: Sequence[Query], seen: Seen) -> Floats:
        """Return what share of each prompt the estimates are about, 0 to 1."""
        known = self.space.known_share(seen.words)
        for row, query in enumerate(queries):
            known[row] *= min(1.0, _WINDOW / max(1, len(query.text)))
            known[row] *= _UNSEEN if query.has_images and not self.saw_images else 1.0
        return known

    def _hedged(self, found: ViewEstimates, evidence: Floats) -> tuple[Floats, Floats]:
        """Lean towards the base rate where there is little evidence, and say how unsure that is.

        The variance is that of a mean over the evidence, plus how far the
        learners are apart.
        """
        weight = (evidence / (evidence + _PRIOR))[:, None]
        quality = weight * found.quality + (1 - weight) * self.rates
        apart = found.by_learner.var(axis=2)
        seen = np.minimum(evidence[:, None] + _TRUST, self.counts)
        noise = np.maximum(quality * (1 - quality), 0.02) / (seen + 1)
        return np.clip(quality, 0.001, 0.999), np.sqrt(noise + apart)

    def _shares(self, queries: Sequence[Query]) -> Floats:
        view = self.full if self.full and all(map(self._sees_vector, queries)) else self.bare
        if view is None:
            return np.zeros((len(queries), 0))
        return view.frame.clusters.shares(self._seen(view, queries).vectors)

    def _with_adopted(
        self, queries: Sequence[Query], quality: Floats, spread: Floats, evidence: Floats
    ) -> tuple[Floats, Floats, Floats]:
        known, shares = logit(quality), self._shares(queries)
        for joined in self.adopted.values():
            fits = shares.shape[1] == len(joined.offsets)
            used = shares if fits else np.zeros((len(queries), len(joined.offsets)))
            p = expit(joined.log_odds(known, used))[:, None]
            own = p * (1 - p) / (np.minimum(evidence, joined.probes / 10)[:, None] + _TRUST + 1)
            wide = np.sqrt(own + (spread[:, : len(self.models)] ** 2).mean(1, keepdims=True))
            quality, spread = np.hstack([quality, p]), np.hstack([spread, wide])
        return quality, spread, evidence

    def to_state(self) -> State:
        """Return what is kept on disk."""
        parts = {"space": self.space.to_state()}
        parts.update({f"adopted-{i}": a.to_state() for i, a in enumerate(self.adopted.values())})
        parts.update(
            {
                name: view.to_state()
                for name, view in (("bare", self.bare), ("full", self.full))
                if view is not None
            }
        )
        values = {
            "models": list(self.models),
            "adopted": list(self.adopted),
            "structure": list(STRUCTURE),
            "width": self.width,
            "saw_images": self.saw_images,
        }
        return State(values, {"counts": self.counts, "rates": self.rates}, parts=parts)

    @classmethod
    def from_state(cls, state: State) -> QualityModel:
        """Make it again. Raises QualityError or SurfaceError for what is foreign or damaged."""
        models, adopted = names_of(state, "models"), names_of(state, "adopted")
        if {*models} & {*adopted}:
            raise QualityError("quality model: a model that joined is among the first ones, too")
        if names_of(state, "structure") != list(STRUCTURE):
            raise QualityError("quality model: made for other features; train it again")
        width = state.values.get("width")
        if not models or not isinstance(width, int) or not 0 <= width <= 16_384:
            raise QualityError(f"quality model: expected models and a width, found {width!r:.60}")
        space = TextSpace.from_state(part_of(state, "space"))
        views = {
            name: View.from_state(
                state.parts[name], width=across, words=space.width,
                structure=len(STRUCTURE), models=len(models),
            )
            for name, across in (("bare", SKETCH), ("full", width))
            if name in state.parts
        }  # fmt: skip
        view = views.get("full") or views.get("bare")
        clusters = len(view.frame.clusters.centres) if view else 0
        return cls(
            models=tuple(models),
            counts=np.maximum(array_of(state, "counts", (len(models),)).astype(np.float64), 0),
            rates=np.clip(array_of(state, "rates", (len(models),)).astype(np.float64), 0, 1),
            space=space,
            bare=views.get("bare"),
            full=views.get("full"),
            width=width,
            saw_images=state.values.get("saw_images") is True,
            adopted={
                name: Adopted.from_state(
                    part_of(state, f"adopted-{i}"), models=len(models), clusters=clusters
                )
                for i, name in enumerate(adopted)
            },
        )


def _width(queries: Sequence[Query]) -> int:
    """Return the width of the vectors; 0 unless every query has one of the same."""
    widths = {0 if query.vector is None else len(query.vector) for query in queries}
    return widths.pop() if len(widths) == 1 else 0


def _vectors(queries: Sequence[Query]) -> NDArray[np.float32]:
    rows: Any = [query.vector for query in queries]
    return np.asarray(rows, dtype=np.float32)
