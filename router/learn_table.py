"""The training table as matrices: queries down, models across.

Several replies of one model to one query (`sample`, or a row that repeats
another's key) are averaged. What was not observed is NaN, never a zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.forms import FORMS, wanted_of
from router.outcomes import Outcome, Outcomes, read_outcomes
from router.query import Query, content_key, group_key, query_of
from router.types import OutcomesError

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

_NUMBERS = ("score", "prompt_tokens", "completion_tokens", "cost_usd", "latency_s")
_FEW_TWINS = 8
_OF_QUERY = ("split", "category", "prompt", "messages", *FORMS)
REPLY_COLUMNS: tuple[str, ...] = (
    "response", "tool_calls", "finish_reason", "reference", "propensity", "margin", "entropy",
    *(f"logprob_q{share}" for share in ("00", "05", "10", "20", "50")),
)  # fmt: skip
"""What `from_outcomes(replies=True)` reads on top, for `cell`."""


@dataclass(frozen=True, slots=True, eq=False)
class LearnTable:
    """Aligned rows: `queries[i]` has its scores in `score[i]`, one column a model.

    The matrices are float64 [queries, models], NaN where unknown. `source[i]`
    names the table a query comes from, `ids[i]` is its `query_id` there.
    """

    queries: Sequence[Query]
    models: tuple[str, ...]
    score: Floats
    prompt_tokens: Floats
    completion_tokens: Floats
    cost_usd: Floats
    latency_s: Floats
    ids: Sequence[str]
    split: Sequence[str | None]
    source: Sequence[str]
    group: Sequence[str]
    _cells: NDArray[np.int64]
    _tables: Sequence[Outcomes]

    def __len__(self) -> int:
        return len(self.queries)

    @classmethod
    def from_outcomes(
        cls,
        paths: Path | Sequence[Path],
        *,
        models: Sequence[str] | None = None,
        split: str | None = None,
        replies: bool = False,
    ) -> LearnTable:
        """Read one or more outcomes tables.

        `models` also orders the columns; without it they are sorted. Equal
        questions of different tables stay rows of their own, but share a group.
        Raises OutcomesError for what `read_outcomes` refuses, for a table without
        queries, prompts or scores, and for one query in two splits.
        """
        files = [paths] if isinstance(paths, Path) else list(paths)
        read = [_read(path, models, split, replies) for path in files]
        names = tuple(models) if models is not None else _names(read)
        parts = [_part(file, found, names) for file, found in zip(files, read, strict=True)]
        table = _joined(parts, names, read)
        _check(table, files)
        return table

    @classmethod
    def from_rows(cls, rows: Outcomes, models: Sequence[str]) -> LearnTable:
        """Return a table of rows at hand, scored or not; each names one of the models."""
        return _joined([_part(Path("rows"), rows, models)], tuple(models), [rows])

    @property
    def repeated(self) -> int:
        """Return how many rows repeated the key of another, in the tables that were read."""
        return sum(table.repeated for table in self._tables)

    @property
    def scored_against(self) -> tuple[str, ...]:
        """Return the models whose answers the scores were set against; empty for none."""
        told = (table.columns.get("scored_against", ()) for table in self._tables)
        return tuple(sorted({name for column in told for name in column if name}))

    @property
    def categories(self) -> list[str | None]:
        """Return the category of each query."""
        return [query.category for query in self.queries]

    def subset(self, rows: Any) -> LearnTable:
        """Return these rows, by number or by mask, in that order."""
        chosen = np.asarray(rows)
        at = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.intp)
        chosen_columns: dict[str, Any] = {
            name: getattr(self, name)[at] for name in (*_NUMBERS, "_cells")
        }
        for name in ("queries", "ids", "split", "source", "group"):
            chosen_columns[name] = [getattr(self, name)[i] for i in at]
        return replace(self, **chosen_columns)

    def of_models(self, models: Sequence[str]) -> LearnTable:
        """Return the columns of these models, in that order. Raises OutcomesError."""
        missing = [name for name in models if name not in self.models]
        if missing:
            raise OutcomesError(
                f"expected models of the table, found {missing[0]!r}; it has "
                + ", ".join(self.models)
            )
        at = [self.models.index(name) for name in models]
        arrays = {name: getattr(self, name)[:, at] for name in (*_NUMBERS, "_cells")}
        return replace(self, models=tuple(models), **arrays)

    def of_split(self, *splits: str | None) -> LearnTable:
        """Return the rows of these splits."""
        return self.subset(np.array([name in splits for name in self.split], dtype=bool))

    def with_vectors(self, vectors: NDArray[Any] | None) -> LearnTable:
        """Return the table with one embedding a query, or (None) with none at all."""
        rows: Any = [None] * len(self) if vectors is None else vectors
        queries = [replace(q, vector=v) for q, v in zip(self.queries, rows, strict=True)]
        return replace(self, queries=queries)

    def without_categories(self) -> LearnTable:
        """Return the table as it is for an operator who says nothing of the requests."""
        return replace(self, queries=[replace(q, category=None) for q in self.queries])

    def folds(self, k: int = 5, seed: int = 0) -> Iterator[tuple[Rows, Rows]]:
        """Yield (rows to fit on, rows held out) k times.

        Near-duplicates stay together; each category is spread over the folds.
        """
        fold = self.fold_of(k, seed)
        for held in range(k):
            yield np.flatnonzero(fold != held), np.flatnonzero(fold == held)

    def fold_of(self, k: int = 5, seed: int = 0) -> Rows:
        """Return the fold of each row, as `folds` deals them."""
        if k < 2:
            raise OutcomesError(f"expected at least 2 folds, found {k}")
        groups = self._dealt_together(k)
        first: dict[str, int] = {}
        for row, group in enumerate(groups):
            first.setdefault(group, row)
        chance = np.random.default_rng(seed).permutation(len(first))
        strata = [str(self.queries[row].category) for row in first.values()]
        order = sorted(range(len(first)), key=lambda g: (strata[g], chance[g]))
        dealt = {group: turn % k for turn, group in enumerate(np.array(list(first))[order])}
        return np.array([dealt[group] for group in groups], dtype=np.intp)

    def _dealt_together(self, k: int) -> list[str]:
        """Return what stays in one fold: a group, or single questions where a group is too large.

        Prompts made from one template differ in their numbers alone. Where they are a large
        part of the traffic, they are the traffic, and a fold cannot hold them all.
        """
        most = max(_FEW_TWINS, len(self) // (4 * k))
        sizes = Counter(self.group)
        return [
            group if sizes[group] <= most else content_key(query.text)
            for group, query in zip(self.group, self.queries, strict=True)
        ]

    def cell(self, row: int, model: int) -> Outcome | None:
        """Return what a model replied, its first sample; None where it was not asked.

        Has texts and log-probabilities only after `from_outcomes(replies=True)`.
        """
        place = int(self._cells[row, model])
        if place < 0:
            return None
        table = self._tables[place >> 40]
        at = place & ((1 << 40) - 1)
        return Outcome(**{name: values[at] for name, values in table.columns.items()})


def _read(path: Path, models: Collection[str] | None, split: str | None, replies: bool) -> Outcomes:
    table = read_outcomes(path, models=models, split=split, allow_repeats=True)
    for needed, other in (("prompt", "messages"), ("score", "score")):
        if needed not in table.columns and other not in table.columns:
            raise OutcomesError(f"{path}: column {needed!r} is missing; learning needs it")
    wanted = {*_NUMBERS, *_OF_QUERY, "query_id", "model", "sample", "scored_against"}
    wanted.update(REPLY_COLUMNS if replies else ())
    kept = {name: values for name, values in table.columns.items() if name in wanted}
    return Outcomes(kept, table.repeated)


def _names(read: Sequence[Outcomes]) -> tuple[str, ...]:
    return tuple(sorted({model for table in read for model in table.column("model")}))


@dataclass(frozen=True, slots=True)
class _Part:
    """One table, pivoted."""

    ids: list[str]
    queries: list[Query]
    split: list[str | None]
    source: list[str]
    numbers: Mapping[str, Floats]
    cells: NDArray[np.int64]


def _part(path: Path, table: Outcomes, models: Sequence[str]) -> _Part:
    first: dict[str, int] = {}
    for at, query in enumerate(table.column("query_id")):
        first.setdefault(query, at)
    number = {query: row for row, query in enumerate(first)}
    column = {model: index for index, model in enumerate(models)}
    rows = np.array([number[query] for query in table.column("query_id")], dtype=np.intp)
    columns = np.array([column[model] for model in table.column("model")], dtype=np.intp)
    shape = (len(first), len(models))
    ids = list(first)
    splits = table.columns.get("split") or [None] * len(table)
    return _Part(
        ids=ids,
        queries=[_query(table, at) for at in first.values()],
        split=[splits[at] for at in first.values()],
        source=[path.stem if path.is_file() else path.name] * len(ids),
        numbers={name: _mean(table, name, rows, columns, shape) for name in _NUMBERS},
        cells=_first_cells(table, rows, columns, shape),
    )


def _query(table: Outcomes, at: int) -> Query:
    def value(name: str) -> Any:
        column = table.columns.get(name)
        return None if column is None else column[at]

    wanted = wanted_of(*(value(name) for name in FORMS))
    known: dict[str, Any] = {
        "category": value("category"),
        "input_tokens": value("prompt_tokens"),
        "wanted": wanted,
        "has_tools": wanted.tools is not None,
        "json_schema": wanted.schema is not None,
    }
    messages = value("messages")
    if messages:
        return query_of(messages, **known)
    return Query(text=value("prompt") or "", **known)


def _mean(table: Outcomes, name: str, rows: Rows, columns: Rows, shape: tuple[int, int]) -> Floats:
    """Return the mean over samples; NaN where there is none."""
    found = table.columns.get(name)
    if found is None:
        return np.full(shape, np.nan)
    values = np.array([np.nan if value is None else value for value in found], dtype=np.float64)
    known = ~np.isnan(values)
    total, count = np.zeros(shape), np.zeros(shape)
    np.add.at(total, (rows[known], columns[known]), values[known])
    np.add.at(count, (rows[known], columns[known]), 1)
    mean: Floats = np.divide(total, count, out=np.full(shape, np.nan), where=count > 0)
    return mean


def _first_cells(
    table: Outcomes, rows: Rows, columns: Rows, shape: tuple[int, int]
) -> NDArray[np.int64]:
    cells = np.full(shape, -1, dtype=np.int64)
    order = np.argsort(np.array(table.column("sample"), dtype=np.int64), kind="stable")[::-1]
    cells[rows[order], columns[order]] = order  # the lowest sample is written last, and stays
    return cells


def _joined(
    parts: Sequence[_Part], models: tuple[str, ...], tables: Sequence[Outcomes]
) -> LearnTable:
    queries = [query for part in parts for query in part.queries]
    numbers = {name: np.concatenate([p.numbers[name] for p in parts]) for name in _NUMBERS}
    cells = [np.where(p.cells < 0, -1, p.cells | (at << 40)) for at, p in enumerate(parts)]
    return LearnTable(
        queries=queries,
        models=models,
        **numbers,
        ids=[each for part in parts for each in part.ids],
        split=[each for part in parts for each in part.split],
        source=[each for part in parts for each in part.source],
        group=[group_key(query.text) for query in queries],
        _cells=np.concatenate(cells),
        _tables=tables,
    )


def _check(table: LearnTable, files: Sequence[Path]) -> None:
    where = ", ".join(str(file) for file in files)
    if not len(table):
        raise OutcomesError(f"{where}: expected queries to learn from, found none")
    if np.isnan(table.score).all():
        raise OutcomesError(f"{where}: expected a score (0 to 1) in some rows, found none")
    seen: dict[tuple[str, str], tuple[int, str | None]] = {}
    for row, (query, source, split) in enumerate(
        zip(table.queries, table.source, table.split, strict=True)
    ):
        before, other = seen.setdefault((source, content_key(query.text)), (row, split))
        if other != split and query.text:
            raise OutcomesError(
                f"{where}: query {table.ids[row]!r} of split {split!r} asks the same as "
                f"{table.ids[before]!r} of split {other!r}; a test on it would flatter: "
                "drop it from one of them"
            )
