"""The replies of a table, read once: features, answers, words; and who agrees with whom."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.answers import Answer
from router.learn_table import LearnTable
from router.reading import Question, read_question
from router.reply import NAMES, Reply, reply_features
from router.validators import NOTHING, Wanted
from router.words import Bag, bag_of

Floats = NDArray[np.float64]
Shorten = Callable[[int, int, str], int]


@dataclass(frozen=True, slots=True, eq=False)
class DraftRead:
    """One reply: its features, the answer it comes to, its words."""

    model: int
    features: tuple[float, ...]
    answer: Answer | None
    bag: Bag


def read_draft(
    question: Question, reply: Reply, model: int, name: str, wanted: Wanted = NOTHING
) -> DraftRead:
    """Read one reply of a model, its number and its name."""
    features, read = reply_features(question, reply, wanted)
    return DraftRead(model, features, read.answer, bag_of(question.text, reply.text, name))


@dataclass(frozen=True, slots=True, eq=False)
class Drafts:
    """Replies by [query, model]: `features` float32 [n, m, len(NAMES)], NaN where there is none.

    `agree` is int8 [n, m, m]: 1 where two come to the same answer, 0 where not,
    -1 where one of them did not answer.
    """

    models: tuple[str, ...]
    features: NDArray[np.float32]
    present: NDArray[np.bool_]
    agree: NDArray[np.int8]
    bags: Sequence[Sequence[Bag | None]]

    def __len__(self) -> int:
        return len(self.present)

    @classmethod
    def read(
        cls,
        table: LearnTable,
        *,
        shorten: Shorten | None = None,
        advance: Callable[[], None] | None = None,
    ) -> Drafts:
        """Read every reply of a table (made with `replies=True`).

        `shorten` says for (query, model, text) how many characters to read, for
        drafts under way; 0 leaves one out. `advance` is called after each query.
        """
        rows, columns = table.score.shape
        features = np.full((rows, columns, len(NAMES)), np.nan, dtype=np.float32)
        present = np.zeros((rows, columns), dtype=bool)
        agree = np.full((rows, columns, columns), -1, dtype=np.int8)
        bags: list[list[Bag | None]] = []
        for row in range(rows):
            read = _row(table, row, shorten)
            bags.append([None if each is None else each.bag for each in read])
            for column, each in enumerate(read):
                if each is not None:
                    features[row, column], present[row, column] = each.features, True
            _mark_agreement(agree[row], read)
            if advance is not None:
                advance()
        return cls(table.models, features, present, agree, bags)


def cut_at(lengths: Sequence[int], *, seed: int = 0) -> Shorten:
    """Return what cuts each reply at one of these lengths (characters), chosen by chance.

    A reply that is no longer than the shortest is left out: it would be whole
    before anybody could stop it.
    """

    def shorten(row: int, model: int, text: str) -> int:
        fitting = [length for length in lengths if length < len(text)]
        if not fitting:
            return 0
        return int(np.random.default_rng((seed, row, model)).choice(fitting))

    return shorten


def _row(table: LearnTable, row: int, shorten: Shorten | None) -> list[DraftRead | None]:
    query = table.queries[row]
    question = read_question(query.text)
    found: list[DraftRead | None] = []
    for column, name in enumerate(table.models):
        outcome = table.cell(row, column)
        reply = None if outcome is None else Reply.of_outcome(outcome)
        if reply is not None and shorten is not None:
            chars = shorten(row, column, reply.text)
            reply = reply.prefix(chars) if chars else None
        found.append(
            None if reply is None else read_draft(question, reply, column, name, query.wanted)
        )
    return found


def _mark_agreement(agree: NDArray[np.int8], read: Sequence[DraftRead | None]) -> None:
    answered = [each for each in read if each is not None and each.answer is not None]
    for at, one in enumerate(answered):
        for other in answered[:at]:
            same = agrees(one.answer, other.answer)
            agree[one.model, other.model] = agree[other.model, one.model] = same


def agrees(one: Answer | None, other: Answer | None) -> int:
    """Return 1 where two answers are the same, 0 where not, -1 where one is missing."""
    if one is None or other is None:
        return -1
    return int(one.agrees(other))
