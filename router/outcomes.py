"""The training table: what a model replied to a request, and how good that was.

One row is one reply. A table is a parquet file, a JSONL file (one object a
line), or a folder of such files, one a split (`train.parquet`, `dev.parquet`).
Columns that are not listed in `COLUMNS` are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from router.forms import is_list, is_object
from router.outcome_files import Chunk, Selection, files_of, reader_of
from router.types import OutcomesError


@dataclass(frozen=True, slots=True)
class Outcome:
    """One reply of one model. What is not known is None.

    `prompt` is the text of the last user message, `messages` the whole
    conversation. `sample` numbers several replies of one model to one query.
    `score` is 0 (wrong) to 1 (right). `logprob_q05` is the 5 % quantile of the
    tokens' natural log-probabilities, and so on; `logprob_q00` is the lowest.
    `response_format` and `tools` are what the request asked of the reply's form, `tool_calls`
    what the reply called, all as in the API or as JSON text.
    `margin` and `entropy` are means over the tokens. `propensity` is the
    probability with which the router chose this model. `scored_against` is the model whose own
    answer a score was set against, where it was: then 1 says "no worse than that".
    """

    query_id: str
    model: str
    sample: int = 0
    split: str | None = None
    category: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    response_format: dict[str, Any] | str | None = None
    tools: list[dict[str, Any]] | str | None = None
    reference: str | None = None
    response: str | None = None
    tool_calls: list[dict[str, Any]] | str | None = None
    finish_reason: str | None = None
    score: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_usd: float | None = None
    latency_s: float | None = None
    logprob_q00: float | None = None
    logprob_q05: float | None = None
    logprob_q10: float | None = None
    logprob_q20: float | None = None
    logprob_q50: float | None = None
    margin: float | None = None
    entropy: float | None = None
    route: str | None = None
    propensity: float | None = None
    scored_against: str | None = None


COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(Outcome))
_KEY = ("query_id", "model", "sample")
_REQUIRED = ("query_id", "model")
_Seen = dict[tuple[Any, ...], tuple[Path, int]]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """A table by column; `columns` has one list per column that was read, of equal length.

    `repeated` counts the rows that had the key of another and got a `sample` of their own.
    """

    columns: Mapping[str, Sequence[Any]]
    repeated: int = 0

    def __len__(self) -> int:
        return len(self.columns["query_id"])

    def __iter__(self) -> Iterator[Outcome]:
        names = tuple(self.columns)
        for values in zip(*self.columns.values(), strict=True):
            yield Outcome(**dict(zip(names, values, strict=True)))

    def column(self, name: str) -> Sequence[Any]:
        """Return one column. Raises KeyError when it was not read."""
        return self.columns[name]


def read_outcomes(
    path: Path,
    *,
    columns: Collection[str] | None = None,
    models: Collection[str] | None = None,
    split: str | None = None,
    allow_repeats: bool = False,
) -> Outcomes:
    """Read a table, or of it these columns, models and this split.

    The key (query_id, model, sample) is always read. Without `columns`, every
    known column that the files have is; those named must be there. Raises
    OutcomesError for a file, column, model or split that is missing, for a
    value out of its range, and for a reply that occurs twice; with
    `allow_repeats` such a one is numbered as a further sample.
    """
    wanted = None if columns is None else _known(columns, path)
    read: dict[str, list[Any]] = {}
    seen: _Seen = {}
    repeated = 0
    selection = Selection(wanted or COLUMNS, models, set())
    for file in files_of(path, split):
        for chunk in _chunks(file, selection, wanted or _REQUIRED):
            check_values(chunk)
            if allow_repeats:
                repeated += _number_repeats(chunk, seen)
            else:
                _check_unique(chunk, seen)
            _append(read, chunk)
    if models is not None:
        _check_models(path, models, set(read.get("model", ())), selection.others)
    return Outcomes(read or {name: [] for name in _KEY}, repeated)


def _known(columns: Collection[str], path: Path) -> tuple[str, ...]:
    for name in columns:
        if name not in COLUMNS:
            raise OutcomesError(
                f"{path}: {name!r} is no column of an outcomes table; known are: "
                + ", ".join(COLUMNS)
            )
    return (*_KEY, *(name for name in columns if name not in _KEY))


def _chunks(file: Path, selection: Selection, needed: Collection[str]) -> Iterator[Chunk]:
    for chunk in reader_of(file)(file, selection):
        if not chunk.columns and file.suffix != ".parquet" and not chunk.rows:
            raise OutcomesError(f"{file}: expected rows with {', '.join(needed)}, found none")
        there = {*chunk.columns, "sample", "split"}
        missing = [name for name in needed if name not in there]
        if missing:
            raise OutcomesError(
                f"{file}: column {missing[0]!r} is missing; found: "
                + (", ".join(chunk.columns) or "none that is known")
            )
        chunk.columns.setdefault("sample", [0] * len(chunk.rows))
        if "split" in selection.columns:
            chunk.columns.setdefault("split", [file.stem] * len(chunk.rows))
        yield chunk


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10**9


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_amount(value: Any) -> bool:
    return _is_number(value) and 0 <= value < float("inf")


def _is_log(value: Any) -> bool:
    return _is_number(value) and value <= 1e-6


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(turn, dict) for turn in value)


_Check = tuple[Callable[[Any], bool], str]
_TEXT: _Check = (_is_text, "a text")
_NAME: _Check = (_is_name, "a text that is not empty")
_COUNT: _Check = (_is_count, "a whole number from 0")
_SHARE: _Check = (_is_share, "a number from 0 to 1; scale it, or leave it null where not known")
_AMOUNT: _Check = (_is_amount, "a number from 0")
_LOG: _Check = (_is_log, "a natural logarithm of a probability: 0 or less")

_CHECKS: Mapping[str, _Check] = {
    **dict.fromkeys(COLUMNS, _TEXT),
    **dict.fromkeys(_REQUIRED, _NAME),
    **dict.fromkeys(("sample", "prompt_tokens", "completion_tokens"), _COUNT),
    **dict.fromkeys(("score", "propensity"), _SHARE),
    **dict.fromkeys(("cost_usd", "latency_s", "margin", "entropy"), _AMOUNT),
    **dict.fromkeys((name for name in COLUMNS if name.startswith("logprob_")), _LOG),
    "messages": (_is_conversation, "a list of messages"),
    "response_format": (is_object, "a JSON object, as requests have it"),
    "tools": (is_list, "a list of tools, as requests have it"),
    "tool_calls": (is_list, "a list of tool calls, as replies have it"),
}


def check_values(chunk: Chunk, *, nullable: Collection[str] = ()) -> None:
    """Refuse what is no value of its column; keys may be null where they are `nullable`.

    Raises OutcomesError.
    """
    for name, values in chunk.columns.items():
        is_right, expected = _CHECKS[name]
        may_be_null = name in nullable or name not in _KEY
        for index, value in enumerate(values):
            if not (is_right(value) or (value is None and may_be_null)):
                message = f"{name}: expected {expected}; found {_shown(value)}"
                raise chunk.problem(index, message)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _check_unique(chunk: Chunk, seen: _Seen) -> None:
    keys = zip(*(chunk.columns[name] for name in _KEY), strict=True)
    for index, (row, key) in enumerate(zip(chunk.rows, keys, strict=True)):
        here = (chunk.file, row)
        first = seen.setdefault(key, here)
        if first is not here:
            query, model, sample = key
            raise chunk.problem(
                index,
                f"query {query!r}, model {model!r}, sample {sample} occurs twice (first in "
                f"{first[0]}, row {first[1]}); drop one, or number several replies of one model "
                "in `sample`",
            )


def _number_repeats(chunk: Chunk, seen: _Seen) -> int:
    """Give each row whose key was seen the next free sample; return how many had to get one."""
    samples, repeated = list(chunk.columns["sample"]), 0
    keys = zip(*(chunk.columns[name] for name in _KEY), strict=True)
    for index, (row, (query, model, sample)) in enumerate(zip(chunk.rows, keys, strict=True)):
        if (query, model, sample) in seen:
            repeated += 1
            while (query, model, samples[index]) in seen:
                samples[index] += 1
        seen[query, model, samples[index]] = (chunk.file, row)
    chunk.columns["sample"] = samples
    return repeated


def _append(read: dict[str, list[Any]], chunk: Chunk) -> None:
    """Add rows; a column that only some files have is filled up with None."""
    before = len(next(iter(read.values()), ()))
    for name in chunk.columns:
        read.setdefault(name, [None] * before)
    for name, values in read.items():
        values.extend(chunk.columns.get(name) or [None] * len(chunk.rows))


def _check_models(
    path: Path, wanted: Collection[str], found: set[str], others: Collection[str]
) -> None:
    for model in wanted:
        if model not in found:
            known = {*others, *found}
            near = get_close_matches(model, known, n=3, cutoff=0.5) or sorted(known)[:8]
            hint = f"; did you mean {', '.join(near)}?" if near else "; the table is empty"
            raise OutcomesError(f"{path}: no replies of model {model!r}{hint}")
