"""The public outcomes that the tables are about: read, cleaned, with vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.cache_vectors import Vectors
from router.learn_table import LearnTable


@dataclass(frozen=True, slots=True)
class PairTask:
    """Two models on one or more datasets."""

    name: str
    datasets: tuple[str, ...]
    small: str
    large: str


_MIXTRAL, _GPT4 = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
ZEROEVAL = ("zeroeval_gsm8k", "zeroeval_math_l5", "zeroeval_crux")
TASKS = {
    task.name: task
    for task in (
        PairTask("mmlu", ("routellm_mmlu",), _MIXTRAL, _GPT4),
        PairTask("gsm8k", ("routellm_gsm8k",), _MIXTRAL, _GPT4),
        PairTask("mmlu-pro", ("mmlu_pro",), "Meta-Llama-3_1-8B-Instruct", "gemini-1.5-pro-002"),
        PairTask("zeroeval", ZEROEVAL, "Meta-Llama-3.1-8B-Instruct", "claude-3-5-sonnet-20240620"),
    )
}
"""The pairs of the published protocols and of the goals."""


def pair_table(data: Path, task: PairTask, *, vectors: bool = True) -> LearnTable:
    """Read a pair's outcomes: both models known, RouteLLM's contaminated prompts left out."""
    table = outcomes(data, task.datasets, (task.small, task.large), vectors=vectors)
    return table.subset(~np.isnan(table.score).any(axis=1))


def outcomes(
    data: Path,
    datasets: Sequence[str],
    models: Sequence[str] | None,
    *,
    vectors: bool = True,
    replies: bool = False,
) -> LearnTable:
    """Read datasets into one table, without the prompts that RouteLLM marks as contaminated."""
    paths = [data / name for name in datasets]
    table = LearnTable.from_outcomes(paths, models=models, replies=replies)
    dirty = {(name, query) for name in datasets for query in contaminated(data / name)}
    keys = zip(table.source, table.ids, strict=True)
    table = table.subset(np.array([key not in dirty for key in keys], dtype=bool))
    if not vectors:
        return table
    known = {text: row for name in datasets for text, row in _vectors(data / name)}
    return table.with_vectors(np.stack([known[query.text] for query in table.queries]))


def _vectors(folder: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield each prompt with MiniLM's vector, computed once for a dataset."""
    texts = sorted({text for text in _column(folder, "prompt") if text is not None})
    yield from zip(texts, Vectors().of(folder.name, texts), strict=True)


def _column(folder: Path, name: str) -> list[Any]:
    import pyarrow.parquet

    files = [file for file in sorted(folder.glob("*.parquet"))
             if name in pyarrow.parquet.read_schema(file).names]  # fmt: skip
    tables = [pyarrow.parquet.read_table(file, columns=[name]) for file in files]
    return [value for table in tables for value in table.column(name).to_pylist()]


def contaminated(folder: Path) -> set[str]:
    """Return the queries that RouteLLM's authors found in their training data."""
    flags = _column(folder, "contaminated")
    return {
        query for query, is_bad in zip(_column(folder, "query_id"), flags, strict=False) if is_bad
    }
