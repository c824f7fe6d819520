"""What becomes of the calculations in a reply: wrong ones, loose ends, numbers from nowhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

from router.arithmetic import Equation, equations
from router.reading import Question, Reading

NAMES: tuple[str, ...] = (
    "equations", "equations_wrong", "equations_wrong_share", "last_equation_wrong",
    "answer_is_last_result", "answer_is_a_result", "operands_unknown_share", "operands_unknown",
    "prompt_numbers", "prompt_numbers_unused", "prompt_numbers_unused_share", "results_unused",
    "results_not_whole", "results_negative", "largest_result", "numbers_in_reply",
)  # fmt: skip
_UNKNOWN = math.nan
# Numbers that need no source: hours of a day, per cent, halves and the like.
_COMMON = frozenset((0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 7.0, 10.0, 12.0, 24.0, 52.0, 60.0, 100.0, 365.0))


def maths_features(question: Question, reply: Reading) -> tuple[float, ...]:
    """Return the features of `NAMES`; NaN where the reply states no calculation."""
    given, said = float(len(question.numbers)), float(len(reply.numbers))
    stated = equations(reply.text)
    if not stated:
        return (0.0, *(_UNKNOWN,) * 7, given, *(_UNKNOWN,) * 6, said)
    wrong = [not each.is_right for each in stated]
    results = [each.result for each in stated]
    return (
        float(len(stated)), float(sum(wrong)), sum(wrong) / len(wrong), float(wrong[-1]),
        _same(reply.number, results[-1:]), _same(reply.number, results),
        *_sources(stated, question), given, *_loose_ends(stated, question, reply),
        float(sum(each != int(each) for each in results)), float(sum(r < 0 for r in results)),
        math.log1p(max(map(abs, results))), said,
    )  # fmt: skip


def _sources(stated: Sequence[Equation], question: Question) -> tuple[float, float]:
    """Return the share and the number of operands that neither question nor a result gave."""
    known = set(question.numbers) | _COMMON
    unknown = operands = 0
    for each in stated:
        unknown += sum(value not in known and value / 100.0 not in known for value in each.operands)
        operands += len(each.operands)
        known.add(each.result)
    return unknown / max(1, operands), float(unknown)


def _loose_ends(
    stated: Sequence[Equation], question: Question, reply: Reading
) -> tuple[float, float, float]:
    """Return how many given numbers, and what share, and how many results go unused."""
    used = {value for each in stated for value in each.operands}
    results = {each.result for each in stated}
    given = set(question.numbers)
    unused = given - used - results
    dangling = sum(each.result not in used and each.result != reply.number for each in stated)
    return float(len(unused)), len(unused) / max(1, len(given)), float(dangling)


def _same(value: float | None, results: Sequence[float]) -> float:
    if value is None:
        return _UNKNOWN
    return float(any(abs(value - each) <= 1e-6 * max(1.0, abs(value)) for each in results))
