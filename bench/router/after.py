"""Drafts of pairs of models, judged after they were written: the rows of `bench.router_post`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.router.crossfit import Fitted, fitted, some
from bench.router.pairs import held_out
from bench.router.sets import ZEROEVAL, outcomes
from router.beliefs import Beliefs, Seen
from router.calibration import error_by_chance
from router.drafts import Drafts
from router.learn_table import LearnTable
from router.metrics import Interval, apgr, auroc, brier, calibration_error, interval
from router.signs import Checked
from router.types import Draft

SMALL = (
    "Meta-Llama-3.1-8B-Instruct", "Qwen2-7B-Instruct", "gemma-2-2b-it", "gemma-2-9b-it",
    "Phi-3.5-mini-instruct", "Meta-Llama-3-8B-Instruct", "gpt-4o-mini-2024-07-18",
)  # fmt: skip
Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
_BEFORE = "before generating"


@dataclass(frozen=True, slots=True)
class Pair:
    """A set of questions, the draft's model, the one asked beside it, and the one above."""

    sets: tuple[str, ...]
    models: tuple[str, ...]
    small: str
    beside: str | None
    large: str
    judged: tuple[str, ...]


PAIRS = {
    "zeroeval": Pair(
        ZEROEVAL, (*SMALL, "claude-3-5-sonnet-20240620"), SMALL[0], SMALL[1],
        "claude-3-5-sonnet-20240620", SMALL,
    ),
    "gsm8k": Pair(
        ("routellm_gsm8k",), ("mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"),
        "mistralai/Mixtral-8x7B-Instruct-v0.1", None, "gpt-4-1106-preview",
        ("mistralai/Mixtral-8x7B-Instruct-v0.1",),
    ),
    "mmlu_pro": Pair(
        ("mmlu_pro",),
        ("Meta-Llama-3_1-8B-Instruct", "Phi-3-mini-4k-instruct", "mathstral-7B",
         "gemini-1.5-pro-002"),
        "Meta-Llama-3_1-8B-Instruct", "Phi-3-mini-4k-instruct", "gemini-1.5-pro-002",
        ("Meta-Llama-3_1-8B-Instruct", "Phi-3-mini-4k-instruct", "mathstral-7B"),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """How one pair's drafts were judged; `chance` is the calibration error of a perfect judge."""

    pair: str
    judged: str
    labels: int | None
    leave: str
    auroc: Interval
    brier: Interval
    ece: float
    chance: float
    by_confidence: Interval
    by_gain: Interval
    by_gain_of_50: Interval


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What is foretold of every query: the draft's quality, and that of the model above."""

    small: Floats
    large: Floats

    @classmethod
    def nothing(cls, rows: int) -> Told:
        """Return one to be filled in."""
        return cls(np.full(rows, np.nan), np.full(rows, 0.5))


class Drafted:
    """A pair's queries and their drafts, read once; see `rows`."""

    def __init__(self, name: str, pair: Pair, table: LearnTable) -> None:
        self._name, self._pair, self._table = name, pair, table
        self._at = {each: place for place, each in enumerate(pair.models)}
        self._drafts = Drafts.read(table)

    @classmethod
    def read(cls, name: str, data: Path) -> Drafted:
        """Read a pair's outcomes where both of its models are scored."""
        pair = PAIRS[name]
        table = outcomes(data, pair.sets, pair.models, replies=True)
        both = [pair.models.index(each) for each in (pair.small, pair.large)]
        return cls(name, pair, table.subset(~np.isnan(table.score[:, both]).any(axis=1)))

    def rows(
        self, labels: int | None, leave: str, without: tuple[str, ...], seed: int
    ) -> Iterator[Row]:
        """Yield the figures before generating, of drafts alone, and beside another cheap model's.

        `labels` says how many queries of a training fold are scored; None is all of them.
        """
        folds = held_out(self._table, leave, seed)
        if labels == 0:
            return iter([self._row("alone", self._by_signs(), labels, leave)])
        found = {each: Told.nothing(len(self._table)) for each in (_BEFORE, *self._settings())}
        for number, (inside, outside) in enumerate(folds):
            inside = np.random.default_rng((seed, number)).permutation(inside)[:labels]
            for setting, told in self._foretold(inside, outside, without).items():
                found[setting].small[outside], found[setting].large[outside] = told
        return (self._row(setting, told, labels, leave) for setting, told in found.items())

    def _settings(self) -> dict[str, tuple[int, ...]]:
        """Return whose drafts are there, the judged one first."""
        small, beside = self._at[self._pair.small], self._pair.beside
        more = {} if beside is None else {f"beside {beside}": (small, self._at[beside])}
        return {"alone": (small,), **more}

    def _foretold(
        self, inside: Rows, outside: Rows, without: tuple[str, ...]
    ) -> Mapping[str, tuple[Floats, Floats]]:
        judged = [self._at[each] for each in self._pair.judged]
        parts = fitted(
            self._table, self._drafts, inside, outside, judged=judged, without=without
        )  # fmt: skip
        small, large = self._at[self._pair.small], self._at[self._pair.large]
        first, drafts = parts.first[outside], some(self._drafts, outside)
        routes = [self._table.source[int(row)] for row in outside]
        found = {_BEFORE: (first[:, small], first[:, large])}
        beliefs = self._beliefs(parts)
        for setting, calls in self._settings().items():
            quality = parts.scorer.quality(drafts, first, calls, routes)
            after = beliefs.after(first, Seen(calls, _known(quality, first[:, list(calls)])))
            found[setting] = quality[:, 0], after[:, large]
        return found

    def _beliefs(self, parts: Fitted) -> Beliefs:
        """Learn what a draft says of the model above, from drafts that the judge did not see."""
        rows = parts.inside
        drafts, first = some(self._drafts, rows), parts.first[rows]
        routes = [self._table.source[int(row)] for row in rows]
        seen = [
            Seen(calls, parts.held.quality(drafts, first, calls, routes))
            for calls in self._settings().values()
        ]
        large = self._at[self._pair.large]
        return Beliefs.fit(first, seen, self._table.score[rows], large, 0.0)

    def _by_signs(self) -> Told:
        told = Told.nothing(len(self._table))
        model = self._at[self._pair.small]
        for row, query in enumerate(self._table.queries):
            cell = self._table.cell(row, model)
            text = (cell.response if cell else None) or ""
            draft = Draft(self._pair.small, text, "stop")
            told.small[row] = Checked(query).signs(draft).raw
        return told

    def _row(self, setting: str, told: Told, labels: int | None, leave: str) -> Row:
        one = self._table.score[:, self._at[self._pair.small]]
        other = self._table.score[:, self._at[self._pair.large]]
        quality, gain = told.small, told.large - told.small

        def figure(of: Callable[[Rows], float]) -> Interval:
            return interval(of, len(one), resamples=300)

        return Row(
            self._name, setting, labels, leave,
            auroc=figure(lambda at: auroc(quality[at], one[at] > 0.5)),
            brier=figure(lambda at: brier(quality[at], one[at])),
            ece=calibration_error(quality, one),
            chance=error_by_chance(quality),
            by_confidence=figure(lambda at: apgr(one[at], other[at], -quality[at])),
            by_gain=figure(lambda at: apgr(one[at], other[at], gain[at])),
            by_gain_of_50=figure(lambda at: apgr(one[at], other[at], gain[at], points=50)),
        )  # fmt: skip


def _known(quality: Floats, expected: Floats) -> Floats:
    """Return the drafts' qualities; where one is not there, what was expected of it."""
    return np.where(np.isnan(quality), expected, quality)


def judged_pair(
    name: str,
    data: Path,
    budgets: Sequence[int | None],
    leave: str,
    without: Sequence[str],
    seed: int,
) -> Iterator[Row]:
    """Yield the figures of one pair for each budget of labels, its drafts read once."""
    drafted = Drafted.read(name, data)
    for labels in budgets:
        yield from drafted.rows(labels, leave, tuple(without), seed)
