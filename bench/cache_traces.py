"""The caches on recorded traffic: arrivals, sizes and repeats as they were, words from public sets.

    python -m bench.cache_traces --data ../data

Each trace passes in its own order and time through the exact key and the semantic cache
itself, both empty at first. The traces have no words. Where they name their prefix blocks
(512 tokens), equal blocks and lengths are an exact repeat, and questions meet only behind
equal earlier blocks, as the gateway demands; the others tell no repeats, and every request
stands alone. A question that the embedder can read whole is given the words of one of the
sets' questions, of intents that the shipped calibration has not seen; longer ones go past
the semantic cache, as they do in the gateway. Saved is what the answers served would
have cost, by their own tokens; net leaves out what lookups and audits cost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.cache_fit import SHOWN, seen, stream_of
from bench.cache_streams import Rows, Stream
from bench.cache_vectors import FOLDER, Vectors
from cache.fingerprint import fingerprint
from cache.semantic.decision import CalibratedDecider
from cache.semantic.found import SemanticHit, Terms
from cache.semantic.guards import AxisGuards
from cache.semantic.lookup import SemanticCache
from cache.semantic.scope import Asked
from cache.semantic.service import EmbeddingService
from cache.types import CachedReply

BLOCK, READ = 512, 256
"""Tokens of a block, and tokens that the embedder reads."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request. `blocks` are None where the trace tells nothing of what was asked."""

    at: float
    prompt: int
    completion: int
    blocks: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Question:
    """A request as the caches see it. `scope` is what was said before, `new` its own tokens."""

    arrival: Arrival
    scope: tuple[int, ...]
    new: int
    is_repeat: bool


@dataclass(slots=True)
class Row:
    """What the caches came to on one trace; money in US dollars, times in milliseconds."""

    trace: str
    requests: int = 0
    per_second_peak: int = 0
    exact: int = 0
    readable: int = 0
    semantic: int = 0
    wrong: int = 0
    cost: float = 0.0
    saved: float = 0.0
    net: float = 0.0
    lookup_cpu_p50: float = 0.0
    lookup_cpu_p99: float = 0.0
    cpu: list[float] = field(default_factory=list, repr=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print. Returns the exit status."""
    asked = _arguments(argv)
    traces = sorted(asked.data.glob("trace_*/dev.parquet")) if asked.data else []
    sets = sorted(asked.data.glob("semcache_*")) if asked.data else []
    if not traces or not sets:
        print("skipped: --data names no folder that holds trace_* and semcache_* sets")
        return 0
    words = _words(sets, Vectors(asked.cache))
    rows = []
    for path in traces:
        arrivals = read_trace(path, asked.limit)
        if arrivals:
            name = path.parent.name.removeprefix("trace_")
            rows.append(asyncio.run(replayed(name, arrivals, words, asked)))
    if asked.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        _print(rows)
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="folder of the trace_* and semcache_* folders")
    parser.add_argument("--cache", type=Path, default=FOLDER, help="where vectors are kept")
    parser.add_argument("--limit", type=int, default=5000, help="requests of each trace")
    parser.add_argument("--max-error", type=float, default=0.01)
    parser.add_argument("--audit", type=float, default=0.02, help="share of hits re-asked")
    parser.add_argument("--input-usd", type=float, default=2.5, help="a million tokens")
    parser.add_argument("--output-usd", type=float, default=10.0, help="a million tokens")
    parser.add_argument("--usd-per-cpu-hour", type=float, default=0.15)
    parser.add_argument("--embedding-cpu-ms", type=float, default=1.4, help="added to a lookup")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(argv)


def read_trace(path: Path, limit: int) -> list[Arrival]:
    """Return a trace's requests by time; none for a table without single requests."""
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    if not {"t_s", "prompt_tokens", "completion_tokens"} <= set(table.column_names):
        return []
    rows: list[dict[str, Any]] = table.to_pylist()
    arrivals = [
        Arrival(
            float(row["t_s"]),
            int(row["prompt_tokens"]),
            int(row["completion_tokens"]),
            tuple(row["hash_ids"]) if row.get("hash_ids") is not None else None,
        )
        for row in rows
    ]
    return sorted(arrivals, key=lambda arrival: arrival.at)[:limit]


def questions(arrivals: Sequence[Arrival]) -> Iterator[Question]:
    """Tell of each request what of it was said before, and whether all of it was."""
    begun: set[tuple[int, ...]] = set()
    whole: set[tuple[tuple[int, ...], int]] = set()
    for arrival in arrivals:
        blocks = arrival.blocks
        if blocks is None:
            yield Question(arrival, (), arrival.prompt, False)
            continue
        known = 0
        while known < len(blocks) and blocks[: known + 1] in begun:
            known += 1
        is_repeat = (blocks, arrival.prompt) in whole
        yield Question(arrival, blocks[:known], arrival.prompt - BLOCK * known, is_repeat)
        begun.update(blocks[: end + 1] for end in range(known, len(blocks)))
        whole.add((blocks, arrival.prompt))


async def replayed(
    name: str, arrivals: Sequence[Arrival], words: Stream, asked: argparse.Namespace
) -> Row:
    """Pass one trace through both caches."""
    row = Row(name, len(arrivals))
    row.per_second_peak = max(Counter(int(a.at) for a in arrivals).values())
    now = [arrivals[0].at]
    decider = CalibratedDecider()
    async with (
        EmbeddingService(_Absent) as service,
        SemanticCache(
            service, path=None, guards=AxisGuards(),
            decider=lambda tenant, route: decider, wall=lambda: now[0],
        ) as cache,
    ):  # fmt: skip
        way = _Way(cache, words, Terms(asked.max_error, 6 * 3600.0), row, asked.audit)
        for question in questions(arrivals):
            now[0] = question.arrival.at
            price = _price(question.arrival, asked)
            row.cost += price
            row.saved += price * await way.served(question)
            row.net -= price * way.re_asked
    cpu = np.array(row.cpu or [0.0]) + asked.embedding_cpu_ms * bool(row.cpu)
    row.lookup_cpu_p50, row.lookup_cpu_p99 = (float(np.quantile(cpu, q)) for q in (0.5, 0.99))
    row.net += row.saved - float(cpu.sum()) / 3.6e6 * asked.usd_per_cpu_hour
    row.cpu = []
    return row


class _Way:
    """A trace's way through the caches: what is not served is bought, kept, and teaches."""

    def __init__(
        self, cache: SemanticCache, words: Stream, terms: Terms, row: Row, audit: float
    ) -> None:
        self._cache, self._words, self._terms, self._row = cache, words, terms, row
        self._audit = audit
        self._chance = np.random.default_rng(1)
        self._next = 0
        self.re_asked = False

    async def served(self, question: Question) -> bool:
        """Return whether the caches answer a request, rightly or not."""
        self.re_asked = False
        if question.is_repeat:
            self._row.exact += 1
            return True
        if question.new > READ or self._next >= len(self._words.texts):
            return False
        number, self._next = self._next, self._next + 1
        self._row.readable += 1
        return await self._near(number, question)

    async def _near(self, number: int, question: Question) -> bool:
        text, intent = self._words.texts[number], self._words.answers[number]
        scope = fingerprint("bench", "auto", "1", {"blocks": list(question.scope)})
        asked, vector = Asked(text, scope, "bench", "auto"), self._words.vectors[number]
        started = time.process_time()
        hit = await self._cache.find(asked, vector, self._terms)
        self._row.cpu.append(1e3 * (time.process_time() - started))
        if hit is not None and not hit.is_withheld:
            await self._hit(asked, hit, intent)
            return True
        reply = CachedReply((intent.encode(),), False, "m", {}, question.arrival.at, "m:served")
        await self._cache.keep(asked, vector, reply, answer=intent, terms=self._terms)
        if hit is not None:
            was_right = _intent(hit) == intent
            if hit.is_sure:
                await self._cache.observe(asked, hit.entry_id, self._terms, was_right=was_right)
            else:
                await self._cache.teach(asked, hit.entry_id, was_right=was_right)
        return False

    async def _hit(self, asked: Asked, hit: SemanticHit, intent: str) -> None:
        was_right = _intent(hit) == intent
        self._row.semantic += 1
        self._row.wrong += not was_right
        self.re_asked = self._chance.random() < self._audit
        if self.re_asked:
            await self._cache.observe(asked, hit.entry_id, self._terms, was_right=was_right)


class _Absent:
    """Stands where an embedder would; the vectors are computed beforehand."""

    version = "precomputed"
    width = 384
    max_tokens = READ

    def embed(self, texts: Sequence[str]) -> Rows:
        """Refuse: nobody asks for a vector here."""
        raise AssertionError(f"expected no text to be embedded, found {len(texts)}")

    def count(self, text: str) -> int:
        """Return about how many tokens there are."""
        return len(text) // 4


def _words(sets: Sequence[Path], vectors: Vectors) -> Stream:
    """Return the sets' questions of intents that the shipped calibration has not seen, mixed."""
    parts = [stream_of(folder, "dev", vectors) for folder in sets]
    parts = [part.only(set(part.answers) - seen(part.answers, SHOWN)) for part in parts]
    texts = [text for part in parts for text in part.texts]
    answers = [f"{part.name} {answer}" for part in parts for answer in part.answers]
    rows = np.concatenate([part.vectors for part in parts])
    return Stream("words", texts, answers, rows).drawn(0)


def _intent(hit: SemanticHit) -> str:
    return hit.reply.parts[0].decode()


def _price(arrival: Arrival, asked: argparse.Namespace) -> float:
    spent = arrival.prompt * asked.input_usd + arrival.completion * asked.output_usd
    return float(spent / 1e6)


def _print(rows: Sequence[Row]) -> None:
    table = Table(title="recorded traffic through both caches, from empty")
    for heading in ("trace", "requests", "peak in 1 s", "exact %", "readable %", "semantic %",
                    "of readable %", "wrong of hits", "cost $", "saved $", "net $",
                    "lookup CPU ms p50 / p99"):  # fmt: skip
        table.add_column(heading, justify="left" if heading == "trace" else "right")
    for row in rows:
        share = 100 / row.requests
        table.add_row(
            row.trace, f"{row.requests:,}", str(row.per_second_peak), f"{share * row.exact:.2f}",
            f"{share * row.readable:.2f}", f"{share * row.semantic:.2f}",
            f"{100 * row.semantic / max(1, row.readable):.1f}", f"{row.wrong} of {row.semantic}",
            f"{row.cost:.2f}", f"{row.saved:.3f}", f"{row.net:.3f}",
            f"{row.lookup_cpu_p50:.2f} / {row.lookup_cpu_p99:.2f}",
        )  # fmt: skip
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 170).print(table)


if __name__ == "__main__":
    sys.exit(main())
