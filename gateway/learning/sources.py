"""Where outcomes are read from: files as they are, and the audits of a route in a ledger."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.learning.book import Book, OutcomeRow
from gateway.learning.errors import LearningError
from gateway.learning.exporting import told
from gateway.money.errors import LedgerError

if TYPE_CHECKING:
    from router.learn_table import LearnTable

Advance = Callable[[str, float], None]
Warn = Callable[[str], None]
_READING = "reading the ledger"
_STEP = 1000


def silent(what: str, share: float) -> None:
    """Tell nobody."""


def unheard(message: str) -> None:
    """Warn nobody."""


def is_ledger(source: str) -> bool:
    """Return whether a source is a ledger's URL, not a file."""
    return "://" in source


def shown(source: str) -> str:
    """Return a source as it may be written down: without a password."""
    from gateway.money.location import is_postgres, shown_url

    url, _, route = source.partition("#")
    if not is_postgres(url):
        return source
    return shown_url(url).strip("'") + (f"#{route}" if route else "")


@contextmanager
def as_files(
    sources: Sequence[str],
    advance: Advance = silent,
    *,
    reference: str | None = None,
    warn: Warn = unheard,
) -> Iterator[list[Path]]:
    """Yield a file for each source; `URL#route` is a route's audits in a ledger.

    Of a ledger only drawn requests are read: others were chosen by what ran then. With a
    `reference` only those whose answers were set against that model's; how many were not is a
    warning. What is wrong with a file so made is told by the name of its source. Raises
    LearningError.
    """
    from router.types import OutcomesError

    with tempfile.TemporaryDirectory(prefix="frugal-outcomes-") as folder:
        made = {
            place: Path(folder) / f"{place}.jsonl"
            for place, source in enumerate(sources)
            if is_ledger(source)
        }
        for place, path in made.items():
            _write(path, audits_at(sources[place], reference, warn=warn), advance)
        try:
            yield [made.get(place, Path(source)) for place, source in enumerate(sources)]
        except OutcomesError as exc:
            message = str(exc)
            for place, path in made.items():
                message = message.replace(str(path), shown(sources[place]))
            raise OutcomesError(message) from exc


def only_reference(sources: Sequence[str]) -> str | None:
    """Return the model that the answers in these ledgers were set against; None without ledgers.

    A score of a ledger says how an answer stands to that model's, so scores against two models
    are no table. Raises LearningError.
    """
    found: dict[str, str] = {}
    for source in filter(is_ledger, sources):
        with _book_at(source) as (book, route):
            found |= dict.fromkeys(book.references(route), shown(source))
    if len(found) > 1:
        some = ", ".join(f"{name} ({where})" for name, where in found.items())
        raise LearningError(
            f"outcomes are set against several models: {some}; name the one to learn for with "
            "--reference, or a policy with --policy"
        )
    return next(iter(found), None)


def check_reference(table: LearnTable, reference: str) -> None:
    """Refuse a file whose scores say how answers stand to another model's. Raises LearningError."""
    others = [name for name in table.scored_against if name != reference]
    if others:
        raise LearningError(
            f"some scores are set against {', '.join(others)} (scored_against), and the reference "
            f"is {reference}; keep the rows of one, as frugal outcomes export --reference "
            f"{reference} writes them, or name the other with --reference"
        )


def _write(path: Path, rows: Sequence[OutcomeRow], advance: Advance) -> None:
    advance(_READING, 0.0)
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows):
            file.write(json.dumps(told(row), ensure_ascii=False) + "\n")
            if number % _STEP == 0:
                advance(_READING, number / len(rows))
    advance(_READING, 1.0)


@contextmanager
def _book_at(source: str) -> Iterator[tuple[Book, str]]:
    """Yield a ledger's book and the route that `URL#route` names. Raises LearningError."""
    url, _, route = source.partition("#")
    try:
        book = Book(url)
        try:
            yield book, route or _only(book.routes(), source)
        finally:
            book.close()
    except LedgerError as exc:
        raise LearningError(f"{shown(source)}: {exc}") from exc


def audits_at(
    source: str, reference: str | None = None, *, warn: Warn = unheard
) -> list[OutcomeRow]:
    """Return the drawn requests' rows of `URL#route`, or of the only route that has outcomes.

    With a `reference`, of requests whose answers were set against that model's: a score of the
    ledger says no more. Raises LearningError.
    """
    with _book_at(source) as (book, route):
        every = book.rows(route)
        known = [] if every else book.routes()
    drawn = [row for row in every if row.drawn]
    compared = [row for row in drawn if reference in (None, row.reference)]
    with_texts = [row for row in compared if row.messages is not None]
    if not every:
        why = f"no outcomes of this route; there are some of: {', '.join(known) or 'none'}"
    elif not drawn:
        why = (
            f"none of its {len(every)} outcomes is of a drawn request, and others were chosen by "
            "what ran then; set cascade.audit, or train on a file of `frugal outcomes export`"
        )
    elif not compared:
        others = ", ".join(sorted({row.reference for row in drawn}))
        why = (
            f"its outcomes are set against {others}, and the reference asked for is {reference}; "
            "name that one, or wait for audits against this"
        )
    else:
        why = (
            "its outcomes hold no prompts to learn from; set privacy.store_texts: true, and wait "
            "for others"
        )
    if not with_texts:
        raise LearningError(f"{shown(source)}: {why}")
    left = len({row.request_id for row in drawn if row.reference != reference})
    if left and reference is not None:
        warn(
            f"{shown(source)}: {left} requests are left out, whose answers were set against "
            f"another model than {reference}"
        )
    return with_texts


def _only(routes: Sequence[str], source: str) -> str:
    if len(routes) == 1:
        return routes[0]
    some = ", ".join(routes) or "none"
    raise LearningError(
        f"{shown(source)}: expected a route after it, as in {shown(source)}#auto; "
        f"there are outcomes of: {some}"
    )
