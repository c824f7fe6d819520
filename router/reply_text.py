"""The shape of a reply and of its answer: what its words give away, whatever they say."""

from __future__ import annotations

import math
import re
import zlib
from fractions import Fraction

from router.answers import Answer
from router.reading import Question, Reading
from router.usability import refuses

SHAPE: tuple[str, ...] = (
    "reply_chars", "reply_words", "reply_lines", "reply_sentences", "reply_steps",
    "reply_to_prompt", "prompt_chars", "digits_share", "symbols_share", "words_per_sentence",
    "hedges", "doubts", "conclusions", "refusal", "compressed_share", "tail_repeats",
    "closing_chars", "final_marks", "final_at", "json_reply", "fences", "latex", "ends_cleanly",
    "new_words_share", "question_marks",
)  # fmt: skip
ANSWER: tuple[str, ...] = (
    "answer_kind", "answer_chars", "answer_size", "answer_whole", "answer_decimals",
    "answer_has_unit", "answer_in_prompt", "answer_in_reasoning", "answer_is_last_number",
)  # fmt: skip

_UNKNOWN = math.nan
_HEDGES = frozenset((
    *("perhaps", "maybe", "possibly", "probably", "likely", "appear", "appears", "seem", "seems"),
    *("approximately", "about", "roughly", "assume", "assuming", "assumption", "might", "could"),
    *("unclear", "unknown", "think", "believe", "closest"),
))  # fmt: skip
_DOUBTS = frozenset((
    *("however", "wait", "but", "mistake", "incorrect", "error", "reevaluate", "reexamine", "let"),
    *("actually", "instead", "contradiction", "contradicts", "not", "cannot", "sorry", "apologize"),
))  # fmt: skip
_CONCLUSIONS = frozenset(("therefore", "thus", "hence", "so", "total", "finally"))
_FINAL = re.compile(r"####|\\boxed|answer\b", re.IGNORECASE)
_STEP = re.compile(r"^(?:#{1,4} |\d{1,2}[.)] |[-*] |step \d)", re.IGNORECASE | re.MULTILINE)
_SENTENCE = re.compile(r"[.!?](?=\s|$)")
_DIGITS = b"0123456789"
_PLAIN = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ \n\t\r" + _DIGITS


def shape_features(question: Question, reply: Reading) -> tuple[float, ...]:
    """Return the features of `SHAPE`."""
    text, words = reply.text, reply.words
    raw = text.encode("utf-8", "replace")
    size = len(raw) or 1
    sentences = len(_SENTENCE.findall(text))
    marks = [match.start() for match in _FINAL.finditer(text)]
    body = text.rstrip()
    return (
        math.log1p(reply.chars), math.log1p(len(words)), math.log1p(text.count("\n")),
        math.log1p(sentences), float(len(_STEP.findall(text))),
        math.log1p(reply.chars) - math.log1p(len(question.text)), math.log1p(len(question.text)),
        1.0 - len(raw.translate(None, _DIGITS)) / size, len(raw.translate(None, _PLAIN)) / size,
        len(words) / max(1, sentences),
        *_counts(words), float(refuses(text)), _compressed(raw[-3000:]), _tail_repeats(body),
        float(len(body) - max(body.rfind("\n"), 0)), float(len(marks)),
        marks[-1] / len(text) if marks else _UNKNOWN, float(body[:1] == "{"),
        float(text.count("```")), text.count("\\") / size,
        float(body[-1:] in tuple(".!?})]`\"'$*") or body[-1:].isdigit()),
        len(set(words) - question.words) / max(1, len(words)), float(text.count("?")),
    )  # fmt: skip


def _counts(words: tuple[str, ...]) -> tuple[float, float, float]:
    hedges = sum(word in _HEDGES for word in words)
    doubts = sum(word in _DOUBTS for word in words)
    return float(hedges), float(doubts), float(sum(word in _CONCLUSIONS for word in words))


def _compressed(raw: bytes) -> float:
    """Return how far the end of a text shrinks: a reply caught in a loop all but vanishes."""
    return len(zlib.compress(raw, 1)) / len(raw) if raw else 1.0


def _tail_repeats(text: str) -> float:
    """Return how often the last forty characters occur."""
    return float(text.count(text[-40:])) if len(text) > 80 else 1.0


def answer_features(question: Question, reply: Reading) -> tuple[float, ...]:
    """Return the features of `ANSWER`: what it is, not whether it is right."""
    answer = reply.answer
    if answer is None:
        return (0.0,) + (_UNKNOWN,) * (len(ANSWER) - 1)
    if isinstance(answer.value, Fraction):
        return _of_number(answer, question, reply)
    shown = answer.exact or answer.value
    return (
        _kind(answer), math.log1p(len(shown)), _UNKNOWN, _UNKNOWN, _UNKNOWN,
        float(bool(answer.detail)), float(len(shown) > 1 and shown in question.text),
        float(bool(shown) and reply.text.count(shown) > 1), _UNKNOWN,
    )  # fmt: skip


def _kind(answer: Answer) -> float:
    """Number a kind of answer: choice 2, literal 3, code-like 4, text 5 (a number is 1)."""
    text = str(answer.value)
    if len(text) == 1 and text.isalpha():
        return 2.0
    if answer.is_literal:
        return 3.0
    return 4.0 if text[:1] in ("[", "{", "(") else 5.0


def _of_number(answer: Answer, question: Question, reply: Reading) -> tuple[float, ...]:
    value = reply.number
    if value is None:
        return (1.0,) + (_UNKNOWN,) * (len(ANSWER) - 1)
    whole = isinstance(answer.value, Fraction) and answer.value.denominator == 1
    size = abs(value)
    return (
        1.0, _UNKNOWN, math.copysign(math.log1p(size), value), float(whole),
        0.0 if whole else float(len(f"{value:g}".partition(".")[2])),
        float(bool(answer.detail)), float(value in question.numbers),
        float(reply.numbers.count(size) > 1), float(reply.numbers[-1:] == (size,)),
    )  # fmt: skip
