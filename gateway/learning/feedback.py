"""What clients say of answers: checked against the ledger, counted within bounds, kept.

A word is of a key on a request; a later one takes the place of the former. Learning takes
at most `FULL_A_DAY` of a key's words on a route of one day: what goes beyond is kept and shown,
with weight 0, so that no key alone can teach a route. A certificate never stands on such words.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import asdict

from gateway.learning.book import Book

if TYPE_CHECKING:
    from gateway.access.keys import Caller

FULL_A_DAY = 20
"""So many words of one key on one route count on one day."""
MOST_ROWS = 200_000
"""Words on a route that are read."""
LABELLER = "feedback"
_DAY_US = 86_400_000_000


class Feedback(Struct, frozen=True):
    """One word: `score` from 0 (bad) to 1 (good), and what it weighs in learning, 0 or 1.

    `model` is who answered, empty where a cache did (`cache`); `label` is what would have been
    right, where the policy stores texts.
    """

    request_id: str
    key: str
    at_us: int
    tenant: str
    route: str
    model: str
    cache: str
    reference: str
    score: float
    weight: float
    label: str | None = None


class Spoken(Struct, frozen=True):
    """What was answered, as far as a word on it matters."""

    tenant: str
    route: str
    model: str
    cache: str
    reference: str


def spoken_of(ledger_urls: Iterable[str], request_id: str) -> Spoken | None:
    """Return what one of these ledgers knows of a settled request. Raises LedgerError.

    What was just answered is in the spool before it is in PostgreSQL.
    """
    from sqlalchemy import select

    from gateway.money.databases import reading
    from gateway.money.schema import entry

    own = entry.c
    wanted = select(own.tenant, own.route, own.model, own.cache, own.reference_model).where(
        own.request_id == request_id, own.state == "settled"
    )
    for url in dict.fromkeys(ledger_urls):
        with reading(url) as connection:
            if (row := connection.execute(wanted).one_or_none()) is not None:
                return Spoken(*row)
    return None


def weight_of(earlier: int, *, may_learn: bool) -> float:
    """Return what a word weighs after so many of the same key, route and day that count."""
    return 1.0 if may_learn and earlier < FULL_A_DAY else 0.0


def word_of(
    request_id: str,
    caller: Caller,
    spoken: Spoken,
    score: float,
    label: str | None,
    *,
    at_us: int,
) -> Feedback:
    """Return a caller's word, of the weight that it has at the most."""
    return Feedback(
        request_id,
        caller.key,
        at_us,
        spoken.tenant,
        spoken.route,
        spoken.model,
        spoken.cache,
        spoken.reference,
        score,
        weight_of(0, may_learn=caller.may_learn),
        label,
    )


def keep(book: Book, word: Feedback) -> Feedback:
    """Write a word down and return it as it stands. Blocks; raises LedgerError.

    What is said again keeps its place among the day's words, and with it its weight.
    """
    from sqlalchemy import func, select

    from gateway.money.schema import feedback as table

    own, day_us = table.c, word.at_us - word.at_us % _DAY_US
    before = select(table).where(own.request_id == word.request_id, own.key == word.key)
    counting = select(func.count()).where(
        own.key == word.key, own.route == word.route, own.at_us >= day_us, own.weight > 0
    )
    with book.writing() as connection:
        # Two words at once cannot both be the last that counts: of a key, one at a time.
        book.lock(connection, f"feedback {word.key}")
        found = connection.execute(before).mappings().one_or_none()
        if found is not None:
            word = _said_again(Feedback(**found), word)
        elif int(connection.scalar(counting) or 0) >= FULL_A_DAY:
            word = _with(word, weight=0.0)
        added = book.insert(table).values(**asdict(word))
        changed = {name: added.excluded[name] for name in ("score", "label")}
        connection.execute(
            added.on_conflict_do_update(index_elements=["request_id", "key"], set_=changed)
        )
    return word


def _said_again(before: Feedback, word: Feedback) -> Feedback:
    return _with(before, score=word.score, label=word.label)


def _with(word: Feedback, **changes: object) -> Feedback:
    return Feedback(**asdict(word) | changes)


def words_of(book: Book, route: str, *, most: int = MOST_ROWS, since_us: int = 0) -> list[Feedback]:
    """Return the newest words on a route, oldest first. Raises LedgerError."""
    from sqlalchemy import select

    from gateway.money.schema import feedback as table

    own = table.c
    wanted = (
        select(table)
        .where(own.route == route, own.at_us >= since_us)
        .order_by(own.at_us.desc(), own.request_id.desc(), own.key.desc())
        .limit(most)
    )
    with book.reading() as connection:
        return [Feedback(**row) for row in connection.execute(wanted).mappings()][::-1]


def ratings(words: Iterable[Feedback]) -> Mapping[tuple[str, str], float]:
    """Return the mean of what counts, by request and the model that answered it."""
    heard: dict[tuple[str, str], list[Feedback]] = defaultdict(list)
    for word in words:
        if word.weight > 0 and word.model:
            heard[word.request_id, word.model].append(word)
    return {
        which: sum(w.score * w.weight for w in own) / sum(w.weight for w in own)
        for which, own in heard.items()
    }
