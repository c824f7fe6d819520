"""What is read out of a question and a reply, feature by feature."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router import choices, reply_maths
from router.reading import read_question, read_reply
from router.reply_maths import maths_features
from router.reply_text import ANSWER, SHAPE, answer_features, shape_features

APPLES = "Anna has 12 apples and gives half of them to 3 friends. How many does each friend get?"
TANK = """What is the volume of a tank of 2 m by 5 m by 3 m?
A. 10 cubic metres
B. 30 cubic metres
C. 25 cubic metres
D. all of the above"""


def _all(prompt, reply):
    question, read = read_question(prompt), read_reply(reply)
    return {
        **dict(zip(SHAPE, shape_features(question, read), strict=True)),
        **dict(zip(ANSWER, answer_features(question, read), strict=True)),
        **dict(zip(reply_maths.NAMES, maths_features(question, read), strict=True)),
        **dict(zip(choices.NAMES, question.choice.features(read.text, read.answer), strict=True)),
    }


def test_a_sound_calculation_leaves_nothing_loose():
    found = _all(APPLES, "Half of 12 is 12 / 2 = 6. Each gets 6 / 3 = 2.\n#### 2")

    assert found["equations"] == 2
    assert found["equations_wrong"] == 0
    assert found["answer_is_last_result"] == 1
    assert found["operands_unknown"] == 0
    assert found["results_unused"] == 0
    assert found["answer_whole"] == 1


def test_a_slip_a_number_from_nowhere_and_a_loose_end_are_seen():
    found = _all(APPLES, "12 / 2 = 5. Then 17 * 19 = 323.\n#### 2.5")

    assert found["equations_wrong"] == 1
    assert found["operands_unknown"] == 2
    assert found["results_unused"] == 2
    assert found["answer_is_a_result"] == 0
    assert found["answer_whole"] == 0
    assert found["answer_decimals"] == 1


def test_the_option_that_the_calculation_backs_is_told_from_another():
    backed = _all(TANK, "The volume is 2 * 5 * 3 = 30. The answer is (B).")
    other = _all(TANK, "The volume is 2 * 5 * 3 = 30. The answer is (C).")

    assert (backed["option_number_gap"], backed["option_other_backed"]) == (0.0, 0.0)
    assert backed["option_number_backed"] == 2.0
    assert other["option_other_backed"] == 1.0
    assert (backed["option_chosen"], other["option_chosen"]) == (1.0, 2.0)


def test_the_option_whose_words_are_used_is_told_from_another():
    prompt = "Which one?\nA. a small red fox\nB. the great white whale"
    found = _all(prompt, "It is the whale, great and white. The answer is (A).")

    assert found["option_words_margin"] < 0
    assert _all(prompt, "The great white whale. Answer: B")["option_words_margin"] > 0


@pytest.mark.parametrize(("reply", "in_range"), [
    ("The answer is (D).", 1.0), ("The answer is (J).", 0.0), ("I cannot say.", 0.0),
])  # fmt: skip
def test_a_letter_must_be_among_the_options(reply, in_range):
    assert _all(TANK, reply)["option_in_range"] == in_range


def test_a_question_without_options_has_none():
    found = _all(APPLES, "The answer is (B).")

    assert found["options"] == 0
    assert math.isnan(found["option_in_range"])


def test_options_begin_again_where_the_letters_do():
    assert len(choices.choice_of("A. x\nB. y\nC. z\n\nA. one\nB. two").options) == 2
    assert len(choices.choice_of("A. x\nC. z").options) == 0


def test_loops_hedges_and_refusals_are_seen():
    loop = _all(APPLES, "and so on and so forth, again and again, " * 50)
    plain = _all(APPLES, "Each friend gets two apples, since half of twelve is six.")

    assert loop["compressed_share"] < 0.1 < plain["compressed_share"]
    assert loop["tail_repeats"] > plain["tail_repeats"]
    assert _all(APPLES, "Perhaps it might be two.")["hedges"] == 2
    assert _all(APPLES, "I'm sorry, I can't help with that.")["refusal"] == 1


@pytest.mark.parametrize("prompt", ["", APPLES, TANK, "\U0001f600 \u0645\u0631\u062d\u0628\u0627"])
@pytest.mark.parametrize("reply", [
    *("", " ", "\n" * 99, "{", "\x00\ud800", "9" * 5000, "$\\frac{1}{0}$", "#### 1e999"),
])  # fmt: skip
def test_odd_texts_are_read_without_an_error(prompt, reply):
    assert not any(map(math.isinf, _all(prompt, reply).values()))


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_texts_are_read_without_an_error(prompt, reply):
    assert not any(map(math.isinf, _all(prompt, reply).values()))
