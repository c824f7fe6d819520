"""What can be read off a prompt without any model: its structure, and hashed words.

Both need no weights and no network, so that a router can be taught on them
where no embedder is installed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log1p
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from router.query import Query
from router.state import State
from router.types import RouterError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

STRUCTURE: tuple[str, ...] = (
    "log_chars", "log_words", "log_lines", "word_length", "long_words", "digits", "signs",
    "capitals", "foreign", "question_mark", "blank", "negation", "all_or_none", "code",
    "options", "stem_chars", "option_chars", "option_spread", "option_numbers", "option_overlap",
    "numbers", "largest_number", "log_turns", "log_system", "log_input_tokens", "log_max_tokens",
    "tools", "images", "schema",
)  # fmt: skip
"""The names of what `structure` gives, in order."""

_HEAD, _TAIL = 6000, 2000  # characters read of a long text, from its start and its end
_OPTION = re.compile(r"^\s{0,4}\(?[A-J][.):]\s", re.MULTILINE)
_NEGATION = re.compile(r"\b(?:not|except|least|false|incorrect|never|cannot|untrue)\b", re.I)
_ALL_OR_NONE = re.compile(r"\b(?:all|none|both|neither) of (?:the|these|them)\b", re.I)
_CODE = re.compile(r"```|\bdef \w+\(|\breturn\b|\bassert\b|[{};]\s*$|=>|==", re.MULTILINE)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_WORD = re.compile(r"[^\W\d_]+")
_SIGNS = frozenset("=+-*/^$\\<>|_%")


class SurfaceError(RouterError):
    """A kept text space that cannot be used."""


def clipped(text: str) -> str:
    """Return what is read of a text: its start and its end, where the question stands.

    Half a surrogate pair, which no encoding knows, becomes a question mark.
    """
    if len(text) <= _HEAD + _TAIL:
        return text.encode("utf-8", "replace").decode()
    return f"{text[:_HEAD]}\n{text[-_TAIL:]}".encode("utf-8", "replace").decode()


def structure(query: Query) -> NDArray[np.float32]:
    """Return the features named in STRUCTURE, all of them finite."""
    text = clipped(query.text)
    values = (*_of_text(text), *_of_options(text), *_of_numbers(text), *_of_request(query))
    return np.array(values, dtype=np.float32)


def structures(queries: Sequence[Query]) -> NDArray[np.float32]:
    """Return one row of features a query."""
    rows = np.empty((len(queries), len(STRUCTURE)), np.float32)
    for at, query in enumerate(queries):
        rows[at] = structure(query)
    return rows


def _of_text(text: str) -> tuple[float, ...]:
    words = _WORD.findall(text)
    chars, count = max(1, len(text)), max(1, len(words))
    ascii_chars = len(text.encode("ascii", "ignore"))
    return (
        log1p(len(text)),
        log1p(len(words)),
        log1p(text.count("\n")),
        sum(map(len, words)) / count,
        sum(len(word) > 9 for word in words) / count,
        sum(map(str.isdigit, text)) / chars,
        sum(map(_SIGNS.__contains__, text)) / chars,
        sum(map(str.isupper, text)) / chars,
        (len(text) - ascii_chars) / chars,
        float("?" in text),
        float("___" in text),
        float(_NEGATION.search(text) is not None),
        float(_ALL_OR_NONE.search(text) is not None),
        float(_CODE.search(text) is not None),
    )


def _of_options(text: str) -> tuple[float, ...]:
    """Describe the choices of a multiple-choice question."""
    marks = list(_OPTION.finditer(text))
    if len(marks) < 2:
        return (0.0, log1p(len(text)), 0.0, 0.0, 0.0, 0.0)
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    options = [text[m.end() : end].strip() for m, end in zip(marks, ends, strict=True)]
    lengths = np.array([len(option) for option in options], dtype=np.float64)
    numeric = sum(any(map(str.isdigit, option)) for option in options)
    return (
        float(len(options)),
        log1p(marks[0].start()),
        log1p(float(lengths.mean())),
        log1p(float(lengths.std())),
        numeric / len(options),
        _overlap(options),
    )


def _overlap(options: Sequence[str]) -> float:
    """Return which share of the options' words stands in more than one of them."""
    sets = [set(option.casefold().split()) for option in options]
    every = set().union(*sets)
    if not every:
        return 0.0
    return 1 - sum(sum(word in each for each in sets) == 1 for word in every) / len(every)


def _of_numbers(text: str) -> tuple[float, ...]:
    found = [number.replace(",", "")[:15] for number in _NUMBER.findall(text)[:200]]
    sizes = [float(number.partition(".")[0] or 0) for number in found]
    return (log1p(len(found)), log1p(max(sizes, default=0.0)))


def _of_request(query: Query) -> tuple[float, ...]:
    messages = query.messages or ()
    system = sum(len(str(m.get("content"))) for m in messages if m.get("role") == "system")
    tokens = query.input_tokens if query.input_tokens is not None else len(query.text) // 4
    return (
        log1p(len(messages)),
        log1p(system),
        log1p(tokens),
        log1p(query.max_tokens or 0),
        float(query.has_tools),
        float(query.has_images),
        float(query.json_schema),
    )


@dataclass(frozen=True, slots=True, eq=False)
class TextSpace:
    """Weighted hashed n-grams: words (1-2) and characters within words (2-4).

    `weight` is one number a bucket (smoothed inverse document frequency, Spärck
    Jones 1972), zero where no two texts of the fitting had it. The first half of
    the buckets are words', the second half characters'.
    """

    weight: NDArray[np.float32] = field(repr=False)
    bits: int = 15

    @classmethod
    def fit(cls, texts: Sequence[str], *, bits: int = 15) -> TextSpace:
        """Learn the weights from texts; labels are not needed, so any prompts will do."""
        seen = np.zeros(2 << bits)
        for text in texts:
            seen[np.unique(_buckets(text, bits))] += 1
        weight = np.where(seen > 1, np.log((1 + len(texts)) / (1 + seen)) + 1, 0.0)
        return cls(weight.astype(np.float32), bits)

    @property
    def width(self) -> int:
        """Return how many buckets there are."""
        return len(self.weight)

    def matrix(self, texts: Sequence[str]) -> csr_matrix:
        """Return one sparse row a text; words and characters have unit length each.

        Buckets without weight stay in it as zeros, for `known_share`.
        """
        from scipy.sparse import csr_matrix

        rows = [self._row(text) for text in texts]
        ends = np.cumsum([0, *(len(indices) for indices, _ in rows)])
        indices = np.concatenate([indices for indices, _ in rows] or [np.zeros(0, np.int32)])
        data = np.concatenate([data for _, data in rows] or [np.zeros(0, np.float32)])
        return csr_matrix((data, indices, ends), shape=(len(rows), self.width))

    def known_share(self, rows: csr_matrix) -> NDArray[np.float64]:
        """Return which share of each row's word buckets the fitting had seen; 0 without words."""
        count = rows.shape[0]
        owner = np.repeat(np.arange(count), np.diff(rows.indptr))
        words = rows.indices < self.width // 2
        known = words & (self.weight[rows.indices] > 0)
        total = np.bincount(owner[words], minlength=count)
        share: NDArray[np.float64] = np.bincount(owner[known], minlength=count) / np.maximum(
            total, 1
        )
        return share

    def _row(self, text: str) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        indices, counts = np.unique(_buckets(text, self.bits), return_counts=True)
        data = (1 + np.log(counts)) * self.weight[indices]
        middle = int(np.searchsorted(indices, self.width // 2))
        for part in (data[:middle], data[middle:]):
            part /= max(float(np.sqrt(part @ part)), 1e-9)
        return indices.astype(np.int32), data.astype(np.float32)

    def to_state(self) -> State:
        """Return what is kept on disk."""
        return State(values={"bits": self.bits}, arrays={"weight": self.weight})

    @classmethod
    def from_state(cls, state: State) -> TextSpace:
        """Make it again. Raises SurfaceError for what `to_state` cannot have written."""
        bits, weight = state.values.get("bits"), state.arrays.get("weight")
        if not isinstance(bits, int) or not 4 <= bits <= 22 or weight is None:
            raise SurfaceError(
                f"text space: expected bits (4 to 22) and weights, found {bits!r:.60}"
            )
        if weight.shape != (2 << bits,) or not np.isfinite(weight).all():
            raise SurfaceError(f"text space: expected {2 << bits} finite weights")
        return cls(weight.astype(np.float32), bits)


_TOKEN = re.compile(r"\w+")
_MIX, _STEP = np.uint32(2654435761), np.uint32(0x01000193)
_SPACE = 32
_LONGEST = 4  # characters of an n-gram


def _buckets(text: str, bits: int) -> NDArray[np.uint32]:
    """Return the bucket of each n-gram of a text, words' first.

    Hashed with numpy as a whole: a decision has no time for a loop over n-grams.
    """
    folded = f" {' '.join(clipped(text).lower().split())} "
    words = _hashed_words(folded)
    pairs = words[:-1] * _STEP + (words[1:] ^ _MIX)
    half = np.uint32(1 << bits)
    shift = np.uint32(32 - bits)
    of_words = (np.concatenate([words, pairs]) * _MIX) >> shift
    of_chars = (np.concatenate(_hashed_chars(folded)) * _MIX) >> shift
    return np.concatenate([of_words, of_chars + half])


def _hashed_words(folded: str) -> NDArray[np.uint32]:
    hashes = [crc32(token.encode()) for token in _TOKEN.findall(folded)]
    return np.array(hashes, dtype=np.uint32)


def _hashed_chars(folded: str) -> list[NDArray[np.uint32]]:
    """Hash runs of 2 to 4 characters that have a space at most at their ends."""
    codes = np.frombuffer(folded.encode("utf-32-le"), dtype=np.uint32)
    letters = codes != _SPACE
    running, inside = codes.copy(), np.ones(len(codes), dtype=bool)
    found = []
    for length in range(2, _LONGEST + 1):
        if len(codes) < length:
            break
        inner = letters[length - 2 : len(codes) - 1] if length > 2 else True
        inside = inside[:-1] & inner
        running = (running[:-1] * _STEP) ^ codes[length - 1 :]
        found.append(running[inside] + np.uint32(length))
    return found
