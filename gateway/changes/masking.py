"""A policy's text without its secrets, and the same text with them again.

Each secret that is written out stands as `"***1***"`, by its order in the file; a reference to the
environment says nothing and stays. A mask is taken back only where it stood, so that no
secret can be moved to where it would be shown, or sent to somebody else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

from policies.document import SECRET_KEYS, Document, read_document
from policies.problems import KeyPath, PolicyError, Problem, spell
from policies.tree import Mark

_MASK = re.compile(r'"\*\*\*(\d{1,4})\*\*\*"')
_REFERENCES = re.compile(r"(\$\{[A-Za-z_][A-Za-z0-9_]*\})+")
_STORAGE_SECRETS = frozenset({"ledger", "redis", "limits", "semantic_index"})


@dataclass(frozen=True, slots=True)
class Hidden:
    """One secret: where it stands in the document, in the text, and as it is written there."""

    path: KeyPath
    start: int
    end: int
    written: str


def masked_text(text: str, name: str, env: Mapping[str, str]) -> str:
    """Return a policy's text with a mask for each secret. Raises PolicyError."""
    pieces, done = [], 0
    for number, hidden in enumerate(_hidden(text, read_document(text, name=name, env=env)), 1):
        pieces += [text[done : hidden.start], f'"***{number}***"']
        done = hidden.end
    return "".join([*pieces, text[done:]])


def unmasked_text(text: str, current: str, name: str, env: Mapping[str, str]) -> str:
    """Return an edited text with the secrets of the current one in place of its masks.

    Raises PolicyError for a mask that is none of the current text's, or was moved.
    """
    known = dict(enumerate(_hidden(current, read_document(current, name=name, env=env)), 1))
    problems = list(_moved(text, known, name))
    if problems:
        raise PolicyError(problems)
    return _MASK.sub(lambda found: known[int(found[1])].written, text)


def general(path: KeyPath) -> KeyPath:
    """Return a path without positions in lists: what stands there may be moved within its list."""
    return tuple("*" if isinstance(step, int) else step for step in path)


def is_secret(path: KeyPath) -> bool:
    """Return whether what stands at a path is never shown."""
    if not path or "when" in path:
        return False
    return path[-1] in SECRET_KEYS or (path[0] == "storage" and path[-1] in _STORAGE_SECRETS)


def _hidden(text: str, document: Document) -> list[Hidden]:
    """Return the secrets that are written out, in the order of the text."""
    places = {mark: (start, end) for mark, start, end in _scalars(text)}
    found: dict[int, Hidden] = {}
    for path, spot in document.spots.items():
        value = document.at(path)
        place = places.get(spot.mark)
        if place is None or not is_secret(path) or not isinstance(value, str | int | float):
            continue
        if spot.written is not None and _REFERENCES.fullmatch(spot.written):
            continue
        if path[0] == "storage" and isinstance(value, str) and "@" not in value:
            continue
        found[place[0]] = Hidden(path, *place, text[place[0] : place[1]])
    return [found[start] for start in sorted(found)]


def _scalars(text: str) -> Iterator[tuple[Mark, int, int]]:
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.ScalarEvent):
            start, end = event.start_mark, event.end_mark
            assert start is not None, "the parser marks what it reads"
            assert end is not None, "the parser marks what it reads"
            yield Mark(start.line + 1, start.column + 1), start.index, end.index


def _moved(text: str, known: Mapping[int, Hidden], name: str) -> Iterator[Problem]:
    document = read_document(text, name=name, env=_Anything())
    for path, spot in document.spots.items():
        value = document.at(path)
        found = _MASK.fullmatch(f'"{value}"') if isinstance(value, str) else None
        if found is None:
            continue
        hidden = known.get(int(found[1]))
        if hidden is None or general(hidden.path) != general(path):
            message = "expected a mask where the file has that secret, found it elsewhere"
            hint = "write the secret out, or as ${NAME}"
            yield Problem(name, spot.mark.line, spot.mark.column, spell(path), message, hint)
    masks = {int(found[1]) for found in _MASK.finditer(text)}
    for number in sorted(masks - known.keys()):
        yield Problem(name, 0, 0, "", f"there is no secret number {number} in the file")


class _Anything(dict[str, str]):
    """An environment in which every name is set: what it holds does not matter here."""

    def __contains__(self, _: object) -> bool:
        return True

    def get(self, _: object, default: object = None) -> str:
        """Return some text."""
        return "x"
