"""Outcomes of made-up models on sums: the small one errs on large numbers, and can be caught."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from gateway.learning.book import Book, OutcomeRow
from gateway.money.migrate import migrate_sqlite

SMALL, LARGE, MINI = "small", "large", "mini"
PRICES = {SMALL: {"input": 0.1, "output": 0.2}, LARGE: {"input": 5.0, "output": 10.0}}
MINI_PRICE = {"input": 0.15, "output": 0.3}


def outcomes(count: int, *, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield two rows a query: what the small and the large model replied, and its score."""
    draw = random.Random(seed)
    for number in range(count):
        is_hard = draw.random() < 0.5
        most = 900 if is_hard else 20
        one, other = draw.randrange(1, most), draw.randrange(1, most)
        right = one + other
        slip = draw.random() < (0.7 if is_hard else 0.03)
        said = {SMALL: right + draw.choice((-10, -1, 1, 10)) if slip else right, LARGE: right}
        if draw.random() < 0.02:
            said[LARGE] += 100
        for model, answer in said.items():
            yield {
                "query_id": f"q{seed}-{number}",
                "prompt": f"Case {number} of {seed}: what is {one} + {other}?",
                "model": model,
                # The small model shows its working, wrong where its answer is.
                "response": f"{one} + {other} = {answer}\n#### {answer}",
                "finish_reason": "stop",
                "score": float(answer == right),
                "prompt_tokens": 12,
                "completion_tokens": 8,
            }


def probes(
    count: int, *, seed: int = 0, right: float = 0.95, name: str = MINI
) -> Iterator[dict[str, Any]]:
    """Yield such rows, and of each query a third: what a model that joins later replied."""
    draw = random.Random(f"{seed} {name}")
    for row in outcomes(count, seed=seed):
        yield row
        if row["model"] == LARGE:
            one, other = map(int, row["prompt"].split(" is ")[1].rstrip("?").split(" + "))
            answer = one + other + (0 if draw.random() < right else 7)
            reply = f"{one} + {other} = {answer}\n#### {answer}"
            score = float(answer == one + other)
            yield row | {"model": name, "response": reply, "score": score}


def write_outcomes(path: Path, count: int, *, seed: int = 0) -> Path:
    """Write such a table as JSON lines, and return its path."""
    lines = (json.dumps(row) for row in outcomes(count, seed=seed))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_ledger(path: Path, count: int, *, seed: int = 0, drawn: bool = True) -> str:
    """Write such outcomes into a new ledger, as audits of the route `auto`; return its URL."""
    migrate_sqlite(path)
    url = f"sqlite:///{path}"
    add_audits(url, count, seed=seed, drawn=drawn)
    return url


def add_audits(
    url: str, count: int, *, seed: int = 0, drawn: bool = True, reference: str = LARGE
) -> None:
    """Write more of them into a ledger, as if they had been set against this model's answers."""
    book = Book(url)
    rows = [_audit(at, row, drawn) for at, row in enumerate(outcomes(count, seed=seed))]
    book.add([msgspec.structs.replace(row, reference=reference) for row in rows])
    book.close()


def _audit(at: int, row: dict[str, Any], drawn: bool) -> OutcomeRow:
    return OutcomeRow(
        request_id=row["query_id"],
        model=row["model"],
        at_us=at // 2,
        seq=at % 2,
        route="auto",
        tenant="t",
        revision="1",
        bundle="",
        reference=LARGE,
        answered_by="",
        served=row["model"] == SMALL,
        drawn=drawn,
        quality=None,
        propensity=0.1 if drawn else None,
        score=row["score"],
        labeller="exact",
        finish_reason=row["finish_reason"],
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
        cost_nano_usd=0,
        latency_us=0,
        stats="{}",
        messages=json.dumps([{"role": "user", "content": row["prompt"]}]),
        response=row["response"],
    )


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write rows as JSON lines, and return their path."""
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return path


def write_prices(path: Path) -> Path:
    """Write the prices that `frugal train` takes, and return their path."""
    path.write_text(json.dumps(PRICES | {MINI: MINI_PRICE}))
    return path
