"""Whether an effect of the question's category would help the semantic cache's decision.

    python -m bench.cache_categories --data ../data

Categories are soft clusters of the asked question's vector (spherical k-means over composed
domains and over the other set, nothing of the stream). Their effects are learnt as the
route's is, from what is bought, and shrunk to it by `--variance`. `none` is what ships; one
cluster is a second effect of the route, and no category.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from bench.cache_domains import domain_stream, domains
from bench.cache_fit import SHOWN, seen, stream_of
from bench.cache_replay import Replay
from bench.cache_rules import Refuses, Shipped
from bench.cache_streams import RememberingGuards, Stream
from bench.cache_vectors import FOLDER, Vectors
from cache.semantic.calibration import default_calibration, probability
from cache.semantic.decision import CalibratedDecider
from cache.semantic.types import Candidate, Decision

_ALLOWED = (0.01, 0.02)
_ORDERS = 3
_ROUNDS = 15
_SHARPNESS = 20.0  # how fast a cluster's say fades, per unit of cosine
_BOLDER = 1.0
Rows = npt.NDArray[np.float64]


def clusters(vectors: npt.NDArray[np.float32], count: int) -> Rows:
    """Return centres of length one, the same for the same vectors."""
    rows = vectors.astype(np.float64)
    centres = rows[np.random.default_rng(0).choice(len(rows), count, replace=False)]
    for _ in range(_ROUNDS):
        at = (rows @ centres.T).argmax(1)
        sums = np.stack([rows[at == n].sum(0) if (at == n).any() else centres[n]
                         for n in range(count)])  # fmt: skip
        centres = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return centres


def shares(stream: Stream, centres: Rows) -> dict[str, Rows]:
    """Return how much of each question is of each cluster."""
    says = np.exp(_SHARPNESS * (stream.vectors.astype(np.float64) @ centres.T))
    return dict(zip(stream.texts, says / says.sum(1, keepdims=True), strict=True))


class ByCategory(CalibratedDecider):
    """The decider that ships, and an effect for each category of questions besides."""

    def __init__(self, shares: dict[str, Rows], count: int, variance: float) -> None:
        super().__init__(default_calibration())
        self._shares = shares
        self._mean = {shared: np.zeros(count) for shared in (True, False)}
        self._precision = {shared: np.full(count, 1 / variance) for shared in (True, False)}
        self._asked: Rows = np.zeros(count)
        self._share_of: dict[str, Rows] = {}

    def decide(self, asked: str, candidates: Sequence[Candidate], max_error: float) -> Decision:
        """Decide with the category of what is asked in mind."""
        self._asked = self._shares[asked]
        decision = super().decide(asked, candidates, max_error)
        if decision.teaches is not None:
            self._share_of[candidates[decision.teaches].entry_id] = self._asked
        if decision.serve is not None:
            self._share_of[candidates[decision.serve].entry_id] = self._asked
        return decision

    def observe(self, entry_id: str, was_right: bool) -> None:
        """Learn of the category, too."""
        met, share = self._last.get(entry_id), self._share_of.get(entry_id)
        if met is not None and share is not None:
            kind = met.is_shared
            shift, _ = super()._known_of(kind, met.answer, entry_id)
            chance = probability(met.logit + shift + float(share @ self._mean[kind]))
            self._precision[kind] += share**2 * chance * (1 - chance)
            self._mean[kind] += share * (was_right - chance) / self._precision[kind]
        super().observe(entry_id, was_right)

    def _known_of(self, is_shared: bool, answer_key: str, entry_id: str) -> tuple[float, float]:
        shift, variance = super()._known_of(is_shared, answer_key, entry_id)
        most = _BOLDER if is_shared else 0.0  # route, answer and category together
        common = self._routes[is_shared].mean + self._answer(is_shared, answer_key).mean
        own = float(self._asked @ self._mean[is_shared])
        shift += min(common + own, most) - min(common, most)
        return shift, variance + float(self._asked**2 @ (1 / self._precision[is_shared]))


class _Bench:
    """One set's unseen intents in several orders, and what each way comes to on them."""

    def __init__(self, stream: Stream, known: npt.NDArray[np.float32], size: int) -> None:
        guards = RememberingGuards()
        self._refuses: Refuses = lambda asked, stored: guards.refuse(asked, stored) is not None
        self._known = known
        self._streams = [stream.drawn(seed, size) for seed in range(_ORDERS)]
        self._replays = [Replay(stream) for stream in self._streams]

    def run(self, count: int, variance: float) -> list[str]:
        """Return hits and errors at each allowed error; without clusters, as it ships."""
        own = [shares(s, clusters(self._known, count)) if count else {} for s in self._streams]
        return [self._at(own, count, variance, allowed) for allowed in _ALLOWED]

    def _at(
        self, own: Sequence[dict[str, Rows]], count: int, variance: float, allowed: float
    ) -> str:
        hits: list[float] = []
        wrong = served = 0.0
        for replay, each in zip(self._replays, own, strict=True):
            rule = Shipped(default_calibration(), self._refuses, allowed)
            if count:
                rule.decider = ByCategory(each, count, variance)
            found = replay.run(rule)
            hits.append(100 * found.hit_rate)
            served += found.hit_rate
            wrong += found.error_of_queries
        spread = ", ".join(f"{rate:.1f}" for rate in hits)
        return f"{np.mean(hits):.1f} ({spread}) / {100 * wrong / max(served, 1e-9):.2f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print. Returns the exit status."""
    parser = argparse.ArgumentParser(description="effects of categories, with and without")
    parser.add_argument("--data", type=Path, required=True, help="folder of semcache_* folders")
    parser.add_argument("--cache", type=Path, default=FOLDER, help="where vectors are kept")
    parser.add_argument("--limit", type=int, default=1500, help="questions of each stream")
    parser.add_argument("--clusters", type=int, nargs="+", default=[0, 1, 8, 32])
    parser.add_argument("--variance", type=float, default=0.3)
    arguments = parser.parse_args(argv)
    vectors = Vectors(arguments.cache)
    folders = sorted(arguments.data.glob("semcache_*"))
    composed = [domain_stream(name, vectors).vectors for name in domains()]
    table = Table(title="hits % in each order / wrong % of hits, at a route's max_error")
    for heading in ("stream", "clusters", *(f"{e:.1%}" for e in _ALLOWED)):
        table.add_column(heading)
    for folder in folders:
        dev = stream_of(folder, "dev", vectors)
        others = [stream_of(f, "train", vectors).vectors for f in folders if f != folder]
        unseen = dev.only(set(dev.answers) - seen(dev.answers, SHOWN))
        bench = _Bench(unseen, np.concatenate([*composed, *others]), arguments.limit)
        for count in arguments.clusters:
            cells = bench.run(count, arguments.variance)
            table.add_row(folder.name.removeprefix("semcache_"), str(count or "none"), *cells)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
