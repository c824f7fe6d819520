"""Fit the calibration of the semantic cache on replayed streams.

    python -m bench.cache_fit --data ../data --out cache/semantic/calibration_default.json

Streams are drawn from the train splits, whole and in parts, and from composed domains,
in several sizes and densities, and from generated near misses; every domain counts the
same. With `--without SHARE` that share of the intents, chosen by a hash of their names,
is left out, so that they can be reported on. What is to hold on domains that nobody has
seen is judged by leaving each out in turn: `python -m bench.cache_unseen --data DIR`.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.cache_domains import domain_stream, domains
from bench.cache_streams import (
    Lookup,
    RememberingGuards,
    Stream,
    lookups,
    pair_lookups,
    read_stream,
)
from bench.cache_vectors import FOLDER, Vectors
from cache.semantic.calibration import Calibration, Model, encode
from cache.semantic.decision_features import NAMES

Array = npt.NDArray[np.float64]
Met = Sequence[Sequence[Lookup | None]]
Table = tuple[Array, Array]

SHOWN = 0.4
"""The share of intents that the shipped calibration has not seen."""

DRAWS = ((1, 1500, 0.8), (2, 600, 1.0), *((seed, 200, 1.0) for seed in range(3, 6)))
"""Order, size, and share of questions kept, of the streams drawn for the fit: many are young."""

# What helps where answers are not told apart changes from domain to domain, but for these.
_ALONE = ("closeness",)
_RIDGE = 1.0
_SHUT = 1e9
_ROUNDS = 30
_PARTS = 4
_GUARDS = RememberingGuards()
CAUTION = 0.25
ENTRY_VARIANCE = 1.0
ANSWER_VARIANCE = 0.6
ROUTE_VARIANCE = 0.3


def main(argv: Sequence[str] | None = None) -> int:
    """Fit and write. Returns the exit status."""
    parser = argparse.ArgumentParser(description="fit the calibration of the semantic cache")
    parser.add_argument("--data", type=Path, required=True, help="folder of semcache_* folders")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--without", type=float, default=SHOWN, help="share of intents left out")
    parser.add_argument("--cache", type=Path, default=FOLDER, help="where vectors are kept")
    arguments = parser.parse_args(argv)
    vectors = Vectors(arguments.cache)
    streams = [stream_of(f, "train", vectors) for f in sorted(arguments.data.glob("semcache_*"))]
    known = [stream.only(seen(stream.answers, arguments.without)) for stream in streams]
    known += [domain_stream(name, vectors) for name in domains()]
    arguments.out.write_bytes(encode(learned(known, vectors)) + b"\n")
    return 0


def learned(streams: Sequence[Stream], vectors: Vectors) -> Calibration:
    """Fit on streams, each also in parts if it is of many answers, and on the near misses."""
    met: dict[str, Met] = {s.name: fit_lookups(s) for stream in streams for s in _parts(stream)}
    met["near misses"] = [pair_lookups(vectors)]
    return fit_calibration(met)


def _parts(stream: Stream) -> list[Stream]:
    """Return a stream and, of a broad one, parts: a deployment may know few answers or many."""
    answers = {a for a in stream.answers if not a.startswith("oos")}
    if len(answers) < 10 * _PARTS:
        return [stream]
    parts = [
        {a for a in answers if zlib.crc32(a[::-1].encode()) % _PARTS == part}
        for part in range(_PARTS)
    ]
    return [stream, *(replace(stream.only(p), name=f"{stream.name} {n}")
                      for n, p in enumerate(parts))]  # fmt: skip


def stream_of(folder: Path, split: str, vectors: Vectors) -> Stream:
    """Return one split of a data set as a stream."""
    texts, answers = read_stream(folder, split)
    return Stream(folder.name, texts, answers, vectors.of(f"{folder.name} {split}", texts))


def seen(answers: Sequence[str], without: float) -> set[str]:
    """Return the answers that a fit without that share may see; a name always falls alike."""
    return {a for a in answers if zlib.crc32(a.encode()) % 1000 >= without * 1000}


def fit_lookups(stream: Stream) -> list[list[Lookup | None]]:
    """Replay a stream in several draws, with answers told apart and without."""
    return [
        lookups(stream.drawn(seed, size), knows_answers=knows, guards=_GUARDS, kept=kept, seed=seed)
        for seed, size, kept in DRAWS
        for knows in (True, False)
    ]


def fit_calibration(streams: Mapping[str, Met]) -> Calibration:
    """Fit both models on lookups by domain, each domain in several draws.

    Lookups whose evidence is not shared teach the model for answers that are not told apart.
    """
    return Calibration(
        NAMES,
        shared=_fitted(_tables(streams, is_shared=True), NAMES),
        alone=_fitted(_tables(streams, is_shared=False), _ALONE),
        entry_variance=ENTRY_VARIANCE,
        answer_variance=ANSWER_VARIANCE,
        route_variance=ROUTE_VARIANCE,
        caution=CAUTION,
    )


def _tables(streams: Mapping[str, Met], *, is_shared: bool) -> dict[str, Table]:
    tables: dict[str, Table] = {}
    for name, draws in streams.items():
        met = [x for draw in draws for x in draw if x and x.evidence.is_shared == is_shared]
        if met:
            rows = np.array([x.evidence.values for x in met])
            tables[name] = rows, np.array([float(x.right) for x in met])
    return tables


def _fitted(tables: Mapping[str, Table], used: Sequence[str]) -> Model:
    rows = np.concatenate([rows for rows, _ in tables.values()])
    right = np.concatenate([right for _, right in tables.values()])
    centre, scale = rows.mean(0), rows.std(0) + 1e-6
    weighed, covariance = _newton((rows - centre) / scale, right, _weights(tables), used)
    return Model(
        centre=_plain(centre),
        scale=_plain(scale),
        weights=_plain(weighed),
        covariance=tuple(_plain(line, 8) for line in covariance),
    )


def _plain(row: Array, digits: int = 6) -> tuple[float, ...]:
    return tuple(np.round(row, digits).tolist())


def _weights(tables: Mapping[str, Table]) -> Array:
    """Let every domain count the same, however many rows it has."""
    total = sum(len(right) for _, right in tables.values())
    return np.concatenate(
        [np.full(len(right), total / len(tables) / len(right)) for _, right in tables.values()]
    )


def _newton(rows: Array, right: Array, weights: Array, used: Sequence[str]) -> tuple[Array, Array]:
    """Return the weights of a ridge logistic regression and their covariance.

    The weight of a feature that is not used is 0.
    """
    row = np.column_stack([np.ones(len(rows)), rows])
    penalty = np.diag([1e-6, *(_RIDGE if name in used else _SHUT for name in NAMES)])
    found = np.zeros(row.shape[1])
    for _ in range(_ROUNDS):
        chance = 1 / (1 + np.exp(-np.clip(row @ found, -30, 30)))
        spread = weights * chance * (1 - chance)
        curvature = (row * spread[:, None]).T @ row + penalty
        step = np.linalg.solve(curvature, row.T @ (weights * (right - chance)) - penalty @ found)
        found = found + step
        if np.abs(step).max() < 1e-8:
            break
    return found, np.linalg.inv(curvature)


if __name__ == "__main__":
    sys.exit(main())
