"""The shape of a reply, and how it relates to the question: what its words give away."""

from __future__ import annotations

import math
import re
import zlib
from fractions import Fraction

from router.answers import Answer, final_answer
from router.arithmetic import Equation, equations, numbers
from router.usability import refuses

_MOST = 16_000  # characters of a reply that are looked at, from its end
_HEDGE = re.compile(
    r"\b(?:perhaps|maybe|possibly|probably|likely|appears?|seems?|approximately|about|roughly|assum\w+"
    r"|might|could be|not sure|unclear|unknown|i think|i believe|closest|none of)\b",
    re.IGNORECASE,
)
_DOUBT = re.compile(
    r"\b(?:however|wait|but|mistake|incorrect|error|re-?evaluate|re-?examine|let me|actually"
    r"|instead|contradict\w+|not (?:possible|among|one of|given|listed)|cannot|sorry|apologi\w+)\b",
    re.IGNORECASE,
)
_SURE = re.compile(r"\b(?:therefore|thus|hence|so the|in total|finally)\b", re.IGNORECASE)
_SENTENCE = re.compile(r"[.!?](?:\s|$)")
_WORD = re.compile(r"[^\W\d_]+")
_FINAL = re.compile(r"####|\\boxed|\banswer\b", re.IGNORECASE)
_STEP = re.compile(r"^(?:#{1,4} |\d{1,2}[.)] |[-*] |step \d)", re.IGNORECASE | re.MULTILINE)

SHAPE: tuple[str, ...] = (
    "reply_chars", "reply_words", "reply_lines", "reply_sentences", "reply_steps",
    "reply_to_prompt", "prompt_chars", "digits_share", "symbols_share", "words_per_sentence",
    "hedges", "doubts", "conclusions", "refusal", "compressed_share", "tail_repeats",
    "closing_chars", "final_marks", "final_at", "json_reply", "fences", "latex", "ends_cleanly",
    "new_words_share", "question_marks",
)  # fmt: skip
ANSWER: tuple[str, ...] = (
    "answer_kind", "answer_chars", "answer_size", "answer_whole", "answer_decimals",
    "answer_negative", "answer_has_unit", "answer_in_prompt", "answer_in_reasoning",
    "answer_is_last_number",
)  # fmt: skip
MATHS: tuple[str, ...] = (
    "equations", "equations_wrong", "equations_wrong_share", "last_equation_wrong",
    "answer_is_last_result", "answer_is_a_result", "operands_unknown_share", "operands_unknown",
    "prompt_numbers", "prompt_numbers_unused", "prompt_numbers_unused_share", "results_unused",
    "result_not_whole", "result_negative", "largest_result", "numbers_in_reply",
)  # fmt: skip


def shape_features(prompt: str, reply: str) -> tuple[float, ...]:
    """Return the features of `SHAPE`."""
    text = reply[-_MOST:]
    count = len(text) or 1
    words = _WORD.findall(text)
    sentences = len(_SENTENCE.findall(text))
    marks = [match.start() for match in _FINAL.finditer(text)]
    asked = set(_WORD.findall(prompt[-_MOST:].casefold()))
    body = text.rstrip()
    return (
        math.log1p(len(reply)), math.log1p(len(words)), math.log1p(text.count("\n")),
        math.log1p(sentences), float(len(_STEP.findall(text))),
        math.log1p(len(reply)) - math.log1p(len(prompt)), math.log1p(len(prompt)),
        sum(map(str.isdigit, text)) / count,
        sum(not c.isalnum() and not c.isspace() for c in text) / count,
        len(words) / max(1, sentences),
        float(len(_HEDGE.findall(text))), float(len(_DOUBT.findall(text))),
        float(len(_SURE.findall(text))), float(refuses(text)), _compressed(text),
        _tail_repeats(body), float(len(body) - max(body.rfind("\n"), 0)), float(len(marks)),
        marks[-1] / count if marks else math.nan, float(body[:1] == "{"),
        float(text.count("```")), text.count("\\") / count,
        float(body[-1:] in tuple(".!?})]`\"'$*") or body[-1:].isdigit()),
        sum(word.casefold() not in asked for word in words) / max(1, len(words)),
        float(text.count("?")),
    )  # fmt: skip


def _compressed(text: str) -> float:
    """Return how far the end of a text shrinks: a reply caught in a loop all but vanishes."""
    raw = text[-3000:].encode("utf-8", "replace")
    return len(zlib.compress(raw, 1)) / len(raw) if raw else 1.0


def _tail_repeats(text: str) -> float:
    """Return how often the last forty characters occur."""
    return float(text.count(text[-40:])) if len(text) > 80 else 1.0


def answer_features(prompt: str, reply: str) -> tuple[float, ...]:
    """Return the features of `ANSWER`: what it is, not whether it is right."""
    answer = final_answer(reply)
    if answer is None:
        return (0.0,) + (math.nan,) * (len(ANSWER) - 1)
    if isinstance(answer.value, Fraction):
        return _of_number(float(answer.value), answer, prompt, reply)
    text = answer.value
    blank = (math.nan,) * 4
    shown = answer.exact or text
    return (
        _kind(answer), math.log1p(len(text)), *blank, float(bool(answer.detail)),
        float(len(shown) > 1 and shown in prompt), float(_times(shown, reply) > 1), math.nan,
    )  # fmt: skip


def _kind(answer: Answer) -> float:
    """Number a kind of answer: choice 2, literal 3, code-like 4, text 5 (a number is 1)."""
    text = str(answer.value)
    if len(text) == 1 and text.isalpha():
        return 2.0
    if answer.is_literal:
        return 3.0
    return 4.0 if text[:1] in "[{(" else 5.0


def _of_number(value: float, answer: Answer, prompt: str, reply: str) -> tuple[float, ...]:
    said = numbers(reply)
    whole = value == int(value) if abs(value) < 1e15 else True
    return (
        1.0, math.nan, math.copysign(math.log1p(abs(value)), value), float(whole),
        0.0 if whole else float(len(f"{value:g}".partition(".")[2])), float(value < 0),
        float(bool(answer.detail)), float(value in numbers(prompt)),
        float(said.count(abs(value)) > 1), float(bool(said) and said[-1] == abs(value)),
    )  # fmt: skip


def _times(part: str, text: str) -> int:
    return text.count(part) if part else 0


_COMMON = frozenset((0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 7.0, 10.0, 12.0, 24.0, 52.0, 60.0, 100.0, 365.0))


def maths_features(prompt: str, reply: str) -> tuple[float, ...]:
    """Return the features of `MATHS`; NaN where the reply states no calculation."""
    given = numbers(prompt)
    stated = equations(reply)
    said = float(len(numbers(reply)))
    if not stated:
        return (0.0, *(math.nan,) * 7, float(len(given)), *(math.nan,) * 6, said)
    wrong = [not each.is_right for each in stated]
    results = [each.result for each in stated]
    unknown, operands = _unknown(stated, set(given) | _COMMON)
    used = {value for each in stated for value in each.operands}
    unused = [value for value in set(given) if value not in used and value not in results]
    answer = final_answer(reply)
    final = answer.value if answer is not None and isinstance(answer.value, Fraction) else None
    value = math.nan if final is None else float(final)
    return (
        float(len(stated)), float(sum(wrong)), sum(wrong) / len(wrong), float(wrong[-1]),
        _same(value, results[-1:]), _same(value, results),
        unknown / max(1, operands), float(unknown),
        float(len(given)), float(len(unused)), len(unused) / max(1, len(set(given))),
        float(sum(each not in used and each != value for each in results)),
        float(sum(each != int(each) for each in results)), float(sum(r < 0 for r in results)),
        math.log1p(max(map(abs, results))), said,
    )  # fmt: skip


def _unknown(stated: tuple[Equation, ...], known: set[float]) -> tuple[int, int]:
    """Count the operands that neither the question nor an earlier result gave, and all."""
    unknown = operands = 0
    for each in stated:
        unknown += sum(value not in known and value / 100.0 not in known for value in each.operands)
        operands += len(each.operands)
        known.add(each.result)
    return unknown, operands


def _same(value: float, results: list[float]) -> float:
    if math.isnan(value):
        return math.nan
    return float(any(abs(value - each) <= 1e-6 * max(1.0, abs(value)) for each in results))
