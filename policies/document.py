"""A policy's text as plain data, which remembers where each value stood and which were referenced.

`${NAME}` in a value is replaced from the environment; `$${` writes a literal
`${`. What came from the environment, or stands under a secret key, is never
repeated in a message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from policies.problems import KeyPath, PolicyError, Problem, shortened, spell
from policies.tree import MAX_DEPTH, MAX_NODES, Items, Leaf, Mark, Node, Table, read_tree

SECRET_KEYS = frozenset({"api_key", "key", "secret", "url"})

_REFERENCE = re.compile(r"\$(\$)?\{([^{}]*)(\}?)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REPEATABLE = (
    4  # a shorter value may stand in a message by chance; quoted, it is masked at any length
)


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a value stands. `written` is its text before references were replaced, `text` after."""

    mark: Mark
    key_mark: Mark
    written: str | None = None
    text: str | None = None


@dataclass(slots=True)
class Document:
    """Plain data, its places, and what is already known to be wrong with it."""

    name: str
    data: object = None
    spots: dict[KeyPath, Spot] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    settled: set[KeyPath] = field(default_factory=set)

    def report(
        self, path: KeyPath, message: str, hint: str | None = None, *, at_key: bool = False
    ) -> None:
        """Add a problem at the closest place there is, unless that value has one already."""
        if any(path[:depth] in self.settled for depth in range(1, len(path) + 1)):
            return
        spot = self._spot(path)
        mark = (spot.key_mark if at_key else spot.mark) if spot else Mark(0, 0)
        message = _masked(message, spot) if spot else message
        self.problems.append(Problem(self.name, mark.line, mark.column, spell(path), message, hint))

    def settle(
        self, path: KeyPath, message: str, hint: str | None = None, *, at_key: bool = False
    ) -> None:
        """Add a problem after which nothing more is to be said of that value."""
        self.report(path, message, hint, at_key=at_key)
        self.settled.add(path)

    def found(self, path: KeyPath) -> str:
        """Say what stands at a path, or only its type where that could be secret."""
        spot, value = self.spots.get(path), self.at(path)
        if value is None or isinstance(value, bool):
            return {None: "nothing", True: "true", False: "false"}[value]
        if isinstance(value, dict | list):
            return "a mapping" if isinstance(value, dict) else "a list"
        if spot and spot.written:
            return repr(shortened(spot.written))
        if path and path[-1] in SECRET_KEYS:
            return "text" if isinstance(value, str) else "a number"
        return repr(shortened(value) if isinstance(value, str) else value)

    def at(self, path: KeyPath) -> object:
        """Return the value at a path, None where there is none."""
        value = self.data
        for key in path:
            value = child(value, key)
        return value

    def _spot(self, path: KeyPath) -> Spot | None:
        places = (self.spots.get(path[:depth]) for depth in range(len(path), -1, -1))
        return next((spot for spot in places if spot), None)


def child(value: object, key: str | int) -> object:
    """Return what a mapping or a list holds at a key, None where there is nothing."""
    if isinstance(value, dict):
        return value.get(key)
    if isinstance(value, list) and isinstance(key, int) and 0 <= key < len(value):
        return value[key]
    return None


def read_document(text: str, *, name: str, env: Mapping[str, str]) -> Document:
    """Read YAML text and replace its references.

    Raises PolicyError where nothing sensible can be read any further.
    """
    root, problems = read_tree(text, name=name)
    document = Document(name, problems=list(problems))
    document.data = _Expansion(document, env).value(root, (), root.mark)
    return document


class _Expansion:
    """Turns nodes into data. Counts as it goes, since aliases can make little text very large."""

    def __init__(self, document: Document, env: Mapping[str, str]) -> None:
        self._document = document
        self._env = env
        self._count = 0

    def value(self, node: Node, path: KeyPath, key_mark: Mark) -> object:
        """Return the data of a node."""
        self._bound(node, path)
        self._document.spots[path] = Spot(node.mark, key_mark)
        if isinstance(node, Table):
            return {k: self.value(e.node, (*path, k), e.mark) for k, e in node.entries.items()}
        if isinstance(node, Items):
            return [self.value(n, (*path, i), n.mark) for i, n in enumerate(node.nodes)]
        if isinstance(node.value, str) and "${" in node.value:
            return self._reference(node, path, key_mark)
        return node.value

    def _bound(self, node: Node, path: KeyPath) -> None:
        self._count += 1
        if self._count > MAX_NODES or len(path) > MAX_DEPTH:
            self._document.report(
                path[:2],
                f"passes {MAX_NODES} values or {MAX_DEPTH} levels when its aliases are followed",
                "write the values out",
            )
            raise PolicyError(self._document.problems)

    def _reference(self, leaf: Leaf, path: KeyPath, key_mark: Mark) -> str:
        written = str(leaf.value)
        unset: list[str] = []
        text = _REFERENCE.sub(lambda found: self._replaced(found, unset), written)
        self._document.spots[path] = Spot(leaf.mark, key_mark, written, text)
        if unset:
            self._document.settle(path, unset[0], "set it where the gateway is started")
        return text

    def _replaced(self, found: re.Match[str], unset: list[str]) -> str:
        escaped, variable, closed = found.groups()
        if escaped:
            return found[0][1:]
        if not closed or not _VARIABLE.fullmatch(variable):
            unset.append("expected a reference such as ${NAME}")
        elif variable not in self._env:
            unset.append(f"the environment variable {variable} is not set")
        return self._env.get(variable, "")


def _masked(message: str, spot: Spot) -> str:
    if not spot.text or spot.written is None:
        return message
    message = message.replace(repr(spot.text), repr(spot.written))
    return message.replace(spot.text, spot.written) if len(spot.text) >= _REPEATABLE else message
