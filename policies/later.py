"""What a policy may say one day and not yet: refused by name rather than silently accepted."""

from __future__ import annotations

from collections.abc import Iterator

from policies.document import Document
from policies.problems import KeyPath

ANY = "*"

LATER_KEYS: dict[KeyPath, str] = {
    ("routes", ANY, "rules", ANY, "when", "language"): "the condition on a language",
}
"""Keys, and what they will bring."""


def take_out_later(document: Document) -> None:
    """Report what is not built yet, and remove those keys so that the rest can be checked."""
    for pattern, what in LATER_KEYS.items():
        for path in list(_matches(document.data, pattern)):
            _take_out_key(document, path, what)


def _take_out_key(document: Document, path: KeyPath, what: str) -> None:
    holder = document.at(path[:-1])
    if not isinstance(holder, dict):
        return
    document.settle(path, f"not built yet: {what}", "remove this key", at_key=True)
    del holder[path[-1]]


def _matches(data: object, pattern: KeyPath, path: KeyPath = ()) -> Iterator[KeyPath]:
    if not pattern:
        yield path
        return
    key, rest = pattern[0], pattern[1:]
    if isinstance(data, dict):
        for each in [name for name in data if key in (ANY, name)]:
            yield from _matches(data[each], rest, (*path, each))
    elif isinstance(data, list) and key == ANY:
        for index, item in enumerate(data):
            yield from _matches(item, rest, (*path, index))
