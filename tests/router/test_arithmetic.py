from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.arithmetic import equations, numbers, word_numbers


@pytest.mark.parametrize("text", [
    "300 feet / 60 feet/minute = 5 minutes.",
    "which gives us (8 + 2) / 2 = 5 pounds",
    "she needs 4 * 2 = <<4*2=8>>8 pounds",
    "1,200 - 200 = $1,000",
    "20% of 50 = 10",
    "\\frac{6}{3} \\times 5 = 10",
    "10 ÷ 4 = 2.5, so",
    "$200 \\cdot 50 \\cdot 20 = 200000 cm^{3}$",
    "2 x 3 = 6",
    "2/3 = 0.67",
    "100 / 7 ≈ 14.3",
    "5 - 8 = -3",
    "3^2 + 4^2 = 25",
    "2 * 4 = 8 and 8 + 1 = 9",
    "6 = 2 * 3",
    "7 / 2 = 3 full boxes",
    "Half of 12 is 12 / 2 = 6.",
    "the sum (1 + 1 = 2) is",
])  # fmt: skip
def test_a_right_calculation_is_read_as_right(text):
    found = equations(text)

    assert found
    assert all(each.is_right for each in found)


@pytest.mark.parametrize("text", [
    "3150 + 1300 + 48 + 2 = <<3150+1300+48+2=4490>>4490 pounds",
    "5 * 3 = 16", "(8 + 2) / 2 = 6", "20% of 50 = 100", "2/3 = 0.76", "10 - 2 = 7 apples",
])  # fmt: skip
def test_a_wrong_calculation_is_read_as_wrong(text):
    found = equations(text)

    assert found
    assert not any(each.is_right for each in found)


@pytest.mark.parametrize("text", [
    "", "x = 5", "the answer = 7", "5S - 4 = 116", "L + 4L + 2L = 36", "a = b", "2a + b = 3",
    "S + 5 = 9", "5 / 0 = 0", "==", "= 5", "5 =", "1 + = 2", "9^99 = 1",
])  # fmt: skip
def test_what_is_no_calculation_with_numbers_is_left_alone(text):
    assert equations(text) == ()


def test_operands_and_result_are_told():
    (found,) = equations("So 3 * 4 + 1 = 13.")

    assert (found.operands, found.result) == ((3.0, 4.0, 1.0), 13.0)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(-3, 3))
def test_a_sum_is_right_only_if_it_is(a, b, off):
    (found,) = equations(f"That makes {a} apples + {b} apples = {a + b + off} apples")

    assert found.is_right == (off == 0)


@given(st.text(alphabet="0123456789+-*/=()^%., x\\{}$<>ab\n", max_size=200))
def test_any_text_is_read_without_an_error(text):
    equations(text)
    numbers(text)


def test_numbers_are_read_in_order():
    assert numbers("1,200 of 3.5 and v2, 007 or 12") == (1200.0, 3.5, 7.0, 12.0)


def test_number_words_are_read():
    assert word_numbers(["twice", "the", "dozen"]) == (2.0, 12.0)
