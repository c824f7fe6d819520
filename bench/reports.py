"""What the reports take over many entries, of which only sums are read.

    python -m bench.reports --entries 1000000

Fills a ledger in a temporary folder with entries of 90 days: 8 models, 5 routes, 12
tenants, 40 keys and three sets of tags, drawn apart from each other, and with what audits
found of one in 25; adds them up, and tells of each report, over several times, the median
and the 95th percentile of the processor's time that it took, its JSON included.
`--directory` keeps the ledger for another run.
"""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.table import Table
from sqlalchemy import select

from bench import millions
from gateway.money import schema
from gateway.money.databases import reading
from gateway.money.reports import By, cost_report
from gateway.reporting.budgets import budgets, standing
from gateway.reporting.detail import request_detail
from gateway.reporting.overview import overview
from gateway.reporting.quality import certificates, quality
from gateway.reporting.requests import Wanted, request_list
from gateway.reporting.shapes import Dimension
from gateway.reporting.spend import spend
from gateway.reporting.standing import last_calls
from gateway.reporting.window import window
from gateway.telemetry.readings import read_ledger
from gateway.telemetry.tally import Tally
from policies.loader import parse_policy

_RUNS = 20
_NEW = 10_000
_ALLOWED_MS = 300
_CASCADE = "{tiers: [tiny, large], confidence: {kind: logprob, threshold: 0.8}}"
_POLICY = f"""
version: 1
models:
  tiny: {{provider: openai, base_url: "http://localhost/v1", price: {{machine_hour_usd: 0}}}}
  large: {{provider: openai, base_url: "http://localhost/v1", price: {{machine_hour_usd: 0}}}}
routes:
  route-0: {{cascade: {_CASCADE}}}
  route-1: {{cascade: {_CASCADE}, limits: {{budget: {{usd: 100, per: day}}}}}}
  route-2: {{cascade: {_CASCADE}}}
  route-3: {{cascade: {_CASCADE}}}
  route-4: {{cascade: {_CASCADE}}}
limits:
  budget: {{usd: 900, per: month}}
  tenants: {{tenant-1: {{budget: {{usd: 5000, per: month}}}}}}
  tags: {{night: {{budget: {{usd: 70000, per: total}}}}}}
"""


def cases(url: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield what is asked of a ledger, by name."""
    now = datetime.now(UTC)
    last = request_list(url, window("1h", None, None, now), Wanted(), cursor=None, limit=1)
    for since in ("24h", "7d", "30d", "90d"):
        asked = window(since, None, None, now)
        yield f"overview {since}, compared", partial(overview, url, asked, compare=True)
    dimensions: tuple[Dimension, ...] = ("model", "route", "tenant", "key", "tag")
    for by in dimensions:
        for since in ("7d", "90d"):
            asked = window(since, None, None, now)
            yield f"spend by {by} {since}", partial(spend, url, by, asked)
    month = window("30d", None, None, now)
    for name, wanted in (
        ("newest", Wanted()),
        ("of one key", Wanted(key="key-3", state="failed")),
        ("of a rare key", Wanted(key=millions.RARE)),
        ("search, nothing found", Wanted(q="no such words")),
        ("search by id", Wanted(q=last.data[0].request_id)),
    ):
        look = partial(request_list, url, month, wanted, cursor=None, limit=100)
        yield f"requests, {name}", look
    yield "last calls of each model", partial(last_calls, url, month)
    policy = parse_policy(_POLICY, name="policy", env={})
    held = partial(_held, 0)
    yield "budgets", partial(budgets, url, policy, (), now_s=now.timestamp(), held=held)
    yield (
        "budgets, for a scrape",
        partial(standing, url, policy, (), now_s=now.timestamp(), held=held),
    )
    today = now.date().isoformat()
    for since in ("30d", "90d"):
        asked = window(since, None, None, now)
        yield f"quality {since}", partial(quality, url, asked, policy, (), _nothing, today=today)
    yield "certificates, for a scrape", partial(certificates, url, policy, _nothing, today=today)
    yield "sums, for a scrape", partial(read_ledger, url)
    began_us = _began_us(url, _NEW)
    yield f"{_NEW:,} new lines, for a scrape", lambda: Tally(url, began_us / 1e6).look()
    yield "one request", partial(request_detail, url, last.data[0].request_id, stores_texts=False)
    ways: tuple[By, ...] = get_args(By)
    for way in ways:
        yield f"frugal costs --by {way}", partial(cost_report, url, by=way)


def _began_us(url: str, count: int) -> int:
    """Return the moment after which so many requests came."""
    with reading(url) as connection:
        last = select(schema.entry.c.started_at_us).order_by(schema.entry.c.started_at_us.desc())
        return int(connection.scalars(last.limit(count)).all()[-1])


def _held(nano: int, _: object) -> int:
    return nano


def _nothing(_: str) -> None:
    return None


def measured(act: Callable[[], Any]) -> tuple[float, float]:
    """Return the median and the 95th percentile of the processor's milliseconds."""
    took = []
    for _ in range(_RUNS):
        began = time.process_time()
        found = act()
        if hasattr(found, "model_dump_json"):
            found.model_dump_json()
        took.append((time.process_time() - began) * 1000)
    ordered = sorted(took)
    return ordered[_RUNS // 2], ordered[int(_RUNS * 0.95) - 1]


def main() -> None:
    """Print the table; end with 1 where a report takes longer than it may."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path, help="where the ledger is kept, or found")
    asked = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        path = (asked.directory or Path(folder)) / "ledger.db"
        if not path.exists():
            fill(path, asked.entries, console)
        slow = _show(f"sqlite:///{path}", path, console)
    raise SystemExit(1 if slow else 0)


def fill(path: Path, entries: int, console: Console) -> None:
    """Make the ledger, and say what it took to add it up."""
    end_us = int(time.time() * 1e6)
    with console.status("making the ledger"):
        millions.fill(path, entries, end_us=end_us)
        millions.audit(path, entries, end_us=end_us)
        began = time.process_time()
        millions.add_up(path)
    each = (time.process_time() - began) / entries * 1e6
    console.print(f"adding up took {each:.1f} µs of processor time an entry")


def _show(url: str, path: Path, console: Console) -> list[str]:
    table = Table("report", "median ms", "p95 ms", title=f"{_count(path, 'entry'):,} entries")
    slow = []
    for name, act in cases(url):
        median, high = measured(act)
        table.add_row(name, f"{median:.0f}", f"{high:.0f}")
        if high > _ALLOWED_MS:
            slow.append(name)
    console.print(table)
    cells = {name: _count(path, name) for name in ("rollup", "rollup_by", "rollup_latency")}
    told = ", ".join(f"{count:,} in {name}" for name, count in cells.items())
    console.print(f"cells: {told}; over {_ALLOWED_MS} ms: {', '.join(slow) or 'none'}")
    return slow


def _count(path: Path, table: str) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(count)


if __name__ == "__main__":
    main()
