"""The semantic cache beside its rivals: streams of questions, and near misses by axis.

    python -m bench.cache --data ../data

Streams: those of two public sets, and of paraphrases in domains that ship beside this file
(`--domain`); without `--data` the latter alone.

Every way passes each stream from an empty cache; what it does not serve it buys and
keeps. `ours, other set` is fitted on the other sets' train splits and on the other domains, so
that nothing of the stream was seen: that row beside `cosine` is the comparison on a whole
stream. `ours, unseen` is what ships, on a stream of those intents alone that it has not
seen: fewer intents are told apart more easily, so that stream has a `cosine` of its own.
All take the best setting that they have for each share of wrong hits, looking back. A
false hit is an answer of another intent. The near misses are made from forms that ship
beside this file. Texts are embedded once and kept (`--cache`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.cache_domains import domain_stream, domains
from bench.cache_fit import SHOWN, learned, seen, stream_of
from bench.cache_pairs import HELD_OUT, TUNED, QuestionPair, question_pairs
from bench.cache_replay import WRONG, Pass, Replay
from bench.cache_rules import Cosine, DistanceEvaluator, Shipped, Verified
from bench.cache_streams import Stream
from bench.cache_vectors import FOLDER, Vectors
from cache.semantic.calibration import Calibration, default_calibration
from cache.semantic.decision_budget import Allowance, ErrorBudget
from cache.semantic.guards import AxisGuards
from cache.semantic.types import Candidate

ALLOWED = (0.005, 0.01, 0.02, 0.05)
_SET = (0.0025, 0.005, 0.0075, 0.01, 0.0125, 0.015, 0.02, 0.025, 0.03, 0.04, 0.06, 0.1, 0.2, 0.4)
_VERIFIED = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
_EVALUATED = (0.7, 0.75, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98)
_SLICES = 8
_PARAPHRASES = 1500


@dataclass(frozen=True, slots=True)
class Row:
    """What one way came to on one stream.

    `hits` and `hits_of_queries` are the best hit rates among its thresholds at each
    allowed share of wrong answers, of the answers served and of all questions;
    `over_time` the share of wrong answers served in each slice of the stream, at the
    threshold for 1 %.
    """

    stream: str
    way: str
    hits: Sequence[float]
    hits_of_queries: Sequence[float]
    p_chr_area: float
    over_time: Sequence[float]
    net_usd_per_1k: float


@dataclass(frozen=True, slots=True)
class Shown:
    """What the gateway's own decider came to at a route's `max_error`."""

    stream: str
    max_error: float
    hit_rate: float
    error: float
    error_of_queries: float
    audited: float
    interval: tuple[float, float]
    stops: int


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print. Returns the exit status."""
    arguments = _arguments(argv)
    folders = sorted(arguments.data.glob("semcache_*")) if arguments.data else []
    vectors = Vectors(arguments.cache)
    refuses = _refusing()
    rows: list[Row] = []
    shown: list[Shown] = []
    thresholds: dict[str, float] = {}
    for stream, teaching in _streams(folders, arguments.domain, arguments.limit, vectors):
        drawn = stream.drawn(0, arguments.limit)
        fitted = learned([s.drawn(0, arguments.limit) for s in teaching], vectors)
        bench = _Bench(drawn, refuses, arguments)
        cosine = bench.cosine()
        thresholds[stream.name] = cosine.best
        rows += [cosine.row, bench.evaluated(), bench.verified(),
                 bench.ours("ours, other set", fitted),
                 bench.ours("ours, other set, answers unknown", fitted, knows=False)]  # fmt: skip
        shown.append(bench.as_shipped())
        shown += [bench.shown(fitted, e, knows) for knows in (True, False) for e in ALLOWED]
        if stream.name in (folder.name for folder in folders):
            new = set(drawn.answers) - seen(drawn.answers, SHOWN)
            part = _Bench(drawn.only(new), refuses, arguments, suffix=" unseen")
            rows += [part.cosine().row, part.ours("ours, unseen", default_calibration())]
    axes = {forms: _axes(vectors, thresholds, forms) for forms in (TUNED, HELD_OUT)}
    if arguments.json:
        print(json.dumps({"rows": [asdict(r) for r in rows], "shown": [asdict(s) for s in shown],
                          "axes": axes}, indent=2))  # fmt: skip
    else:
        _print(rows, shown, axes)
    return 0


def _streams(
    folders: Sequence[Path], chosen: Sequence[str], limit: int | None, vectors: Vectors
) -> Iterator[tuple[Stream, list[Stream]]]:
    """Yield each stream with those that a decider may be fitted on, which share nothing with it."""
    size = min(limit or _PARAPHRASES, _PARAPHRASES)
    composed = {name: domain_stream(name, vectors, size=size) for name in domains()}
    for folder in folders:
        others = [stream_of(other, "train", vectors) for other in folders if other != folder]
        yield stream_of(folder, "dev", vectors), [*others, *composed.values()]
    public = [stream_of(folder, "train", vectors) for folder in folders]
    for name in chosen:
        others = [stream for other, stream in composed.items() if other != name]
        yield composed[name], [*public, *others]


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="folder that holds semcache_* folders")
    parser.add_argument("--domain", action="append", choices=sorted(domains()),
                        help="paraphrases of this domain; default: shop and clinic")  # fmt: skip
    parser.add_argument("--cache", type=Path, default=FOLDER, help="where vectors are kept")
    parser.add_argument("--limit", type=int, help="only so many questions of each stream")
    parser.add_argument("--usd-per-answer", type=float, default=0.002)
    parser.add_argument("--usd-per-lookup", type=float, default=2e-7,
                        help="embedding and decision: 5 ms of a core at $0.15 an hour")  # fmt: skip
    parser.add_argument("--audit", type=float, default=0.02, help="share of hits re-asked")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(argv)
    arguments.domain = arguments.domain or ["shop", "clinic"]
    return arguments


def _refusing() -> Callable[[str, str], bool]:
    """Return the guards, which ask each pair once over all replays."""
    guards = AxisGuards()

    @lru_cache(maxsize=2_000_000)
    def refuses(asked: str, stored: str) -> bool:
        return guards.refuse(asked, stored) is not None

    return refuses


@dataclass(frozen=True, slots=True)
class _Best:
    row: Row
    best: float


class _Bench:
    """One stream, and each way's passes over it."""

    def __init__(
        self, stream: Stream, refuses: Callable[[str, str], bool],
        arguments: argparse.Namespace, suffix: str = "",
    ) -> None:  # fmt: skip
        self._stream = stream
        self._name = stream.name.removeprefix("semcache_") + suffix
        self._refuses = refuses
        self._arguments = arguments
        self._replay = Replay(stream)

    def cosine(self) -> _Best:
        """Pass with plain cosine at every threshold; keep the best one for 1 %."""
        levels = np.linspace(0.7, 0.98, 43).tolist()
        passes = [self._replay.run(Cosine(level)) for level in levels]
        good = [(p.hit_rate, level) for p, level in zip(passes, levels, strict=True)
                if p.error <= 0.01]  # fmt: skip
        return _Best(self._row("cosine", passes), max(good)[1] if good else 1.0)

    def evaluated(self) -> Row:
        """Pass with GPTCache's default evaluator, at several of its thresholds."""
        rules = [DistanceEvaluator(threshold) for threshold in _EVALUATED]
        way = "GPTCache's distance" + (", re-derived" if rules[0].is_rederived else "")
        return self._row(way, [self._replay.run(rule) for rule in rules])

    def as_shipped(self) -> Shown:
        """Pass with GPTCache's default evaluator at the threshold that it ships with."""
        found = self._replay.run(DistanceEvaluator())
        name = f"{self._name}, GPTCache at 0.8"
        return Shown(name, 1.0, found.hit_rate, found.error, found.error_of_queries,
                     0.0, (0.0, 1.0), 0)  # fmt: skip

    def verified(self) -> Row:
        """Pass with the per-entry verified cache at every error that it may be set to."""
        return self._row("per entry", [self._replay.run(Verified(e)) for e in _VERIFIED])

    def ours(self, way: str, calibration: Calibration, *, knows: bool = True) -> Row:
        """Pass with the gateway's guards and decider, at every `max_error`."""
        replay = self._replay if knows else Replay(self._stream, knows_answers=False)
        return self._row(
            way, [replay.run(Shipped(calibration, self._refuses, error)) for error in _SET]
        )

    def shown(self, calibration: Calibration, max_error: float, knows: bool) -> Shown:
        """Pass with the gateway's decider, its audits and its error budget."""
        rule = Shipped(calibration, self._refuses, max_error)
        budgets = [ErrorBudget()]
        allowance = Allowance(max_error)

        def audited(entry_id: str, was_right: bool) -> None:
            rule.decider.observe(entry_id, was_right)
            budgets.append(budgets[-1].after(was_right, allowance))

        replay = self._replay if knows else Replay(self._stream, knows_answers=False)
        found = replay.run(rule, audited=audited, share=self._arguments.audit)
        budget = budgets[-1]
        name = self._name if knows else f"{self._name}, answers unknown"
        return Shown(
            name, max_error, found.hit_rate, found.error, found.error_of_queries,
            budget.audited, budget.interval(), budget.stops,
        )  # fmt: skip

    def _row(self, way: str, passes: Sequence[Pass]) -> Row:
        best = max((p for p in passes if p.error <= 0.01), key=lambda p: p.hit_rate,
                   default=passes[0])  # fmt: skip
        slices = np.array_split(best.outcomes, _SLICES)
        return Row(
            self._name,
            way,
            [max((p.hit_rate for p in passes if p.error <= e), default=0.0) for e in ALLOWED],
            [max((p.hit_rate for p in passes if p.error_of_queries <= e), default=0.0)
             for e in ALLOWED],
            _area(passes),
            [float((s == WRONG).sum() / max(1, (s > 0).sum())) for s in slices],
            self._net(best),
        )  # fmt: skip

    def _net(self, found: Pass) -> float:
        """Return the dollars saved on 1,000 questions, less what looking up and auditing cost."""
        arguments = self._arguments
        saved = found.hit_rate * (1 - arguments.audit) * arguments.usd_per_answer
        return float((saved - arguments.usd_per_lookup) * 1000)


def _area(passes: Sequence[Pass]) -> float:
    """Return the area under precision over hit rate, from none to all that is ever served."""
    points = sorted((p.hit_rate, 1 - p.error) for p in passes)
    rates = np.array([0.0, *(rate for rate, _ in points)])
    precisions = np.array([points[0][1], *(precision for _, precision in points)])
    return float(np.trapezoid(precisions, rates))


def _axes(
    vectors: Vectors, thresholds: Mapping[str, float], forms: str
) -> Mapping[str, Mapping[str, Sequence[float]]]:
    """Return, by way and axis, the shares of near misses and of benign controls served."""
    pairs = question_pairs(forms=forms)
    rows = vectors.of(forms, [text for pair in pairs for text in (pair.asked, pair.stored)])
    cosines = (rows[::2] * rows[1::2]).sum(1)
    ways = {f"cosine at {level:.3f} ({name.removeprefix('semcache_')})": cosines >= level
            for name, level in thresholds.items()}  # fmt: skip
    for allowed in ALLOWED[1:3]:
        ways[f"ours at {allowed:.0%}"] = _served(pairs, cosines.tolist(), allowed)
    is_same = np.array([pair.is_same for pair in pairs])
    axes = np.array([pair.axis for pair in pairs])
    found: dict[str, dict[str, Sequence[float]]] = {}
    for way, served in ways.items():
        found[way] = {
            str(axis): [float(served[(axes == axis) & ~is_same].mean()),
                        float(served[(axes == axis) & is_same].mean())]
            for axis in dict.fromkeys(axes.tolist())
        }  # fmt: skip
        found[way]["all"] = [float(served[~is_same].mean()), float(served[is_same].mean())]
    return found


def _served(
    pairs: Sequence[QuestionPair], cosines: Sequence[float], allowed: float
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    rule = Shipped(default_calibration(), _refusing(), allowed)
    return np.array([
        rule.serve(pair.asked, [Candidate(pair.stored, 0, cosine, "0")]) is not None
        for pair, cosine in zip(pairs, cosines, strict=True)
    ])  # fmt: skip


def _print(
    rows: Sequence[Row],
    shown: Sequence[Shown],
    axes: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]],
) -> None:
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 150)
    title = "hits, % of questions, where false hits are at most so much of the hits (of questions)"
    table = Table(title=title)
    for heading in ("stream", "way", "0.5 %", "1 %", "2 %", "5 %", "P-CHR area", "net $ per 1,000",
                    "false hits over time at 1 %, %"):  # fmt: skip
        table.add_column(heading)
    for row in rows:
        hits = [f"{100 * a:.1f} ({100 * b:.1f})" for a, b in
                zip(row.hits, row.hits_of_queries, strict=True)]  # fmt: skip
        times = " ".join(f"{100 * e:.1f}" for e in row.over_time)
        table.add_row(row.stream, row.way, *hits, f"{row.p_chr_area:.3f}",
                      f"{row.net_usd_per_1k:.3f}", times)  # fmt: skip
    console.print(table)
    console.print("hits where at most 1 % of them are wrong:", *compared(rows), sep="\n  ")
    own = Table(title="the gateway's decider, fitted without this set, at a route's max_error")
    for heading in ("stream", "max_error", "hits %", "wrong % of hits", "of questions", "audited",
                    "95 % interval of the audits", "stops"):  # fmt: skip
        own.add_column(heading)
    for s in shown:
        low, high = s.interval
        rates = (s.hit_rate, s.error, s.error_of_queries)
        cells = [f"{100 * rate:.2f}" for rate in rates]
        interval = f"{100 * low:.1f} to {100 * high:.1f}"
        own.add_row(
            s.stream, f"{s.max_error:.1%}", *cells, f"{s.audited:.0f}", interval, str(s.stops)
        )
    console.print(own)
    for forms, ways in axes.items():
        _print_axes(console, forms, ways)


def compared(rows: Sequence[Row]) -> list[str]:
    """Return what ours comes to beside cosine, stream by stream, where 1 % of hits are wrong."""
    at = ALLOWED.index(0.01)
    plain = {row.stream: row.hits[at] for row in rows if row.way == "cosine"}
    return [
        f"{row.stream}: {row.way} {row.hits[at]:.1%}, cosine {plain[row.stream]:.1%}, "
        f"{row.hits[at] / max(plain[row.stream], 1e-9):.1f} times"
        for row in rows
        if row.way in ("ours, other set", "ours, unseen")
    ]


def _print_axes(
    console: Console, forms: str, axes: Mapping[str, Mapping[str, Sequence[float]]]
) -> None:
    table = Table(
        title=f"{forms}, {len(question_pairs(forms=forms))} pairs: "
        "near misses served / benign controls served, %"
    )
    table.add_column("axis")
    for way in axes:
        table.add_column(way)
    for axis in next(iter(axes.values())):
        cells = [f"{100 * way[axis][0]:.1f} / {100 * way[axis][1]:.1f}" for way in axes.values()]
        table.add_row(axis, *cells)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
