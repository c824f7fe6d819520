from __future__ import annotations

import pytest

from policies.problems import PolicyError
from policies.tree import MAX_DEPTH, Items, Leaf, Table, plain_value, read_tree


def _data(node):
    if isinstance(node, Table):
        return {key: _data(entry.node) for key, entry in node.entries.items()}
    return [_data(each) for each in node.nodes] if isinstance(node, Items) else node.value


def _read(text):
    root, problems = read_tree(text, name="p.yaml")
    assert problems == ()
    return _data(root)


def _fault(text):
    """Return the first fault, whether or not it stopped the reading."""
    try:
        return str(read_tree(text, name="p.yaml")[1][0])
    except PolicyError as exc:
        return str(exc.problems[0])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("off", False),
        ("Yes", True),
        ("-12", -12),
        ("0.30", 0.3),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("010", "010"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("0x10", "0x10"),
        (".inf", ".inf"),
        ("9" * 40, "9" * 40),
        ("gpt-5-mini", "gpt-5-mini"),
    ],
)
def test_plain_scalar_is_what_it_looks_like(text, value):
    assert plain_value(text) == value
    assert type(plain_value(text)) is type(value)


def test_quoted_scalars_stay_text():
    assert _read("{a: '1', b: \"off\", c: !!str 5}") == {"a": "1", "b": "off", "c": "5"}


def test_nodes_know_their_place():
    root, _ = read_tree("a:\n  - x\n  - yy: 1\n", name="p.yaml")

    items = root.entries["a"].node
    assert isinstance(items.nodes[0], Leaf)
    assert (items.nodes[0].mark.line, items.nodes[0].mark.column) == (2, 5)
    assert (items.nodes[1].entries["yy"].mark.column, items.nodes[1].mark.line) == (5, 3)


def test_anchors_and_merges_are_followed():
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [{z: 1}, *a]}\nd: *a"

    read = _read(text)

    assert read["b"] == {"x": 1, "y": 3}
    assert read["c"] == {"x": 1, "y": 2, "z": 1}
    assert read["d"] == read["a"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: !!python/object/apply:os.system [ls]", "p.yaml:1:4: a: the tag !!python/object"),
        ("a: !secret x", "p.yaml:1:4: a: the tag !secret is not allowed"),
        ("a: !!timestamp 2024-01-01", "p.yaml:1:4: a: the tag !!timestamp is not allowed"),
        ("a: !!set {x}", "p.yaml:1:4: a: the tag !!set is not allowed"),
        ("a: {b: 1, b: 2}", "p.yaml:1:11: a.b: this key stands twice, first on line 1"),
        ("1: x", "p.yaml:1:1: a key is text, found 1 (put it in quotes)"),
        ("on: x", "p.yaml:1:1: a key is text, found true (put it in quotes)"),
        ("? [a]\n: b", "p.yaml:1:3: a key is text, found a list or a mapping"),
        ("<<: 5", "p.yaml:1:1: '<<' takes the alias of a mapping"),
        ("a: 1\n---\nb: 2", "p.yaml:2:1: expected one YAML document, found a second one"),
        ("", "p.yaml:1:1: the file is empty"),
        ("# only a comment", "the file is empty"),
        ("a: *b", "p.yaml:1:4: a: no anchor '&b' stands above this line"),
        ("a: &a [*a]", "no anchor '&a' stands above this line"),
        ("a: [1", "this is not YAML"),
        ("a:\n\t- x", "p.yaml:2:1: this is not YAML"),
        ("a: b: c", "p.yaml:1:5: this is not YAML"),
        ("a: {b: ${C}}", "within { } or [ ] put ${NAME} in quotes"),
        ("a: x\0", "p.yaml:1:5: expected printable characters, found U+0000"),
        ("a: 1\nb: \x1b[2J", "p.yaml:2:4: expected printable characters, found U+001B"),
        ("a: \ud800", "found U+D800"),
        ("[" * 5000, f"nested more than {MAX_DEPTH} levels deep"),
        ("{" * 5000, f"nested more than {MAX_DEPTH} levels deep"),
        ("? " * 5000 + "x", f"nested more than {MAX_DEPTH} levels deep"),
        ("- " * 5000 + "x", f"nested more than {MAX_DEPTH} levels deep"),
    ],
)
def test_what_a_policy_does_not_need_is_refused(text, fault):
    assert fault in _fault(text)


def test_reading_goes_on_past_what_can_be_named():
    _, problems = read_tree("a: {b: 1, b: 2}\n1: x\nc: !x y", name="p.yaml")

    assert [problem.line for problem in problems] == [1, 2, 3]


def test_number_of_values_is_bounded(monkeypatch):
    monkeypatch.setattr("policies.tree.MAX_NODES", 100)

    assert _read("[" + "1," * 99 + "]") == [1] * 99
    assert "expected at most 100 values" in _fault("[" + "1," * 100 + "]")
