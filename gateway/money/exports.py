"""The ledger's requests as a file for others: CSV or Parquet, written a batch at a time."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import select

from gateway.money.databases import reading
from gateway.money.errors import ReportError
from gateway.money.reports import started_since
from gateway.money.schema import entry

_AT_ONCE = 5_000
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_WORDS = ("request_id", "state", "tenant", "key", "tags", "route", "model", "requested_model",
          "cache", "path", "reference_model", "error")  # fmt: skip
_COLUMNS = tuple(column.name for column in entry.c)

Batch = Sequence[dict[str, Any]]


def export(
    url: str,
    target: Path,
    *,
    since: str | None = None,
    now: datetime | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Write one row a request, oldest first, to a `.csv` or `.parquet`; return how many.

    The file appears when it is whole. `progress` is told how many were written
    so far. Raises ReportError, LedgerError, and OSError where the disk is at fault.
    """
    write = _writer_of(target)
    part = target.with_name(f"{target.name}.part")
    count = 0

    def counted() -> Iterator[Batch]:
        nonlocal count
        for batch in _batches(url, since, now):
            yield batch
            count += len(batch)
            progress(count)

    try:
        write(part, counted())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return count


def _writer_of(target: Path) -> Callable[[Path, Iterator[Batch]], None]:
    if target.suffix == ".csv":
        return _write_csv
    if target.suffix != ".parquet":
        raise ReportError(f"expected a file named .csv or .parquet, found {target.name!r}")
    if find_spec("pyarrow") is None:
        raise ReportError("Parquet needs pyarrow: pip install 'frugal-gateway[recorded]'")
    return _write_parquet


def _batches(url: str, since: str | None, now: datetime | None) -> Iterator[Batch]:
    wanted = select(entry).where(started_since(since, now))
    wanted = wanted.order_by(entry.c.started_at_us, entry.c.request_id)
    with reading(url) as connection:
        found = connection.execution_options(stream_results=True).execute(wanted)
        for rows in found.partitions(_AT_ONCE):
            yield [row._asdict() for row in rows]


def _write_csv(path: Path, batches: Iterator[Batch]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("started_at", *_COLUMNS))
        for batch in batches:
            writer.writerows(_cells(row) for row in batch)


def _cells(row: dict[str, Any]) -> list[Any]:
    moment = datetime.fromtimestamp(row["started_at_us"] / 1e6, UTC)
    texts = {name: harmless(row[name]) for name in _WORDS}
    told = {**row, **texts}
    return [moment.isoformat(timespec="milliseconds"), *(told[name] for name in _COLUMNS)]


def harmless(text: str | None) -> str | None:
    """Keep a spreadsheet from taking what a client sent for a formula.

    See OWASP, CSV injection.
    """
    return f"'{text}" if text and text.startswith(_FORMULA) else text


def _write_parquet(path: Path, batches: Iterator[Batch]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {name: pa.string() for name in _WORDS}
    schema = pa.schema([(name, kinds.get(name, pa.int64())) for name in _COLUMNS])
    with parquet.ParquetWriter(path, schema) as writer:
        for batch in batches:
            writer.write_table(pa.Table.from_pylist(list(batch), schema=schema))
