"""What `frugal predict` does: prompts in, foretold quality and cost out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.learning.errors import LearningError
from gateway.learning.vectors import with_vectors

if TYPE_CHECKING:
    from router.outcomes import Outcomes

_FIELDS = ("query_id", "model", "prompt", "messages", "category", "response", "finish_reason",
           "prompt_tokens", "response_format", "tools", "tool_calls")  # fmt: skip


def foretell_file(bundle: Path, source: Path, out: Path, rates: Sequence[float]) -> int:
    """Foretell every prompt of a file; return how many rows were written.

    Raises LearningError, or an error of the router's.
    """
    from router.bundled import load_learnt
    from router.evaluate import foretell
    from router.learn_table import LearnTable

    if out.suffix not in (".jsonl", ".parquet"):
        raise LearningError(f"{out}: expected a .jsonl or .parquet file to write")
    bundled = load_learnt(bundle)
    models = bundled.learnt.models
    rows = list(_rows(source, models))
    if not rows:
        raise LearningError(f"{source}: expected rows with a prompt or messages, found none")
    table = LearnTable.from_rows(_columns(rows), models)
    table, _ = with_vectors(table, bundled.about.get("embedder"), lambda what, share: None)
    points = {f"{rate:g}": rate for rate in rates}
    if bundled.operating.mix is not None:
        points["bundle"] = bundled.operating.mix.rate
    if any(not 0 < rate < float("inf") for rate in points.values()):
        raise LearningError("--rate: expected exchange rates above 0")
    found = foretell(bundled.learnt, bundled.operating, table, points)
    _write(out, found)
    return len(found)


def _rows(source: Path, models: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield rows with a query, one of the bundle's models and, where there is one, its reply."""
    from router.outcome_files import Selection, files_of, reader_of
    from router.outcomes import check_values

    number = 0
    for file in files_of(source, None):
        wanted = Selection(_FIELDS, None, set())
        for chunk in reader_of(file)(file, wanted):
            columns = chunk.columns
            if "prompt" not in columns and "messages" not in columns:
                raise LearningError(f"{file}: expected a column `prompt` or `messages`")
            numbers = columns.get("query_id")
            if numbers is not None:
                columns["query_id"] = [str(each) if each else None for each in numbers]
            check_values(chunk, nullable=("query_id", "model"))
            for at in range(len(chunk.rows)):
                row = {name: columns[name][at] for name in columns}
                number += 1
                row.setdefault("query_id", None)
                row["query_id"] = row["query_id"] or f"row-{number}"
                if row.get("model") not in models:
                    row["model"], row["response"] = models[0], None
                yield row


def _columns(rows: Sequence[Mapping[str, Any]]) -> Outcomes:
    from router.outcomes import Outcomes

    unique = {(row["query_id"], row["model"]): row for row in rows}
    chosen = list(unique.values())
    columns = {name: [row.get(name) for row in chosen] for name in _FIELDS}
    columns["sample"] = [0] * len(chosen)
    return Outcomes(columns)


def _write(out: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    if out.suffix == ".jsonl":
        lines = (msgspec.json.encode(row) for row in rows)
        out.write_bytes(b"\n".join(lines) + b"\n")
        return
    import pyarrow
    import pyarrow.parquet

    flat = [{**row, "decisions": msgspec.json.encode(row["decisions"]).decode()} for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(flat), out)
