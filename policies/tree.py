"""YAML text as a tree of nodes that know their place.

Reads the subset that a policy needs, and says no to the rest: one document,
keys that are text, no tag beyond the core ones, no key twice. Plain scalars
follow YAML 1.2's core schema, with `yes`, `no`, `on` and `off` still booleans as
most editors show them; dates, octals and base 60 stay text. Anchors and `<<`
work, within bounds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from policies.problems import KeyPath, PolicyError, Problem, spell

MAX_DEPTH = 32
MAX_NODES = 50_000

_CORE = "tag:yaml.org,2002:"
_PLAIN_TAGS = frozenset(_CORE + name for name in ("bool", "float", "int", "null"))
_SCALAR_TAGS = _PLAIN_TAGS | {"!", _CORE + "str"}
_NO_CHARACTER = re.compile("[\x00\ud800-\udfff]")
_NULL = re.compile(r"|~|null|Null|NULL")
_TRUE = re.compile(r"true|True|TRUE|yes|Yes|YES|on|On|ON")
_FALSE = re.compile(r"false|False|FALSE|no|No|NO|off|Off|OFF")
_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")

Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the file, both numbers counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Leaf:
    """A scalar."""

    mark: Mark
    value: Value


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    mark: Mark
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a table, and what it holds."""

    mark: Mark
    node: Node


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping."""

    mark: Mark
    entries: dict[str, Entry]


Node = Leaf | Items | Table


def read_tree(text: str, *, name: str) -> tuple[Node, tuple[Problem, ...]]:
    """Read one YAML document; return its root, and what to mend that did not stop the reading.

    Raises PolicyError where nothing sensible can be read any further.
    """
    reader = _Reader(name, yaml.parse(text, Loader=yaml.SafeLoader))
    try:
        root = reader.document()
    except yaml.MarkedYAMLError as exc:
        raise PolicyError([_syntax_problem(exc, text, name)]) from exc
    except yaml.reader.ReaderError as exc:
        raise PolicyError([_character_problem(exc, text, name)]) from exc
    return root, tuple(reader.problems)


class _Reader:
    """Builds nodes from the parser's events, since composing would recurse without a bound."""

    def __init__(self, name: str, events: Iterator[Any]) -> None:
        self._name = name
        self._events = events
        self._anchors: dict[str, Node] = {}
        self._count = 0
        self.problems: list[Problem] = []

    def document(self) -> Node:
        """Read the only document of the stream."""
        next(self._events)  # the start of the stream
        if isinstance(event := next(self._events), yaml.StreamEndEvent):
            raise self._stop(event, (), "the file is empty: expected a policy (version: 1, ...)")
        root = self._node(next(self._events), ())
        next(self._events)  # the end of the document
        if not isinstance(event := next(self._events), yaml.StreamEndEvent):
            raise self._stop(event, (), "expected one YAML document, found a second one")
        return root

    def _node(self, event: Any, path: KeyPath) -> Node:
        self._bound(event, path)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise self._stop(event, path, f"no anchor '&{event.anchor}' stands above this line")
            return self._anchors[event.anchor]
        node = self._content(event, path)
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _bound(self, event: Any, path: KeyPath) -> None:
        self._count += 1
        if self._count > MAX_NODES:
            raise self._stop(event, (), f"expected at most {MAX_NODES} values in a policy")
        if len(path) > MAX_DEPTH:
            raise self._stop(event, path[:3], f"nested more than {MAX_DEPTH} levels deep")

    def _content(self, event: Any, path: KeyPath) -> Node:
        if isinstance(event, yaml.ScalarEvent):
            return self._leaf(event, path)
        if isinstance(event, yaml.SequenceStartEvent):
            self._check_tag(event, path, frozenset({"!", _CORE + "seq"}))
            return self._items(event, path)
        self._check_tag(event, path, frozenset({"!", _CORE + "map"}))
        return self._table(event, path)

    def _leaf(self, event: Any, path: KeyPath) -> Leaf:
        self._check_tag(event, path, _SCALAR_TAGS)
        is_plain = event.tag in _PLAIN_TAGS or (event.tag is None and event.implicit[0])
        if is_plain:
            return Leaf(_mark(event), plain_value(event.value))
        text = _NO_CHARACTER.sub("", event.value)
        if text != event.value:
            self._note(
                event, path, "expected characters, found the escape of none (NUL, surrogate)"
            )
        return Leaf(_mark(event), text)

    def _items(self, start: Any, path: KeyPath) -> Items:
        nodes: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            nodes.append(self._node(event, (*path, len(nodes))))
        return Items(_mark(start), tuple(nodes))

    def _table(self, start: Any, path: KeyPath) -> Table:
        entries: dict[str, Entry] = {}
        merged: list[Table] = []
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, path)
            below = path if key is None else (*path, key)
            node = self._node(next(self._events), (*path, key or "?"))
            if key == "<<":
                merged += self._merge(event, node, path)
            elif key in entries:
                first = entries[key].mark.line
                self._note(event, below, f"this key stands twice, first on line {first}")
            elif key is not None:
                entries[key] = Entry(_mark(event), node)
        for table in merged:
            entries = {**table.entries, **entries}
        return Table(_mark(start), entries)

    def _key(self, event: Any, path: KeyPath) -> str | None:
        node = self._node(event, (*path, "?"))  # a key may nest, too
        if isinstance(node, Leaf) and isinstance(node.value, str):
            return node.value
        if isinstance(node, Leaf):
            self._note(event, path, f"a key is text, found {_said(node.value)}", "put it in quotes")
        else:
            self._note(event, path, "a key is text, found a list or a mapping")
        return None

    def _merge(self, event: Any, node: Node, path: KeyPath) -> list[Table]:
        nodes = node.nodes if isinstance(node, Items) else (node,)
        tables = [each for each in nodes if isinstance(each, Table)]
        if len(tables) < len(nodes):
            self._note(event, path, "'<<' takes the alias of a mapping, or a list of such aliases")
        return tables

    def _check_tag(self, event: Any, path: KeyPath, allowed: frozenset[str]) -> None:
        if event.tag is not None and event.tag not in allowed:
            tag = event.tag.replace(_CORE, "!!")
            self._note(event, path, f"the tag {tag} is not allowed in a policy", "remove the tag")

    def _note(self, event: Any, path: KeyPath, message: str, hint: str | None = None) -> None:
        mark = _mark(event)
        problem = Problem(self._name, mark.line, mark.column, spell(path), message, hint)
        self.problems.append(problem)

    def _stop(self, event: Any, path: KeyPath, message: str) -> PolicyError:
        self._note(event, path, message)
        return PolicyError(self.problems)


def plain_value(text: str) -> Value:
    """Read an unquoted scalar."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return _TRUE.fullmatch(text) is not None
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _said(value: Value) -> str:
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    return repr(value)


def _mark(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)


def _syntax_problem(exc: yaml.MarkedYAMLError, text: str, name: str) -> Problem:
    mark = exc.problem_mark or exc.context_mark
    line, column, index = (mark.line + 1, mark.column + 1, mark.index) if mark else (0, 0, 0)
    words = [part for part in (exc.context, exc.problem) if part]
    is_reference = text[max(index - 1, 0) : index + 1] == "${"
    hint = "within { } or [ ] put ${NAME} in quotes" if is_reference else None
    return Problem(name, line, column, "", "this is not YAML: " + ", ".join(words), hint)


def _character_problem(exc: yaml.reader.ReaderError, text: str, name: str) -> Problem:
    before = text[: exc.position]
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    found = f"U+{ord(text[exc.position]):04X}" if exc.position < len(text) else "a broken one"
    return Problem(name, line, column, "", f"expected printable characters, found {found}")
