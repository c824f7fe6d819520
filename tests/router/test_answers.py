from __future__ import annotations

import json
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.answers import final_answer, same_answer

# A busy machine is no reason to fail.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SAME = [
    # where models are asked to put an answer
    ('{"reasoning": "3 + 4", "answer": "7"}', "The sum is 3 + 4 = 7."),
    ('```json\n{"reasoning": "3\n+ 4", "answer": "7"}\n```', '{"answer": 7}'),
    ('{"reasoning": "he said "no" twice", "answer": "7"}', "#### 7"),
    ('{"reasoning": "cut off here", "answer": 7,', "7"),
    ('{"final_answer": "Paris"}', "Answer: Paris"),
    ("So 3 + 4 = 7\n#### 7", "Thus \\boxed{7}."),
    ("**Answer:** 7", "The answer is 7."),
    ("**Answer**: 7", "the final answer is: 7. Let me know if this helps."),
    ("Answer: 4. Wait, that is wrong.\nAnswer: 5", "5"),
    ("\\boxed{\\frac{3}{4}}", "0.75"),
    ("$\\boxed{\\text{Paris}}$", "answer: paris"),
    ("answer: 5. Note that 6 is too many.", "5"),
    # numbers by value
    ("1,200", "1200.00"),
    ("$1,200", "1200 dollars"),
    ("$18", "18 USD"),
    ("\\$18", "$18.00"),
    ("18 eggs", "18"),
    ("18 eggs", "18 egg"),
    ("1/2", "0.5"),
    ("x = 5", "5"),
    ("350$", "$350"),
    ("$25,000/year", "25000"),
    ('"7"', "7"),
    (json.dumps({"answer": '"$16"'}), "$16"),
    ("-5", "\u22125"),
    ("5%", "5 %"),
    ("50\\%", "50%"),
    ("$7$", "7"),
    # calculations: the last number
    ("First 2 * 3 = 6. Then 6 + 1 = 7, so he has 7 apples.", '{"answer": "7"}'),
    ("$10 * 2 = $20, and $20 - $5 = $15.", "15 dollars"),
    ("2 \\times 4 = 8", "8"),
    # choices
    ("B", "(B)"),
    ("B", "answer: B"),
    ("b", "B."),
    ("B) a whale", "B"),
    ("(B) a whale", "B. A whale."),
    # text
    ("the answer is (F). The answer is (F).", "F"),
    ("It comes to 67.2 liters. The closest answer is 67.2 liters. The answer is (E).", "E"),
    ("Answer: B\n\nNow, the final answer is:", "B"),
    ("$1150/week * 50 weeks/year = $57,500/year, so she earns $57,500.", "57500"),
    ("'Name unknown'", "Name unknown"),
    ("''", '""'),
    ("!?", "'!?'"),
    ("Paris.", "paris"),
    ("**Paris**", "Paris"),
    ("red, green", "Red,  green."),
    ('"abc"', "'abc'"),
    ("[1, 2]", "[1,2]"),
    ('{"a": 1, "b": [2]}', '```json\n{"b": [2], "a": 1}\n```'),
]
DIFFERENT = [
    ("7", "8"),
    ("", ""),
    ("   ", "7"),
    ('{"answer": ""}', '{"answer": ""}'),
    ('{"answer": null}', '{"answer": null}'),
    ("5 cm", "5 m"),
    ("$5", "5 euros"),
    ("5 million", "5"),
    ("$5 million", "$5"),
    (",,,?", "?"),
    ("'Name unknown'", "NAME unknown"),
    ("aCbCed", "acbCEd"),
    ("08999", "8999"),
    ("'a  b'", "a b"),
    ("!?", "?"),
    ("5 and a half", "5"),
    ("2 dozen eggs", "2 eggs"),
    ("5 AM", "5 PM"),
    ("5%", "0.05 m"),
    ("3/0", "3"),
    ("5 or 6", "5"),
    ("A. Smith", "A. Jones"),
    ("answer: A. Smith", "answer: A. Jones"),
    ("A", "B"),
    ("B) a whale", "B) a shark"),
    ("Paris", "London"),
    ("It is safe to eat.", "It is not safe to eat."),
    ("The answer is not 5", "5"),
    ("abc", "abd"),
    ("'abc'", "'ABC'"),
    ("In 1969, 3 men flew.", "There were 3."),
    ("def f(x):\n    y = 1 + 1 = 2\n    return 0", "return 0\ny = 2 * 2 = 4; 0"),
    ('{"name": "Ann", "age": 5}', '{"name": "Ben", "age": 5}'),
    ("[1, 2]", "[2, 1]"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_replies_that_come_to_the_same_agree(one, other):
    assert same_answer(one, other)
    assert same_answer(other, one)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_replies_that_differ_or_say_nothing_do_not_agree(one, other):
    assert not same_answer(one, other)
    assert not same_answer(other, one)


def test_the_last_mark_counts_and_a_box_before_all_others():
    answer = final_answer("Answer: 4\n#### 5\nso \\boxed{6}")

    assert answer is not None
    assert answer.value == 6


def test_a_number_keeps_its_unit():
    answer = final_answer("12 apples")

    assert answer is not None
    assert (answer.value, answer.detail) == (Fraction(12), "apple")


@pytest.mark.parametrize(
    "reply",
    [
        "[" * 100_000,
        '{"answer": ' * 20_000,
        "\\boxed{" * 10_000,
        "answer" * 20_000,
        "answer is " * 20_000,
        '"answer": "' + "\\" * 50_000,
        "1 " * 50_000,
        "1+" * 50_000,
        "1+=1" * 25_000,
        "9" * 100_000,
        "1/" * 50_000,
        "#### " * 20_000,
        "\x00\ud800\uffff",
        '{"answer": NaN}',
        '{"answer": 1e99999}',
    ],
    ids=range(15),
)
def test_hostile_replies_are_read_without_a_fuss(reply):
    assert same_answer(reply, reply) in (True, False)


@unhurried
@given(st.text(), st.text())
def test_agreement_does_not_depend_on_the_order(one, other):
    assert same_answer(one, other) == same_answer(other, one)


@unhurried
@given(st.text(alphabet="ab c.,12%$\n\\boxed{}answer:", min_size=1))
def test_a_reply_that_says_something_agrees_with_itself(reply):
    assert same_answer(reply, reply) == (final_answer(reply) is not None)


@unhurried
@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9)))
def test_a_number_is_the_same_in_json_in_a_box_and_alone(number):
    text = f"{number:f}"

    assert same_answer(json.dumps({"answer": text}), f"so it is $\\boxed{{{text}}}$.")
    assert same_answer(text, f"#### {text}")
