"""How an answer lies around a question: where the questions that it answered crowd, and its rivals.

One neighbour may be near by chance, or by a label that was wrong. The centre of the
questions that an answer has served is steadier, as prototypes are that stand for
classes of which few examples are known (Snell, Swersky, Zemel 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cache.index.types import Vectors

HEARD = 0.4
"""The cosine from which a neighbour is a witness."""

NO_RIVAL, _NO_KIN = 0.4, 0.5


@dataclass(frozen=True, slots=True)
class Around:
    """One entry among the neighbours of a question; all but `kin` are cosines.

    `centre` is that of the question with the centre of those that hold the entry's
    answer, `rival` the best such of another answer. `together` is that of the entry with
    the nearest that holds its answer, too; `kin` counts those, itself included.
    """

    centre: float
    rival: float = NO_RIVAL
    together: float = _NO_KIN
    kin: int = 1


def surroundings(
    similarities: Sequence[float], vectors: Vectors, keys: Sequence[str]
) -> list[Around]:
    """Return how each neighbour lies, given its cosine with the question and its answer's key.

    `vectors` are their rows, of about unit length; an empty key is no other's.
    """
    if not keys:
        return []
    names: dict[str, int] = {}
    owner = [names.setdefault(key or f"#{place}", len(names)) for place, key in enumerate(keys)]
    holds = np.eye(len(names))[owner].T
    among = vectors @ vectors.T
    lengths = np.sqrt(np.maximum(((holds @ among) * holds).sum(1), 1e-12))
    centres = holds @ np.asarray(similarities, np.float64) / lengths
    first, second = (*sorted(centres.tolist(), reverse=True), NO_RIVAL)[:2]
    is_kin = (holds.T @ holds > 0) & ~np.eye(len(keys), dtype=bool)
    together = np.where(is_kin, among, -np.inf).max(1).tolist()
    kin = is_kin.sum(1).tolist()
    return [
        Around(
            centre,
            second if centre == first else first,
            nearest if others else _NO_KIN,
            others + 1,
        )
        for centre, nearest, others in zip(centres[owner].tolist(), together, kin, strict=True)
    ]
