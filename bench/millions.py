"""A ledger of a million requests in a few seconds: the database makes its own lines.

What each request was follows from its number alone, so two ledgers of one count and one
end are the same. Attributes are drawn apart from each other, which is the worst that can
happen to sums by who asked for what: next to every line is the only one of its cell.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from gateway.learning.book import Book, OutcomeRow
from gateway.money.migrate import migrate_sqlite
from gateway.money.rollup import Rollup
from gateway.money.schema import BUCKETS

RARE = "key-rare"
"""A key of one request in 50,000."""
AUDITED_EVERY = 25
"""Of so many requests, one was asked again."""
_PRIMES = (2654435761, 2246822519, 3266489917, 668265263, 374761393, 1181783497, 2147483647)
_TAGS = ((), ("batch",), ("batch", "night"))
_COSTS = ("cost_nano_usd", "lower_nano_usd", "upper_nano_usd")
_AT_ONCE = 4_000


@dataclass(frozen=True, slots=True)
class Mix:
    """How many of each there are, and the `odd` names that one key in nine has, with its tag."""

    days: int = 90
    models: int = 8
    routes: int = 5
    tenants: int = 12
    keys: int = 40
    odd: tuple[str, ...] = ()


_USUAL = Mix()


def fill(path: Path, count: int, *, end_us: int, mix: Mix = _USUAL) -> None:
    """Make a ledger of so many requests, the last of them just before `end_us`."""
    migrate_sqlite(path)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = off")
        connection.execute("PRAGMA synchronous = off")
        connection.execute("BEGIN")
        drawn = _drawn(count, end_us, mix)
        for table, source, columns in _tables(mix):
            names = ", ".join(f'"{name}"' for name in columns)
            values = ", ".join(columns.values())
            connection.execute(f"{drawn} INSERT INTO {table} ({names}) SELECT {values} {source}")
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = wal")


def add_up(path: Path) -> None:
    """Add all of them up, as the gateway does while it runs."""
    rollup = Rollup(path)
    while rollup.step():
        pass


def audit(path: Path, count: int, *, end_us: int, mix: Mix = _USUAL) -> int:
    """Write down what audits of such a ledger's routes found, and return of how many requests."""
    book, draw = Book(f"sqlite:///{path}"), Random(5)
    numbers = range(AUDITED_EVERY, count + 1, AUDITED_EVERY)
    step_us = mix.days * 86_400_000_000 // count
    for start in range(0, len(numbers), _AT_ONCE):
        some = numbers[start : start + _AT_ONCE]
        book.add(
            [row for n in some for row in _audit(draw, n, end_us - (count - n) * step_us, mix)]
        )
    book.close()
    return len(numbers)


def _audit(draw: Random, number: int, at_us: int, mix: Mix) -> tuple[OutcomeRow, OutcomeRow]:
    """Return the rows of one audit: a draft with its vector, and the reference's answer."""
    sure = draw.betavariate(5, 1.6)
    served = sure > 0.72
    shared: dict[str, Any] = {
        "request_id": _request_id(number), "at_us": at_us, "tenant": "tenant-1", "revision": "1",
        "route": f"route-{number // AUDITED_EVERY % mix.routes}", "bundle": "",
        "reference": "large", "answered_by": "tiny" if served else "large", "labeller": "judge",
        "drawn": number // AUDITED_EVERY % 2 == 0, "propensity": 0.04, "finish_reason": "stop",
        "prompt_tokens": 812, "completion_tokens": 233, "cost_nano_usd": 40_000,
        "latency_us": 300_000, "stats": "{}",
    }  # fmt: skip
    is_good = draw.random() < 0.12 + 0.86 * sure
    draft = OutcomeRow(
        **shared, model="tiny", seq=0, served=served, quality=sure, score=float(is_good),
        vector=bytes(4 * 384),
    )  # fmt: skip
    return draft, OutcomeRow(
        **shared, model="large", seq=1, served=not served, quality=None, score=1.0
    )


def _request_id(number: int) -> str:
    return f"req_{number:026d}"


def _drawn(count: int, end_us: int, mix: Mix) -> str:
    """Return the beginning of a statement: numbers, and of each some draws below 2**20."""
    step_us = mix.days * 86_400_000_000 // count
    draws = ", ".join(
        f"(n * {prime} % 4294967296 >> 12) AS d{i}" for i, prime in enumerate(_PRIMES)
    )
    told = {
        "at": f"{end_us} - ({count} - n) * {step_us}",
        "cache": _one_of(["miss"] * 7 + ["exact"] * 2 + ["semantic"], 0),
        "state": "CASE WHEN d1 < 10486 THEN 'failed' ELSE 'settled' END",
        "model": f"'model-' || (d2 % {mix.models})",
        "is_escalated": "d3 < 209715",
        "cost": "400000 + d4 % 600000",
        "latency": "(1 << (15 + d5 % 8)) + d6 % 32768",
    }
    columns = ", ".join(f"{expression} AS {name}" for name, expression in told.items())
    return (
        "WITH RECURSIVE number(n) AS"
        f" (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {count}),"
        f" draw AS (SELECT n, {draws} FROM number), drawn AS (SELECT *, {columns} FROM draw)"
    )


def _tables(mix: Mix) -> list[tuple[str, str, Mapping[str, str]]]:
    """Return what is written: a table, where its rows come from, and its columns."""
    called = "FROM drawn WHERE cache = 'miss'"
    serve = _attempt(0, "model", "CASE state WHEN 'failed' THEN 'unavailable' ELSE 'accepted' END")
    first = _attempt(0, "'model-0'", "'rejected'") | {"confidence": "0.41"}
    second = serve | {"seq": "1", "began_us": "latency / 8", "cost_nano_usd": "cost - cost / 8"}
    return [
        ("entry", "FROM drawn", _entry(mix)),
        ("attempt", f"{called} AND NOT is_escalated", serve),
        ("attempt", f"{called} AND is_escalated", first | {"cost_nano_usd": "cost / 8"}),
        ("attempt", f"{called} AND is_escalated", second),
    ]


def _entry(mix: Mix) -> dict[str, str]:
    odd = _one_of(mix.odd, 3, "/ 9") if mix.odd else "''"
    is_odd = "n % 9 = 0" if mix.odd else "0"
    usual = f"'key-' || (d3 % {mix.keys})"
    tags = _one_of([json.dumps(list(each)) for each in _TAGS], 5)
    is_hit = "cache <> 'miss'"
    return {
        **_common(),
        "started_at_us": "at",
        "state": f"CASE WHEN {is_hit} THEN 'settled' ELSE state END",
        "tenant": f"'tenant-' || (d1 % {mix.tenants})",
        "key": f"CASE WHEN n % 50000 = 7 THEN '{RARE}' WHEN {is_odd} THEN {odd} ELSE {usual} END",
        "tags": f"CASE WHEN {is_odd} THEN json_array({odd}) ELSE {tags} END",
        "route": f"'route-' || (d4 % {mix.routes})",
        "model": "model",
        "requested_model": f"'route-' || (d4 % {mix.routes})",
        "cache": "cache",
        "path": f"CASE WHEN {is_hit} THEN '' WHEN is_escalated THEN 'model-0:0.41:escalated,'"
        " || model || ':0.93:accepted' ELSE model || ':0.93:accepted' END",
        "stream": "n % 2",
        "status": f"CASE WHEN {is_hit} OR state = 'settled' THEN 200 ELSE 502 END",
        "saved_nano_usd": "1905000",
        "reference_model": "'large'",
        **dict.fromkeys(_COSTS, f"CASE WHEN {is_hit} THEN 0 ELSE cost END"),
    }


def _attempt(seq: int, model: str, outcome: str) -> dict[str, str]:
    return {
        **_common(),
        "seq": str(seq),
        "model": model,
        "provider": "'openai'",
        "purpose": "'serve'",
        "payer": "'tenant'",
        "outcome": outcome,
        "confidence": "0.93",
        "reason": "''",
        "price_source": "'policy'",
        "cost_nano_usd": "cost",
        "lower_nano_usd": "0",
        "upper_nano_usd": "cost",
        "began_us": "0",
    }


def _common() -> dict[str, str]:
    usage = dict.fromkeys(BUCKETS, "0") | {"input": "812", "cached_input": "128", "output": "233"}
    return {
        "request_id": "printf('req_%026d', n)",
        **usage,
        "compute_us": "0",
        "estimated": "0",
        "latency_us": "latency",
        "ttft_us": "latency / 4",
    }


def _one_of(texts: Sequence[str], draw: int, divided: str = "") -> str:
    """Return an expression that is one of some texts, by a draw."""
    cases = " ".join(f"WHEN {i} THEN {_quoted(text)}" for i, text in enumerate(texts[:-1]))
    last = _quoted(texts[-1])
    return f"CASE d{draw} {divided} % {len(texts)} {cases} ELSE {last} END" if cases else last


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
