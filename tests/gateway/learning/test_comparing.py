from __future__ import annotations

import pytest

from gateway.learning.comparing import is_no_worse, score_of

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
