"""How fast the ledger's writer is, and what an entry costs in CPU time.

    python -m bench.ledger --entries 50000

Each task writes an entry with one attempt and waits until it is durable before
it writes the next, as a request does. CPU time is that of the whole process:
the loop, the hand-over and the writer's thread.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvloop
from rich.console import Console
from rich.progress import track
from rich.table import Table

from gateway.money.bounds import Rates
from gateway.money.intents import Intent, IntentLog
from gateway.money.ledger import AttemptRecord, EntryRecord, Ledger
from gateway.money.sqlite import SqliteStore, Synchronous
from gateway.money.usage import Usage


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run."""

    concurrency: int
    synchronous: Synchronous
    entries: int
    wall_s: float
    cpu_s: float
    p99_ms: float


def records(number: int) -> tuple[EntryRecord, tuple[AttemptRecord]]:
    """Make the lines of one request."""
    request_id = f"req_{number:026d}"
    usage = Usage(input=812, cached_input=128, output=233)
    entry = EntryRecord(
        request_id=request_id,
        started_at_us=1_800_000_000_000_000 + number,
        state="settled",
        tenant="platform",
        key="ci",
        route="auto",
        model="mini",
        requested_model="auto",
        cache="miss",
        path="tiny:0.41:escalated,mini:0.93:accepted",
        stream=True,
        status=200,
        usage=usage,
        cost_nano_usd=672_200,
        saved_nano_usd=1_905_000,
        reference_model="large",
        lower_nano_usd=672_200,
        upper_nano_usd=672_200,
        latency_us=812_345,
    )
    attempt = AttemptRecord(
        request_id=request_id,
        seq=0,
        model="mini",
        purpose="serve",
        payer="platform",
        outcome="accepted",
        usage=usage,
        cost_nano_usd=672_200,
        lower_nano_usd=672_200,
        upper_nano_usd=672_200,
        latency_us=811_000,
        ttft_us=203_000,
        confidence=0.93,
        price_source="genai-prices",
    )
    return entry, (attempt,)


async def _client(ledger: Ledger, numbers: Iterator[int], waits: list[float]) -> None:
    for number in numbers:
        began = time.perf_counter()
        await ledger.write(*records(number))
        waits.append(time.perf_counter() - began)


async def measure(path: Path, entries: int, concurrency: int, synchronous: Synchronous) -> Run:
    """Write `entries` entries from `concurrency` tasks that each wait for their own."""
    waits: list[float] = []
    numbers = iter(range(entries))
    async with Ledger(SqliteStore(path, synchronous=synchronous)) as ledger:
        await ledger.probe()
        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(_client(ledger, numbers, waits) for _ in range(concurrency)))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    waits.sort()
    return Run(concurrency, synchronous, entries, wall, cpu, waits[len(waits) * 99 // 100] * 1000)


def intents_alone(folder: Path, count: int) -> float:
    """Return the CPU seconds of writing `count` calls down before they are made."""
    log = IntentLog(folder)
    began = time.process_time()
    for number in range(count):
        name = f"req_{number:026d}"
        log.note(_intent(name, number))
        log.settled(name)
    spent = time.process_time() - began
    log.close()
    return spent


def _intent(request_id: str, number: int) -> Intent:
    rates = Rates(250_000, 250_000, 2_000_000, 2_000_000, 0.0, 0)
    return Intent(
        request_id=request_id,
        seq=0,
        at_us=1_800_000_000_000_000 + number,
        started_at_us=1_800_000_000_000_000 + number,
        tenant="platform",
        key="ci",
        route="auto",
        requested_model="auto",
        stream=True,
        reference_model="large",
        model="mini",
        provider="openai",
        purpose="serve",
        input_guess=812,
        input_most=4_000,
        output_most=512,
        busy_s=120.0,
        rates=rates,
        price_source="genai-prices",
        price_dated=None,
    )


def records_alone(entries: int) -> float:
    """Return the CPU seconds of making the records, which the runs include."""
    began = time.process_time()
    for number in range(entries):
        records(number)
    return time.process_time() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--entries", type=int, default=50_000, help="entries a run")
    parser.add_argument("--directory", type=Path, help="where to write (default: temporary)")
    asked = parser.parse_args()
    cases: list[tuple[int, Synchronous]] = [
        (1, "normal"), (16, "normal"), (256, "normal"), (16, "full"), (256, "full"),
    ]  # fmt: skip
    making = records_alone(asked.entries)
    console = Console()
    table = Table(title=f"ledger, {asked.entries} entries with one attempt each")
    for name in ("tasks", "synchronous", "entries/s", "CPU µs/entry", "p99 ms"):
        table.add_column(name, justify="right")
    for number, (tasks, mode) in enumerate(track(cases, console=console, transient=True)):
        with tempfile.TemporaryDirectory(dir=asked.directory) as folder:
            path = Path(folder) / f"{number}.db"
            count = asked.entries if tasks > 1 and mode == "normal" else asked.entries // 5
            run = uvloop.run(measure(path, count, tasks, mode))
        table.add_row(
            str(tasks),
            mode,
            f"{run.entries / run.wall_s:,.0f}",
            f"{(run.cpu_s / run.entries - making / asked.entries) * 1e6:.1f}",
            f"{run.p99_ms:.2f}",
        )
    console.print(table)
    with tempfile.TemporaryDirectory(dir=asked.directory) as name:
        each = intents_alone(Path(name) / "intents", asked.entries) / asked.entries
    console.print(f"an intent, written before its call: {each * 1e6:.1f} CPU µs")
    versions = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    console.print(
        f"{versions}; making the records ({making / asked.entries * 1e6:.1f} µs) left out"
    )


if __name__ == "__main__":
    main()
