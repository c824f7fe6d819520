"""Whether the words of a reply are those of right ones: hashed words, one weight each.

Words and pairs of neighbours are hashed to a fixed number of places, so there
is no vocabulary to keep and a word never seen costs nothing. Weights are those
of a logistic regression on tf-idf.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from router.state import State
from router.types import RouterError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = NDArray[np.float64]

_PLACES = 1 << 17
_MOST = 1_500  # characters of a text, from its end
_TOKEN = re.compile(r"[^\W_]+|[^\w\s]")


class WordsError(RouterError):
    """A state that holds no weights of words."""


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """Weights by place, already times the inverse document frequency, and a bias."""

    weight: NDArray[np.float32]
    rarity: NDArray[np.float32]
    bias: float

    def __call__(self, texts: Iterable[Bag]) -> Floats:
        """Return the log-odds that each text is a right reply."""
        return np.array([self._of(bag) for bag in texts], dtype=np.float64)

    def _of(self, bag: Bag) -> float:
        weighed = bag.counts * self.rarity[bag.places]
        length = float(np.sqrt(weighed @ weighed)) or 1.0
        return float(weighed @ self.weight[bag.places]) / length + self.bias

    def to_state(self) -> State:
        """Return what is to be kept of it."""
        arrays = {"weight": self.weight, "rarity": self.rarity}
        return State(values={"bias": self.bias}, arrays=arrays)

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Make it again. Raises WordsError for a state that is not one of its own."""
        bias = state.values.get("bias")
        arrays = [state.arrays.get(name, np.zeros(0)) for name in ("weight", "rarity")]
        fits = all(each.shape == (_PLACES,) and np.isfinite(each).all() for each in arrays)
        if not isinstance(bias, float) or not np.isfinite(bias) or not fits:
            raise WordsError(f"words: expected {_PLACES} finite weights; train the bundle again")
        weight, rarity = (each.astype(np.float32) for each in arrays)
        return cls(weight, rarity, bias)

    @classmethod
    def untaught(cls) -> Self:
        """Return words that say nothing."""
        return cls(np.zeros(_PLACES, np.float32), np.ones(_PLACES, np.float32), 0.0)

    @classmethod
    def fit(cls, bags: Sequence[Bag], score: Any, *, strength: float = 1.0) -> Self:
        """Fit to scores from 0 to 1. Where all are alike, every text is told that mean."""
        from sklearn.linear_model import LogisticRegression

        y = np.asarray(score, dtype=np.float64)
        rarity = _rarity(bags)
        right = y > 0.5
        if right.all() or not right.any():
            nothing = np.zeros(_PLACES, dtype=np.float32)
            return cls(nothing, rarity, 3.0 if right.all() else -3.0)
        model = LogisticRegression(C=strength, max_iter=60, tol=1e-3)
        model.fit(_matrix(bags, rarity), right)
        return cls(model.coef_[0].astype(np.float32), rarity, float(model.intercept_[0]))


@dataclass(frozen=True, slots=True, eq=False)
class Bag:
    """The places of a text's different words, and 1 + ln of how often each comes."""

    places: NDArray[np.int64]
    counts: NDArray[np.float32]


def bag_of(prompt: str, reply: str, model: str) -> Bag:
    """Return the words of a question and of a reply; the same word in both has two places.

    The model has a place, too, so that its usual turns do not stand for its skill.
    """
    said = _tokens(reply)
    pairs = [f"{one} {other}" for one, other in pairwise(said)]
    asked = [f"?{word}" for word in set(_tokens(prompt))]
    often = Counter((*said, *pairs, *asked, f"@{model}"))
    crc = zlib.crc32
    hashed = [crc(word.encode("utf-8", "replace")) & (_PLACES - 1) for word in often]
    counts = 1.0 + np.log(np.fromiter(often.values(), dtype=np.float64, count=len(often)))
    # Two words in one place stay two entries: their weights are the same.
    return Bag(np.array(hashed, dtype=np.int64), counts.astype(np.float32))


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text[-_MOST:].casefold())


def _rarity(bags: Sequence[Bag]) -> NDArray[np.float32]:
    seen = np.zeros(_PLACES)
    for bag in bags:
        np.add.at(seen, bag.places, 1.0)
    return (np.log((1 + len(bags)) / (1 + seen)) + 1.0).astype(np.float32)


def _matrix(bags: Sequence[Bag], rarity: NDArray[np.float32]) -> csr_matrix:
    from scipy.sparse import csr_matrix

    ends = np.cumsum([0, *(len(bag.places) for bag in bags)])
    places = np.concatenate([bag.places for bag in bags])
    values = np.concatenate([bag.counts for bag in bags]) * rarity[places]
    rows = np.repeat(np.arange(len(bags)), np.diff(ends))
    lengths = np.sqrt(np.bincount(rows, values.astype(np.float64) ** 2, len(bags)))
    values = values / np.maximum(lengths, 1e-9)[rows]
    return csr_matrix((values, places, ends), shape=(len(bags), _PLACES))
