from __future__ import annotations

import pytest

from policies.document import read_document
from policies.problems import PolicyError

ENV = {"NAME": "value-of-name", "EMPTY": "", "N": "7"}


def _read(text, env=ENV):
    return read_document(text, name="p.yaml", env=env)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("${NAME}", "value-of-name"),
        ("https://${NAME}/v1/${N}", "https://value-of-name/v1/7"),
        ("'${N}'", "7"),
        ("${N}", "7"),
        ("${EMPTY}", ""),
        ("$${NAME}", "${NAME}"),
        ("$NAME", "$NAME"),
        ("pa$$word", "pa$$word"),
    ],
)
def test_references_are_replaced_in_values(written, read):
    document = _read(f"a: {written}")

    assert document.data == {"a": read}
    assert document.problems == []


def test_references_are_left_alone_in_keys():
    assert _read("'${NAME}': 1").data == {"${NAME}": 1}


def test_a_replaced_value_is_not_read_again():
    env = {"A": "${B}", "B": "x"}

    assert _read("a: ${A}", env).data == {"a": "${B}"}


def test_missing_variable_is_named_with_its_place():
    (problem,) = _read("a:\n  b: x ${MISSING} y").problems

    assert str(problem).startswith("p.yaml:2:6: a.b: the environment variable MISSING is not set")


@pytest.mark.parametrize("written", ["${}", "${1A}", "${A:-x}", "${NAME", "${ NAME }"])
def test_malformed_reference_is_refused(written):
    (problem,) = _read(f"a: '{written}'").problems

    assert problem.message == "expected a reference such as ${NAME}"


def test_messages_never_repeat_what_came_from_the_environment():
    document = _read("a: ${NAME}\nb: x${N}y")

    document.report(("a",), "bad: 'value-of-name', value-of-name")
    document.report(("b",), "found 'x7y'")

    assert [p.message for p in document.problems] == ["bad: '${NAME}', ${NAME}", "found 'x${N}y'"]


def test_found_says_only_the_type_of_what_could_be_secret():
    document = _read("{api_key: sk-1, key: 5, a: ['${NAME}', x, null, true, {}]}")

    assert document.found(("api_key",)) == "text"
    assert document.found(("key",)) == "a number"
    spoken = [document.found(("a", index)) for index in range(5)]
    assert spoken == ["'${NAME}'", "'x'", "nothing", "true", "a mapping"]


def test_a_settled_value_gets_no_second_problem():
    document = _read("a: {b: 1}")

    document.settle(("a",), "first")
    document.report(("a", "b"), "second")

    assert [problem.message for problem in document.problems] == ["first"]


def test_problem_of_a_missing_key_points_at_its_section():
    document = _read("x: 1\na: {b: 1}")

    document.report(("a", "c"), "needed")

    assert str(document.problems[0]) == "p.yaml:2:4: a.c: needed"


def test_alias_bomb_is_refused():
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for n in range(1, 9):
        levels.append(f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]")

    with pytest.raises(PolicyError, match="when its aliases are followed"):
        _read("\n".join(levels))


def test_deep_chain_of_aliases_is_refused():
    levels = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 100)]

    with pytest.raises(PolicyError, match="32 levels"):
        _read("\n".join(levels))
