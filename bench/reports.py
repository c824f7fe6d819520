"""What a report takes over many entries, of which only sums are read.

    python -m bench.reports --entries 1000000

Fills a ledger in a temporary folder with entries of 90 days, 8 models, 40 keys
and two tags, adds them up, and tells the processor time of each report of the last
30 days and of all.
"""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.ledger import records
from gateway.money.records import AttemptRecord, EntryRecord
from gateway.money.reports import WAYS, cost_report
from gateway.money.rollup import Rollup
from gateway.money.sqlite import SqliteStore

_DAYS = 90
_AT_ONCE = 5_000


def lines(count: int) -> Iterator[tuple[EntryRecord, AttemptRecord]]:
    """Make the lines of so many requests, in the order of their time."""
    end = int(time.time() * 1e6)
    step = _DAYS * 86_400_000_000 // count
    for number in range(count):
        entry, (attempt,) = records(number)
        model = f"model-{number % 8}"
        yield (
            replace(
                entry,
                started_at_us=end - (count - number) * step,
                key=f"key-{number % 40}",
                model=model,
                tags=("batch",) if number % 3 else ("night", "batch"),
            ),
            replace(attempt, model=model),
        )


def fill(path: Path, count: int, console: Console) -> None:
    """Write the ledger."""
    store = SqliteStore(path)
    store.open()
    made = lines(count)
    for _ in track(range(0, count, _AT_ONCE), "writing", console=console, transient=True):
        batch = [pair for _, pair in zip(range(_AT_ONCE), made, strict=False)]
        store.commit([entry for entry, _ in batch], [attempt for _, attempt in batch])
    store.close()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path, help="where to write (default: temporary)")
    asked = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(dir=asked.directory) as folder:
        path = Path(folder) / "ledger.db"
        fill(path, asked.entries, console)
        rollup = Rollup(path)
        began = time.process_time()
        while rollup.step():
            pass
        adding = time.process_time() - began
        with contextlib.closing(sqlite3.connect(path)) as connection:
            (cells,) = connection.execute("SELECT count(*) FROM rollup").fetchone()
        table = Table("by", "last 30 days, ms", "all, ms", title=f"{asked.entries:,} entries")
        cost_report(f"sqlite:///{path}")
        for by in WAYS:
            table.add_row(by, *(f"{_milliseconds(path, by, since):.0f}" for since in ("30d", None)))
        console.print(table)
    each = adding / asked.entries * 1e6
    console.print(f"{cells:,} cells; adding up took {each:.1f} µs of processor time an entry")


def _milliseconds(path: Path, by: str, since: str | None) -> float:
    began = time.process_time()
    cost_report(f"sqlite:///{path}", by=by, since=since, now=datetime.now(UTC))  # type: ignore[arg-type]
    return (time.process_time() - began) * 1000


if __name__ == "__main__":
    main()
