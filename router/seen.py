"""Which prompts a bundle was made of, in little room, so that it is not measured on them.

The smallest of the prompts' digests are a random sample of them that two sets draw alike, so
the share of another set that is in it tells how far the sets overlap (Broder 1997, "On the
resemblance and containment of documents").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from router.query import Query, content_key

MARKS = "prompts"
"""What a bundle's manifest calls the marks of the prompts that it was made of."""

MOST = 2_000
_LENGTH = 12


def marks_of(queries: Iterable[Query], earlier: Iterable[str] = ()) -> list[str]:
    """Return the marks of these prompts and of those that `earlier` ones are of."""
    return sorted({*_keys(queries), *earlier})[:MOST]


def met_share(marks: Sequence[str], queries: Iterable[Query]) -> float:
    """Return the share of these prompts that the marks are of, 0 to 1; estimated for very many."""
    is_whole = len(marks) < MOST
    drawn = [key for key in _keys(queries) if is_whole or key <= marks[-1]]
    known = frozenset(marks)
    return sum(key in known for key in drawn) / len(drawn) if drawn else 0.0


def _keys(queries: Iterable[Query]) -> Iterable[str]:
    return (content_key(query.text)[:_LENGTH] for query in queries if query.text)
