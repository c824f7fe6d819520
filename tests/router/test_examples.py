from __future__ import annotations

import math

import pytest

from router.examples import NAMES, examples_of

ASKED = """What does this return?
```python
def f(a, b=2):
    return [x * b for x in a]
assert f([1, 2]) == ??
```"""
TO_WRITE = """Write a function that doubles a number.

assert double(2) == 4
assert double(-1) == -2
>>> double(5)
10
"""


def _features(prompt, reply):
    return dict(zip(NAMES, examples_of(prompt).features(reply), strict=True))


@pytest.mark.parametrize(("reply", "is_same"), [
    ('{"answer": "[2, 4]"}', 1.0), ("answer: [2,4]", 1.0), ("answer: [2, 5]", 0.0),
    ("answer: (2, 4)", 0.0), ("", 0.0), ("I do not know.", 0.0),
])  # fmt: skip
def test_an_answer_is_compared_with_what_the_code_returns(reply, is_same):
    found = _features(ASKED, reply)

    assert (found["output_known"], found["output_same"]) == (1.0, is_same)


@pytest.mark.parametrize("reply", ["'jrowdlp'", '"jrowdlp"', "jrowdlp"])
def test_a_text_is_the_same_with_and_without_quotes(reply):
    prompt = "[PYTHON]\ndef f(a):\n    return a + 'wdlp'\nassert f('jro') == ??\n[/PYTHON]"

    assert _features(prompt, f"answer: {reply}")["output_same"] == 1.0


def test_true_is_not_one():
    prompt = "```python\ndef f():\n    return True\nassert f() == ??\n```"

    assert _features(prompt, "answer: 1")["output_same"] == 0.0


@pytest.mark.parametrize("code", [
    "import os\ndef f(a):\n    return os.listdir(a)", "def f(a):\n    while True: pass", "def f(",
])  # fmt: skip
def test_code_that_is_not_understood_says_nothing(code):
    prompt = f"```python\n{code}\nassert f('.') == ??\n```"

    assert _features(prompt, "answer: 1")["output_known"] == 0.0


@pytest.mark.parametrize(("body", "share"), [
    ("return x * 2", 1.0), ("return x + 2", 1 / 3), ("return 'no'", 0.0),
])  # fmt: skip
def test_code_of_a_reply_is_held_against_the_examples_of_the_request(body, share):
    found = _features(TO_WRITE, f"Here it is:\n```python\ndef double(x):\n    {body}\n```")

    assert (found["examples_run"], found["examples_held_share"]) == (3.0, pytest.approx(share))


@pytest.mark.parametrize(
    "reply", ["No code.", "```python\ndef double(:\n```", "def undouble(x): 1"]
)
def test_a_reply_without_such_code_says_nothing(reply):
    found = _features(TO_WRITE, reply)

    assert found["examples_run"] == 0.0
    assert math.isnan(found["examples_held_share"])
