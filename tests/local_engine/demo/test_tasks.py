from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import date, timedelta
from random import Random

import pytest

from local_engine.demo.arithmetic import add_working, mul_working, sub_working
from local_engine.demo.tasks import (
    CLOSED_FAMILIES,
    FAMILIES,
    Question,
    final_answer,
    held_out,
    is_held_out,
    is_right,
    training_question,
)

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
OPEN_FAMILIES = [family for family in FAMILIES if family.name not in CLOSED_FAMILIES]
FACTORS = {
    "kilometers": 1000,
    "kilograms": 1000,
    "meters": 100,
    "dollars": 100,
    "hours": 60,
    "days": 24,
    "feet": 12,
    "weeks": 7,
}


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]


def _difference(question: Question) -> str:
    a, b = _numbers(question.prompt)
    return str(abs(a - b))


def _conversion(question: Question) -> str:
    (amount,) = _numbers(question.prompt)
    factor = next(
        factor for unit, factor in FACTORS.items() if f"{amount} {unit}" in question.prompt
    )
    return str(amount * factor)


def _weekday(question: Question) -> str:
    start = next(day for day in DAYS if day in question.prompt)
    monday = date(2024, 1, 1)
    found = monday + timedelta(DAYS.index(start) + _numbers(question.prompt)[0])
    return found.strftime("%A")


def _date(question: Question) -> str:
    match = re.search(r"([A-Z][a-z]+) (\d+)[.?]", question.prompt)
    assert match
    wanted = f"{match[1]} {match[2]}"
    starts = (date(2021, 1, 1) + timedelta(passed) for passed in range(365))
    start = next(day for day in starts if f"{day:%B} {day.day}" == wanted)
    rest = question.prompt.replace(wanted, "")
    found = start + timedelta(_numbers(rest)[0])
    return f"{found:%B} {found.day}"


def _extreme(question: Question) -> str:
    asks_most = re.search("largest|maximum", question.prompt)
    numbers = sorted(_numbers(question.prompt))
    return str(numbers[-1] if asks_most else numbers[0])


def _count(question: Question) -> str:
    letters = re.findall(r"\b[a-z]\b", question.prompt.removeprefix("Count"))
    asked, *rest = letters
    return str(Counter(rest)[asked])


def _reverse(question: Question) -> str:
    return " ".join(re.findall(r"\b[a-z]\b", question.prompt)[::-1])


def _compare(question: Question) -> str:
    a, b = _numbers(question.prompt)
    asks_greater = re.search("greater|more", question.prompt)
    return "yes" if (a - b > 0) == bool(asks_greater) else "no"


def _json(question: Question) -> str:
    pairs = re.findall(r"\b(name|age|city|id) (\w+)", question.prompt)
    return json.dumps({key: int(value) if value.isdigit() else value for key, value in pairs})


def _story(question: Question) -> str:
    first, second, third = _numbers(question.prompt)
    if question.prompt[0].isdigit():
        return str(first * second + third)
    return str(first + second * third)


SOLVERS: dict[str, Callable[[Question], str]] = {
    "add": lambda question: str(sum(_numbers(question.prompt))),
    "sub": _difference,
    "mul": lambda question: str(_numbers(question.prompt)[0] * _numbers(question.prompt)[1]),
    "unit": _conversion,
    "day": _weekday,
    "date": _date,
    "remainder": lambda question: str(int.__mod__(*_numbers(question.prompt))),
    "total": lambda question: str(sum(_numbers(question.prompt))),
    "story": _story,
    "sort": lambda question: ", ".join(map(str, sorted(_numbers(question.prompt)))),
    "extreme": _extreme,
    "reverse": _reverse,
    "count": _count,
    "compare": _compare,
    "even": lambda question: ("even", "odd")[_numbers(question.prompt)[0] & 1],
    "json": _json,
    "copy": lambda question: re.split(": ", question.prompt)[1],
}


@pytest.mark.parametrize("family", OPEN_FAMILIES, ids=lambda family: family.name)
def test_answers_agree_with_an_independent_solution(family) -> None:
    rng = Random(7)
    for level in (1, 2, 3, 4) * 50:
        question = family.draw(rng, level)
        assert question.answer == SOLVERS[family.name](question), question.prompt
        assert question.level == level


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_both_reply_styles_are_right(family) -> None:
    question = family.draw(Random(3), 1)
    assert is_right(question, question.answer)
    assert is_right(question, question.worked_reply)
    assert not is_right(question, "no idea")
    assert not is_right(question, "")


def test_every_step_of_worked_arithmetic_is_true() -> None:
    rng = Random(5)
    for family in OPEN_FAMILIES[:9]:
        for level in (1, 2, 3, 4) * 30:
            working = family.draw(rng, level).working
            for sum_, result in re.findall(r"([\d+*%-]+)=(\d+)", working):
                assert _value(sum_) == int(result), working


def _value(expression: str) -> int:
    """Evaluate products and remainders first, then sums from the left."""
    terms = re.findall(r"([+-]?)(\d+)(?:([*%])(\d+))?", expression)
    total = 0
    for sign, first, operator, second in terms:
        value = int(first)
        if operator:
            value = value * int(second) if operator == "*" else value % int(second)
        total += -value if sign == "-" else value
    return total


def test_working_shows_carries_borrows_and_rows() -> None:
    assert add_working(47, 85) == "7+5=12,4+8+1=13"
    assert sub_working(62, 38) == "12-8=4,6-1-3=2"
    assert mul_working(69, 85).startswith("9*5=45,6*5+4=34:345;9*8=72,6*8+7=55:5520;")
    assert mul_working(5, 1000) == ""


def test_no_training_question_is_held_out_in_any_wording() -> None:
    kept_out = {question.canonical_key for question in held_out(800, seed=0)}
    rng = Random(11)
    trained = {training_question(rng, step / 8000).canonical_key for step in range(8000)}
    assert len(trained) > 3000
    assert not trained & kept_out


def test_a_key_is_the_same_for_other_wordings_and_operand_orders() -> None:
    rng = Random(2)
    add, _, mul, *_ = FAMILIES
    for family in (add, mul):
        prompts: dict[str, set[str]] = {}
        for _ in range(6000):
            question = family.draw(rng, 1)
            prompts.setdefault(question.canonical_key, set()).add(question.prompt)
        assert max(map(len, prompts.values())) == 6
        for key, wordings in prompts.items():
            operands = sorted(map(int, key.split(":")[1:]))
            assert all(sorted(_numbers(prompt)) == operands for prompt in wordings)


def test_held_out_questions_are_distinct_repeatable_and_not_of_closed_families() -> None:
    first, again, other = held_out(400, seed=3), held_out(400, seed=3), held_out(400, seed=4)
    assert first == again
    assert first != other
    assert len({question.canonical_key for question in first}) == 400
    assert all(is_held_out(question) for question in first)
    assert not CLOSED_FAMILIES & {question.family for question in first}
    assert {question.family for question in first} == {family.name for family in OPEN_FAMILIES}


def test_a_shorter_held_out_list_is_the_start_of_a_longer_one() -> None:
    assert held_out(50, seed=1) == held_out(200, seed=1)[:50]


def test_an_impossible_count_is_refused() -> None:
    assert held_out(0) == []
    with pytest.raises(ValueError, match="at least 0, found -1"):
        held_out(-1)


def test_a_reply_answers_what_follows_its_last_answer_mark() -> None:
    assert final_answer("7+5=12 answer: 12") == "12"
    assert final_answer("answer: 3, no, answer: 4 ") == "4"
    assert final_answer(" 42\n") == "42"


def test_checking_forgives_spacing_case_and_a_final_dot_but_not_a_wrong_answer() -> None:
    question = Question("day", 1, "?", "Monday", "day:0")
    assert is_right(question, " monday.")
    assert not is_right(question, "Monday or Tuesday")
    fields = Question("json", 1, "?", '{"age": 7}', "json")
    assert is_right(fields, '{ "age":7 }')
    assert not is_right(fields, '{"age": "7"}')
    assert not is_right(fields, "[" * 100_000)


def test_tasks_need_no_heavy_dependency() -> None:
    code = (
        "import sys, local_engine.demo.tasks as t; t.held_out(5);"
        "print(sorted({'torch', 'tokenizers', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
