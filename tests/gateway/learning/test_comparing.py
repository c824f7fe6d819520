from __future__ import annotations

import json

import pytest

from gateway.learning.comparing import (
    is_no_worse,
    is_no_worse_call,
    is_no_worse_tested,
    score_of,
    words_of_answer,
)
from router.validators import ToolCall

PROSE = "The capital of the country was moved to the north in the year of the great flood."


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("So it is\n#### 42", "#### 42.0", True),
        ("#### 41", "#### 42", False),
        ("(B)", "(C)", False),
        ("", "#### 42", False),
        (PROSE, PROSE, True),
        ("Another text of the same length or so, that may well say the same.", PROSE, None),
        ("#### 42", "", None),
    ],
)
def test_answers_are_compared_where_that_can_be_told(answer, reference, expected):
    assert is_no_worse(answer, reference) is expected


@pytest.mark.parametrize(
    ("forth", "back", "expected"),
    [
        ("SECOND", "FIRST", 0.0),
        ("FIRST", "SECOND", 1.0),
        ("Second.", "second", 1.0),
        ("TIE", "FIRST", 1.0),
        ("SECOND", None, None),
        ("perhaps", "FIRST", None),
    ],
)
def test_a_judge_must_find_an_answer_worse_in_both_orders(forth, back, expected):
    assert score_of(forth, back) == expected


ADD = ToolCall("add", '{"a": 1, "b": 2}')


@pytest.mark.parametrize(
    ("calls", "reference", "told"),
    [
        ([ADD], [ToolCall("add", '{"b":2,"a":1}')], True),
        ([ADD, ToolCall("stop", "{}")], [ToolCall("stop", " {} "), ADD], True),
        ([ToolCall("add", '{"a": 1, "b": 3}')], [ADD], False),
        ([ToolCall("sub", '{"a": 1, "b": 2}')], [ADD], False),
        ([], [ADD], False),
        ([ADD, ADD], [ADD], False),
        ([ToolCall("add", "{a: 1")], [ADD], False),
        ([ToolCall("ask", json.dumps("some words " * 9))], [ToolCall("ask", '"others"')], None),
        ([ADD], [], None),
    ],
)
def test_tool_calls_are_compared_by_what_they_say(calls, reference, told):
    assert is_no_worse_call(calls, reference) is told


def test_a_judge_reads_calls_after_the_words():
    assert words_of_answer("Wait.", [ADD]) == 'Wait.\n[calls add({"a": 1, "b": 2})]'
    assert words_of_answer("", [ADD]).startswith("[calls add(")
    assert words_of_answer("Just words.", ()) == "Just words."


WRITE = "Write add(a, b).\nassert add(1, 2) == 3\nassert add(2, 2) == 4\n"
RIGHT = "```python\ndef add(a, b):\n    return a + b\n```"
OTHERWISE = "```python\ndef add(a, b):\n    return sum((b, a))\n```"
HALF = "```python\ndef add(a, b):\n    return 3\n```"
NONE = "```python\ndef add(a, b):\n    return 9\n```"
FOREIGN = "```python\ndef add(a, b):\n    import os\n    return a + b\n```"
RESULT = "```python\ndef f(x):\n    return x * 2\nassert f(4) == ??\n```"


@pytest.mark.parametrize(
    ("question", "answer", "reference", "expected"),
    [
        (WRITE, OTHERWISE, RIGHT, True),
        (WRITE, HALF, RIGHT, False),
        (WRITE, RIGHT, HALF, True),
        (WRITE, NONE, NONE, None),
        (WRITE, "I would add them up.", RIGHT, None),
        (WRITE, FOREIGN, RIGHT, None),
        (RESULT, "So it is\n#### 8", "#### 8", True),
        (RESULT, "#### 7", "#### 8", None),
        (RESULT, "#### 8", "#### 7", True),
        ("How are you?", "fine", "well", None),
    ],
)
def test_answers_are_put_to_the_tests_that_a_question_brings(question, answer, reference, expected):
    assert is_no_worse_tested(question, answer, reference) is expected
