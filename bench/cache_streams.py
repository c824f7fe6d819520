"""Streams of questions, replayed against an empty cache that fills as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.cache_pairs import question_pairs
from bench.cache_vectors import Vectors
from cache.semantic.decision_features import Evidence, answer_key, weigh
from cache.semantic.desk import NEIGHBOURS, WITNESSES
from cache.semantic.guards import AxisGuards
from cache.semantic.surroundings import HEARD, Around, surroundings
from cache.semantic.types import Candidate, Guards

Rows = npt.NDArray[np.float32]
_NEVER = "oos"  # questions out of scope share no answer, not even with each other


@dataclass(frozen=True, slots=True)
class Stream:
    """Questions in their order, what each asks for, and their vectors of length one."""

    name: str
    texts: Sequence[str]
    answers: Sequence[str]
    vectors: Rows

    def drawn(self, seed: int, size: int | None = None) -> Stream:
        """Return the stream in another order, cut to a size."""
        order = np.random.default_rng(seed).permutation(len(self.texts))[:size]
        return Stream(
            self.name,
            [self.texts[i] for i in order],
            [self.answers[i] for i in order],
            self.vectors[order],
        )

    def only(self, answers: set[str]) -> Stream:
        """Return the stream of the questions that ask for one of these, or for nothing known."""
        kept = [i for i, a in enumerate(self.answers) if a in answers or a.startswith(_NEVER)]
        return Stream(
            self.name,
            [self.texts[i] for i in kept],
            [self.answers[i] for i in kept],
            self.vectors[kept],
        )


class RememberingGuards:
    """The guards, which read each pair once over all replays."""

    def __init__(self) -> None:
        guards = AxisGuards()
        self.refuse = lru_cache(maxsize=4_000_000)(guards.refuse)


@dataclass(frozen=True, slots=True)
class Lookup:
    """What one question met: `right` says whether the chosen answer is the one asked for."""

    evidence: Evidence
    entry: int
    right: bool


def read_stream(folder: Path, split: str) -> tuple[list[str], list[str]]:
    """Return texts and answers of one split; each question out of scope gets its own answer."""
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(
        folder / f"{split}.parquet", columns=["text", "intent"]
    ).to_pylist()
    answers = [
        f"{_NEVER}-{number}" if row["intent"] == _NEVER else str(row["intent"])
        for number, row in enumerate(rows)
    ]
    return [str(row["text"]) for row in rows], answers


def nearest(
    cosines: npt.NDArray[np.float32],
    kept: Sequence[int],
    stream: Stream,
    key_of: Callable[[int], str],
    count: int = NEIGHBOURS,
    *,
    crowds: bool = True,
) -> list[Candidate]:
    """Return the entries nearest to a question as the gateway meets them.

    `cosines` are those with the questions of the stream that are `kept`, by number. Without
    `crowds` nothing is told of what is around them.
    """
    most = WITNESSES if crowds else count
    at = np.argpartition(-cosines, min(most, len(cosines)) - 1)[:most]
    at = at[np.argsort(-cosines[at])]
    at = at[cosines[at] >= HEARD]
    numbers = [int(kept[place]) for place in at]
    near, keys = [float(cosines[place]) for place in at], [key_of(n) for n in numbers]
    around: Sequence[Around | None] = (
        surroundings(near, stream.vectors[numbers], keys) if crowds else [None] * len(near)
    )
    return [
        Candidate(stream.texts[n], 0, similarity, str(n), answer_key=key, around=lies)
        for n, similarity, key, lies in list(zip(numbers, near, keys, around, strict=True))[:count]
    ]


class Shelf:
    """The entries of a cache under replay, with an exact search."""

    def __init__(self, stream: Stream, *, knows_answers: bool) -> None:
        self._stream = stream
        self._vectors = np.empty_like(stream.vectors)
        self._kept: list[int] = []
        self._keys = [answer_key(a) if knows_answers else "" for a in stream.answers]

    def __len__(self) -> int:
        return len(self._kept)

    def nearest(self, number: int, count: int = NEIGHBOURS) -> list[Candidate]:
        """Return the entries nearest to a question, in falling similarity."""
        if not self._kept:
            return []
        cosines = self._vectors[: len(self._kept)] @ self._stream.vectors[number]
        return nearest(cosines, self._kept, self._stream, self._keys.__getitem__, count)

    def keep(self, number: int) -> None:
        """Store a question with the answer that it was given."""
        self._vectors[len(self._kept)] = self._stream.vectors[number]
        self._kept.append(number)


def lookups(
    stream: Stream, *, knows_answers: bool, guards: Guards | None, kept: float, seed: int = 0
) -> list[Lookup | None]:
    """Look every question up among those before it, of which a share was kept.

    None where nothing was left to choose from.
    """
    shelf = Shelf(stream, knows_answers=knows_answers)
    chance = np.random.default_rng(seed)
    found: list[Lookup | None] = []
    for number, text in enumerate(stream.texts):
        near = shelf.nearest(number)
        if guards is not None:
            near = [
                c for c in near if c.similarity >= 0.5 and guards.refuse(text, c.question) is None
            ]
        found.append(_looked_up(stream, number, near) if near else None)
        if chance.random() < kept:
            shelf.keep(number)
    return found


def pair_lookups(vectors: Vectors, guards: Guards | None = None) -> list[Lookup | None]:
    """Look one question of every pair up where only the other is kept; None if a guard refuses."""
    pairs = question_pairs()
    rows = vectors.of("pairs", [text for pair in pairs for text in (pair.asked, pair.stored)])
    guards = guards or AxisGuards()
    found: list[Lookup | None] = []
    for number, pair in enumerate(pairs):
        cosine = float(rows[2 * number] @ rows[2 * number + 1])
        near = [Candidate(pair.stored, 0, cosine, "0")]
        refused = guards.refuse(pair.asked, pair.stored) is not None
        found.append(None if refused else Lookup(weigh(pair.asked, near), 0, pair.is_same))
    return found


def _looked_up(stream: Stream, number: int, near: Sequence[Candidate]) -> Lookup:
    evidence = weigh(stream.texts[number], near)
    entry = int(near[evidence.place].entry_id)
    return Lookup(evidence, entry, stream.answers[entry] == stream.answers[number])
