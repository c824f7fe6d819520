"""`frugal demo`: the same held-out questions to the small model, the large one and the cascade.

Every figure is measured in the run: accuracy against the known answers, tokens
from the replies, cost and path from the gateway's own headers, latency at the
client.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from local_engine.demo.question import Question
from local_engine.demo.tasks import held_out, is_right

_MAX_TOKENS = 200
_REPEAT_SHARE = 0.2
_PATIENCE_S = 60


@dataclass(frozen=True, slots=True)
class Way:
    """One way of answering: what it is called, and what the client sends as `model`."""

    title: str
    model: str
    use_cache: bool


WAYS = (
    Way("small", "tiny", use_cache=False),
    Way("large", "large", use_cache=False),
    Way("cascade", "auto", use_cache=False),
    Way("with cache", "auto", use_cache=True),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One question, and whether this is its second time."""

    question: Question
    is_repeat: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """One question's answer as the client saw it."""

    is_right: bool
    cost_usd: float
    tokens: int
    latency_s: float
    cache: str
    path: str


@dataclass(frozen=True, slots=True)
class Row:
    """What one way came to."""

    way: str
    requests: int
    accuracy: float
    cost_usd_per_1k: float
    tokens: int
    p50_ms: float
    p95_ms: float
    escalated: float
    cache_hits: int


def run_demo(url: str, *, questions: int, seed: int, concurrency: int, as_json: bool) -> int:
    """Run the comparison and print it. Returns the exit code."""
    asked = _with_repeats(held_out(questions, seed))
    try:
        rows = asyncio.run(_measure(url, asked, concurrency))
    except httpx.ConnectError:
        print(f"nothing answers at {url}; start it with: frugal up", file=sys.stderr)
        return 1
    except httpx.HTTPStatusError as exc:
        print(f"{url} answered {exc.response.status_code}: {exc.response.text}", file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        _print(rows, len(asked))
    return 0


def _with_repeats(questions: Sequence[Question]) -> list[Asked]:
    """Return the questions with the first fifth asked once more at the end, as people do."""
    repeats = questions[: int(len(questions) * _REPEAT_SHARE)]
    return [*(Asked(q, False) for q in questions), *(Asked(q, True) for q in repeats)]


async def _measure(url: str, questions: Sequence[Asked], concurrency: int) -> list[Row]:
    columns = (TextColumn("{task.description:<22}"), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn())  # fmt: skip
    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as client:
        await _until_up(client)
        with Progress(*columns, console=Console(stderr=True)) as progress:
            return [await _one_way(client, way, questions, concurrency, progress) for way in WAYS]


async def _one_way(
    client: httpx.AsyncClient,
    way: Way,
    questions: Sequence[Asked],
    concurrency: int,
    progress: Progress,
) -> Row:
    task = progress.add_task(way.title, total=len(questions))
    gate = asyncio.Semaphore(concurrency)

    async def one(asked: Asked) -> Answered:
        async with gate:
            answered = await _ask(client, way, asked)
        progress.advance(task)
        return answered

    return _row(way, await asyncio.gather(*map(one, questions)))


async def _until_up(client: httpx.AsyncClient) -> None:
    """Wait until both models answer: an engine may still be loading."""
    for model in ("tiny", "large"):
        body = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "?"}]}
        for _ in range(_PATIENCE_S):
            response = await client.post("/v1/chat/completions", json=body)
            if response.status_code != 503:
                break
            await asyncio.sleep(1)
        response.raise_for_status()


async def _ask(client: httpx.AsyncClient, way: Way, asked: Asked) -> Answered:
    question = asked.question
    body = {
        "model": way.model,
        "messages": [{"role": "user", "content": question.prompt}],
        "temperature": 0,
        "max_tokens": _MAX_TOKENS,
    }
    headers = {} if way.use_cache else {"x-frugal-cache": "off"}
    if way.use_cache and not asked.is_repeat:
        headers = {"cache-control": "no-cache"}  # what an earlier run left is none of ours
    started = time.perf_counter()
    response = await client.post("/v1/chat/completions", json=body, headers=headers)
    latency_s = time.perf_counter() - started
    response.raise_for_status()
    reply: Mapping[str, Any] = response.json()
    text = reply["choices"][0]["message"]["content"] or ""
    usage = reply.get("usage") or {}
    return Answered(
        is_right=is_right(question, text),
        cost_usd=float(response.headers["x-frugal-cost-usd"]),
        tokens=usage.get("total_tokens", 0),
        latency_s=latency_s,
        cache=response.headers["x-cache"],
        path=response.headers["x-frugal-path"],
    )


def _row(way: Way, answers: Sequence[Answered]) -> Row:
    latencies = sorted(a.latency_s for a in answers)
    count = len(answers)
    fresh = [a for a in answers if a.cache != "exact"]
    return Row(
        way=way.title,
        requests=count,
        accuracy=sum(a.is_right for a in answers) / count,
        cost_usd_per_1k=sum(a.cost_usd for a in answers) / count * 1000,
        tokens=sum(a.tokens for a in fresh),
        p50_ms=latencies[count // 2] * 1000,
        p95_ms=latencies[int(count * 0.95)] * 1000,
        escalated=sum(":escalated" in a.path for a in fresh) / max(1, len(fresh)),
        cache_hits=count - len(fresh),
    )


def _print(rows: Sequence[Row], count: int) -> None:
    table = Table(title=f"{count} held-out questions each way, every fifth of them twice")
    table.add_column("way")
    for title in ("right", "$/1,000", "cost", "tokens", "p50 ms", "p95 ms", "escal.", "hits"):
        table.add_column(title, justify="right", no_wrap=True)
    large = next(row for row in rows if row.way == "large")
    for row in rows:
        relative = row.cost_usd_per_1k / large.cost_usd_per_1k if large.cost_usd_per_1k else 0.0
        table.add_row(
            row.way,
            f"{row.accuracy:.1%}",
            f"{row.cost_usd_per_1k:.5f}",
            f"{relative:.0%}",
            f"{row.tokens:,}",
            f"{row.p50_ms:.0f}",
            f"{row.p95_ms:.0f}",
            f"{row.escalated:.0%}",
            str(row.cache_hits),
        )
    Console().print(table)
