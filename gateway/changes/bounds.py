"""What a policy that comes over HTTP may not add: addresses, classes, references, files.

Whoever has an admin's key may change how requests are routed and priced; where they are
sent, which code runs and what is read of this machine is for who can write its files.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.changes.masking import general
from policies.document import Document
from policies.kinds import is_class_path
from policies.problems import KeyPath, Problem, spell

_CLASSES = frozenset({"provider", "kind", "confidence"})
_ADDRESSES = frozenset({"base_url", "url", "ledger", "redis", "limits", "semantic_index"})
_FILES = frozenset({"checkpoint", "bundle", "outcomes", "file", "ca_file", "cross_encoder"})


def added(document: Document, current: Document) -> list[Problem]:
    """Return what a document has that may not come over HTTP and that the current one has not."""
    known = set(_kept(current))
    return [
        Problem(
            document.name,
            (spot := document.spots[path]).mark.line,
            spot.mark.column,
            spell(path),
            f"{what} may not be added or changed over HTTP",
            "write it into the file, and tell the gateway to reload",
        )
        for path, what, mark in _told(document)
        if mark not in known
    ]


_Mark = tuple[KeyPath, str]


def _kept(document: Document) -> Iterator[_Mark]:
    for _, _, mark in _told(document):
        yield mark


def _told(document: Document) -> Iterator[tuple[KeyPath, str, _Mark]]:
    """Yield what is bounded, in a word, and what tells it from another of its kind."""
    for path, spot in document.spots.items():
        value = document.at(path)
        if not path or not isinstance(value, str):
            continue
        if spot.written is not None:
            yield path, "a reference to the environment", (general(path), spot.written)
        elif "://" in value or (path[-1] in _ADDRESSES and path[0] in ("models", "storage")):
            yield path, "an address", (general(path), value)
        elif path[-1] in _CLASSES and is_class_path(value):
            yield path, "a class", (("class",), value)
        elif path[-1] in _FILES and (value.startswith(("/", "~")) or ".." in value):
            yield path, "a file outside the policy's folder", (general(path), value)
