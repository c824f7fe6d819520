"""The semantic cache's decider on domains that its calibration has seen nothing of.

    python -m bench.cache_unseen --data ../data

Each domain is left out in turn: the calibration is fitted on all others, on the train splits of
the public sets and on composed domains, and the one left out (of a public set, its dev split)
passes an empty cache in several orders. `at most 1 %` is the best hit rate among the settings of
`max_error` at which no more of the hits were wrong, as a threshold is chosen that looks
back; `set to 1 %` is what an operator gets who asks for 1 %.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.cache_domains import domain_stream, domains
from bench.cache_fit import learned, stream_of
from bench.cache_replay import Pass, Replay
from bench.cache_rules import Cosine, Refuses, Shipped
from bench.cache_streams import RememberingGuards, Stream
from bench.cache_vectors import FOLDER, Vectors
from cache.semantic.calibration import Calibration

_ALLOWED = (0.005, 0.01, 0.02)
_SET = (0.0025, 0.005, 0.0075, 0.01, 0.0125, 0.015, 0.02, 0.025, 0.03, 0.04, 0.06, 0.1)
_LEVELS = np.linspace(0.7, 0.98, 29).tolist()


@dataclass(frozen=True, slots=True)
class Domain:
    """What a domain teaches, and what is asked in it where it is left out."""

    teaches: Stream
    asks: Stream


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print. Returns the exit status."""
    parser = argparse.ArgumentParser(description="the decider on domains it has not seen")
    parser.add_argument("--data", type=Path, required=True, help="folder of semcache_* folders")
    parser.add_argument("--cache", type=Path, default=FOLDER, help="where vectors are kept")
    parser.add_argument("--orders", type=int, default=2)
    parser.add_argument("--only", nargs="+", help="leave out these domains alone")
    arguments = parser.parse_args(argv)
    known = known_domains(arguments.data, Vectors(arguments.cache))
    table = Table(title="hits % where at most so many are wrong / wrong % of hits as set")
    for heading in ("domain", *(f"at most {e:.1%}" for e in _ALLOWED), "cosine, at most 1 %",
                    "set to 1 %", "wrong"):  # fmt: skip
        table.add_column(heading, justify="right")
    for name in arguments.only or known:
        others = [domain.teaches for other, domain in known.items() if other != name]
        calibration = learned(others, Vectors(arguments.cache))
        table.add_row(name, *_cells(known[name].asks, calibration, arguments.orders))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return 0


def known_domains(data: Path, vectors: Vectors) -> Mapping[str, Domain]:
    """Return the public sets and the composed domains by name."""
    public = {
        folder.name.removeprefix("semcache_"): Domain(
            stream_of(folder, "train", vectors), stream_of(folder, "dev", vectors)
        )
        for folder in sorted(data.glob("semcache_*"))
    }
    composed = {name: domain_stream(name, vectors) for name in domains()}
    return public | {name: Domain(stream, stream) for name, stream in composed.items()}


def _cells(stream: Stream, calibration: Calibration, orders: int) -> list[str]:
    guards = RememberingGuards()
    refuses: Refuses = lambda asked, stored: guards.refuse(asked, stored) is not None  # noqa: E731
    replays = [Replay(stream.drawn(seed)) for seed in range(orders)]
    ours = [{error: replay.run(Shipped(calibration, refuses, error)) for error in _SET}
            for replay in replays]  # fmt: skip
    plain = [[replay.run(Cosine(level)) for level in _LEVELS] for replay in replays]
    best = [np.mean([_best(list(found.values()), e) for found in ours]) for e in _ALLOWED]
    asked = [found[0.01] for found in ours]
    return [
        *(f"{100 * rate:.1f}" for rate in best),
        f"{100 * np.mean([_best(found, 0.01) for found in plain]):.1f}",
        f"{100 * np.mean([found.hit_rate for found in asked]):.1f}",
        f"{100 * _wrong(asked):.2f}",
    ]


def _best(passes: Sequence[Pass], most: float) -> float:
    return max((found.hit_rate for found in passes if found.error <= most), default=0.0)


def _wrong(passes: Sequence[Pass]) -> float:
    served = sum(found.hit_rate for found in passes)
    return sum(found.error_of_queries for found in passes) / max(served, 1e-9)


if __name__ == "__main__":
    sys.exit(main())
