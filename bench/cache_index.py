"""The parts of the semantic cache: what they cost in time, memory and quality.

    python -m bench.cache_index             # embedder, index up to 100,000, decision
    python -m bench.cache_index --entries 1000000 --only search

The embedder runs on one thread, its time is processor time, and its rivals are the
same model unquantized and through sentence-transformers. The index holds made-up
vectors that crowd around common topics as questions do; recall is the share of the one
or five nearest that are truly so, by comparing with every vector. A lookup is guards,
search and decision over made-up questions, embedding left out, as it is met by a
request: one change of thread to and fro.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cache.fingerprint import fingerprint
from cache.index.codes import encoded
from cache.index.growing import GrowingIndex
from cache.semantic.decision import CalibratedDecider
from cache.semantic.embedder import Embedder, SentenceTransformerEmbedder, model_folder
from cache.semantic.found import Terms
from cache.semantic.guards import AxisGuards
from cache.semantic.lookup import SemanticCache
from cache.semantic.onnx_embedder import OnnxEmbedder
from cache.semantic.scope import Asked
from cache.semantic.service import EmbeddingService
from cache.semantic.snapshots import Snapshots
from cache.types import CachedReply

WIDTH = 384
_TOPICS = 50
_LATENT = 48
_ASKED = 500
_SIZES = (1_000, 20_000, 100_000, 400_000, 1_000_000)
_BLOCK = 250
_VERBS = ("change", "cancel", "track", "refund", "verify", "dispute", "renew", "transfer", "close")
_THINGS = ("order", "card", "account", "payment", "invoice", "subscription", "delivery", "limit")
_WAYS = ("online", "by phone", "in the app", "without a receipt", "from abroad", "for a friend")

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Embedding:
    """One way to embed. `cosine` and `same_nearest` are against the first way."""

    way: str
    cpu_ms_p50: float
    cosine: float
    same_nearest: float


@dataclass(frozen=True, slots=True)
class Searching:
    """An index of so many. `bytes_per_entry` is the growth of the process.

    `save_s` and `load_s` are those of the cells' snapshot on disk, 0 where there are no cells.
    """

    entries: int
    bytes_per_entry: float
    add_ms: float
    build_s: float
    save_s: float
    load_s: float
    p50_ms: float
    p99_ms: float
    p99_cpu_ms: float
    recall_at_1: float
    recall_at_5: float


@dataclass(frozen=True, slots=True)
class Deciding:
    """Lookups among so many entries, embedding left out; `cpu` is that of all threads."""

    entries: int
    p50_ms: float
    p99_ms: float
    p50_cpu_ms: float
    p99_cpu_ms: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; return 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--entries", type=int, default=100_000, help="of the largest index")
    parser.add_argument("--decided", type=int, default=100_000, help="entries of the lookups")
    parser.add_argument("--only", choices=("embedding", "search", "decision"))
    parser.add_argument("--json", action="store_true", help="print JSON, not tables")
    asked = parser.parse_args(argv)
    sizes = [size for size in _SIZES if size <= asked.entries]
    found: dict[str, Sequence[Any]] = {}
    if asked.only in (None, "embedding"):
        found["embedding a question of 24 tokens, one thread"] = embeddings()
    if asked.only in (None, "search"):
        found["search"] = list(map(_told, searches(sizes)))
    if asked.only in (None, "decision"):
        found["guards, search and decision"] = [asyncio.run(decisions(asked.decided))]
    if asked.json:
        told = {name: [asdict(row) for row in rows] for name, rows in found.items()}
        print(json.dumps(told, indent=2))
    else:
        for name, rows in found.items():
            _show(name, rows)
    return 0


def _told(row: Searching) -> Searching:
    """Show a row at once: the next one may take long."""
    print(json.dumps(asdict(row)), file=sys.stderr, flush=True)
    return row


def embeddings() -> list[Embedding]:
    """Measure the shipped model in its three forms."""
    folder = model_folder("all-MiniLM-L6-v2")
    assert folder is not None, "the shipped model is installed"
    ways: dict[str, Embedder] = {
        "onnx, 32 bits": OnnxEmbedder(folder, quantized=False),
        "onnx, 8 bits (ours)": OnnxEmbedder(folder),
        "sentence-transformers": SentenceTransformerEmbedder(str(folder), threads=1),
    }
    texts = questions(400)
    reference = ways["onnx, 32 bits"].embed(texts)
    return [_embedding(way, embedder, texts, reference) for way, embedder in ways.items()]


def _embedding(way: str, embedder: Embedder, texts: Sequence[str], reference: Rows) -> Embedding:
    vectors = embedder.embed(texts)
    near, true = (rows @ rows.T - 2 * np.eye(len(rows)) for rows in (vectors, reference))
    same = near.argmax(axis=1) == true.argmax(axis=1)
    fitting = [text for text in texts if 22 <= embedder.count(text) <= 26] or list(texts)
    took = [_clocked(time.process_time, partial(embedder.embed, [t])) for t in fitting[:100]]
    return Embedding(
        way,
        1e3 * float(np.median(took)),
        float((vectors * reference).sum(axis=1).mean()),
        float(same.mean()),
    )


def searches(sizes: Sequence[int]) -> Iterator[Searching]:
    """Measure one index as it grows."""
    topics = _topics()
    index, before = GrowingIndex(WIDTH), _resident()
    held, built_s = 0, 0.0
    for size in sizes:
        add_s = _filled(index, topics, size)
        built_s += add_s
        bytes_per_entry = (_resident() - before) / size
        numbers = np.random.default_rng(size).integers(0, size, _ASKED)
        asked = _noisy(np.stack([_row(topics, int(number)) for number in numbers]))
        found = [[near.id for near in index.search(row, 8)[:5]] for row in asked]
        took = [_clocked(time.perf_counter, partial(index.search, row, 8)) for row in asked]
        cpu = [_clocked(time.process_time, partial(index.search, row, 8)) for row in asked]
        true = _nearest(topics, size, asked, 5)
        same = [len(set(f) & set(t)) for f, t in zip(found, true.tolist(), strict=True)]
        yield Searching(
            size,
            bytes_per_entry,
            1e3 * add_s / (size - held),
            built_s,
            *_kept_and_loaded(index),
            1e3 * float(np.quantile(took, 0.5)),
            1e3 * float(np.quantile(took, 0.99)),
            1e3 * float(np.quantile(cpu, 0.99)),
            float(np.mean([f[0] for f in found] == true[:, 0])),
            sum(same) / true.size,
        )
        held = size


def _filled(index: GrowingIndex, topics: Rows, size: int) -> float:
    """Add vectors up to a size, and return the seconds that took."""
    held, took = len(index), 0.0
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"adding up to {size:,}", total=size - held)
        for first in range(held, size, _BLOCK):
            rows = _block(topics, first)
            numbers = range(first, first + _BLOCK)
            took += _clocked(time.process_time, partial(index.add, numbers, rows))
            progress.advance(task, _BLOCK)
    return took


def _nearest(topics: Rows, size: int, asked: Rows, count: int) -> npt.NDArray[np.int64]:
    """Return the numbers of the truly nearest, by comparing with every vector."""
    codes = encoded(asked).astype(np.float32)
    best = np.full((len(asked), count), -np.inf, np.float32)
    who = np.zeros((len(asked), count), np.int64)
    for first in range(0, size, _BLOCK):
        near = codes @ encoded(_block(topics, first)).astype(np.float32).T
        numbers = np.broadcast_to(np.arange(first, first + _BLOCK), near.shape)
        near, numbers = np.hstack((best, near)), np.hstack((who, numbers))
        order = np.argsort(-near, axis=1, kind="stable")[:, :count]
        best, who = np.take_along_axis(near, order, 1), np.take_along_axis(numbers, order, 1)
    return who


def _kept_and_loaded(index: GrowingIndex) -> tuple[float, float]:
    """Return the seconds that it takes to save the cells, and to load it again."""
    if index.cells is None:
        return 0.0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        snapshots = Snapshots(Path(folder), WIDTH)
        saved = _clocked(time.perf_counter, partial(snapshots.save, b"bench", index.cells))
        loaded = _clocked(time.perf_counter, lambda: list(snapshots.load()))
    return saved, loaded


async def decisions(entries: int) -> Deciding:
    """Measure whole lookups in a cache that holds so many entries of one scope."""
    topics = _topics()
    decider = CalibratedDecider()
    with tempfile.TemporaryDirectory() as folder:
        async with (
            EmbeddingService(_Absent) as service,
            SemanticCache(
                service, path=Path(folder) / "answers.db", guards=AxisGuards(),
                decider=lambda tenant, route: decider, wall=time.time,
            ) as cache,
        ):  # fmt: skip
            texts = questions(entries)
            terms = Terms(max_error=0.01, ttl=3600.0)
            with Progress(console=Console(stderr=True), transient=True) as progress:
                for first in progress.track(range(0, entries, _BLOCK), description="keeping"):
                    for place, row in enumerate(_block(topics, first), start=first):
                        await _kept(cache, texts[place], row, terms)
            took = [await _looked_up(cache, topics, texts, n, terms) for n in range(_ASKED)]
    wall, cpu = zip(*took, strict=True)
    return Deciding(
        entries, *(1e3 * float(np.quantile(each, q)) for each in (wall, cpu) for q in (0.5, 0.99))
    )


async def _kept(cache: SemanticCache, text: str, row: Rows, terms: Terms) -> None:
    reply = CachedReply((b"{}",), False, "m", {}, time.time(), "m:served")
    await cache.keep(_asked(text), row, reply, answer=f"so: {text}", terms=terms)


async def _looked_up(
    cache: SemanticCache, topics: Rows, texts: Sequence[str], number: int, terms: Terms
) -> tuple[float, float]:
    """Return the seconds, and those of the processor, that one lookup takes."""
    place = number * 7919 % len(texts)
    row = _noisy(_row(topics, place)[None])[0]
    asked = _asked(f"Please, {texts[place].lower()}")
    started, worked = time.perf_counter(), time.process_time()
    await cache.find(asked, row, terms)
    return time.perf_counter() - started, time.process_time() - worked


def questions(count: int) -> list[str]:
    """Return so many different questions."""
    made = []
    for number in range(count):
        verb, rest = _VERBS[number % 9], number // 9
        thing, rest = _THINGS[rest % 8], rest // 8
        way, rest = _WAYS[rest % 6], rest // 6
        made.append(
            f"How do I {verb} the {thing} that I made {way} with the shop number {rest}, please?"
        )
    return made


class _Absent:
    """Stands where an embedder would; the vectors are made up."""

    version = "made-up"
    width = WIDTH
    max_tokens = 256

    def embed(self, texts: Sequence[str]) -> Rows:
        """Return nothing of use."""
        return np.zeros((len(texts), WIDTH), np.float32)

    def count(self, text: str) -> int:
        """Return about how many tokens there are."""
        return len(text) // 4


def _asked(text: str) -> Asked:
    return Asked(text, fingerprint("bench", "auto", "1", {}), "bench", "auto")


def _topics() -> Rows:
    drawn = np.random.default_rng(0)
    plane = drawn.normal(size=(_LATENT, WIDTH))
    return (drawn.normal(size=(_TOPICS, _LATENT)) @ plane / _LATENT).astype(np.float32)


def _block(topics: Rows, first: int) -> Rows:
    """Return vectors around topics, the same ones for the same number."""
    drawn = np.random.default_rng((7, first))
    rows = topics[drawn.integers(0, len(topics), _BLOCK)]
    return _unit(rows + drawn.normal(scale=0.12, size=rows.shape))


def _row(topics: Rows, number: int) -> Rows:
    """Return one vector of a block."""
    row: Rows = _block(topics, number // _BLOCK * _BLOCK)[number % _BLOCK]
    return row


def _noisy(rows: Rows) -> Rows:
    """Return vectors as those of a paraphrase would be: at a cosine of some 0.98."""
    return _unit(rows + np.random.default_rng(1).normal(scale=0.01, size=rows.shape))


def _unit(rows: npt.NDArray[Any]) -> Rows:
    found: Rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return found


def _clocked(clock: Callable[[], float], job: Callable[[], object]) -> float:
    started = clock()
    job()
    return clock() - started


def _resident() -> int:
    """Return how many bytes of memory this process holds."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096


def _show(name: str, rows: Sequence[Any]) -> None:
    table = Table(title=name)
    for column in asdict(rows[0]):
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        table.add_row(*(_shown(value) for value in asdict(row).values()))
    Console().print(table)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    sys.exit(main())
