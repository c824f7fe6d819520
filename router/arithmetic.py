"""Calculations that a reply states, worked out again.

`300 feet / 60 feet/minute = 5 minutes` is a claim that can be checked without
knowing the question. So is where its numbers come from: a sound calculation
uses what the question gave or what was worked out before (both cues are among
the strongest that Cobbe et al. 2021 report their verifiers to have found).
Nothing is executed; numbers and the four operations are all there is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

_MOST = 4_000  # characters of a text in which calculations are read, from its end
_LARGEST = 1e15  # beyond this, floats no longer count in ones

_LATEX = (
    (re.compile(r"\\\\|\\[()\[\]]|\\left|\\right|\\[,;!]"), " "),
    (re.compile(r"\\[dt]?frac\{([^{}]{1,60})\}\{([^{}]{1,60})\}"), r"((\1)/(\2))"),
    (re.compile(r"\\(?:times|cdot)\b"), "*"),
    (re.compile(r"\\div\b"), "/"),
    (re.compile(r"\\(?:text|mathrm)\{([^{}]{0,60})\}"), r" \1 "),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\*\*([^*\n]{0,200}?)\*\*"), r"\1"),
)
_CLAUSE = re.compile(r"\n|[.!?:;,](?=\s|$)")
_CLAUSES = 40  # the last ones with an equals sign
_TOKEN = re.compile(
    r"(?P<number>(?:\d{1,3}(?:,\d{3})+|\d{1,18})(?:\.\d{1,18})?|\.\d{1,18})"
    r"|(?P<mark>[-+*/=()%^\u2212\u00d7\u00f7\u00b7]|<<|>>)"
    r"|(?P<word>[^\W\d_]{1,40})"
    r"|(?P<stop>\n|[.!?:;,](?=\s|$)|[^\s$€£])"
)
_SAME = {"\u2212": "-", "\u00d7": "*", "\u00f7": "/", "\u00b7": "*"}
_OPERATIONS = frozenset("+-*/^%")
_TIMES = frozenset(("x", "X", "times", "of"))


@dataclass(frozen=True, slots=True)
class Equation:
    """One stated calculation: its operands, what it says comes out, and whether that is right."""

    operands: tuple[float, ...]
    result: float
    is_right: bool


def equations(text: str) -> tuple[Equation, ...]:
    """Return the calculations of a text that could be read, in order."""
    if "=" not in text and "\u2248" not in text:
        return ()
    found: list[Equation] = []
    for run in _runs(text[-_MOST:]):
        if len(run) > 2:
            found.extend(_of_run(run))
    return tuple(found)


def numbers(text: str) -> tuple[float, ...]:
    """Return the numbers of a text that are written in digits, in order and without their sign."""
    return tuple(map(_value, _NUMBER.findall(text)))


def word_numbers(words: Iterable[str]) -> tuple[float, ...]:
    """Return what number words (`twice`, `dozen`) stand for; the words in lower case."""
    return tuple(_WORDS[word] for word in words if word in _WORDS)


_UP_TO_TWELVE = (
    *("zero", "one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)
_WORDS = {word: float(value) for value, word in enumerate(_UP_TO_TWELVE)} | {
    "half": 0.5, "quarter": 0.25, "third": 3.0, "thirds": 3.0, "fifth": 5.0, "twice": 2.0,
    "double": 2.0, "thrice": 3.0, "triple": 3.0, "dozen": 12.0, "hundred": 100.0,
}  # fmt: skip
_NUMBER = re.compile(r"(?<![\w.])(?:\d{1,3}(?:,\d{3})+|\d{1,18})(?:\.\d{1,18})?(?!\d)")


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    is_attached: bool = False


_NOTHING = _Token("stop", "")


def _runs(text: str) -> Iterator[list[_Token]]:
    """Split a text into runs of tokens that one calculation can lie in."""
    text = text.replace("\u2248", "=")
    if "\\" in text or "**" in text:
        for pattern, new in _LATEX:
            text = pattern.sub(new, text)
    clauses = [clause for clause in _CLAUSE.split(text) if "=" in clause]
    for clause in clauses[-_CLAUSES:]:
        run: list[_Token] = []
        for match in _TOKEN.finditer(clause):
            kind = match.lastgroup or "stop"
            if kind == "stop":
                yield run
                run = []
            else:
                mark, start = match[0], match.start()
                before = clause[start - 1] if start else ""
                run.append(_Token(kind, _SAME.get(mark, mark), before.isdigit() or before == ")"))
        yield run


def _of_run(tokens: Sequence[_Token]) -> Iterator[Equation]:
    """Compare what stands left and right of each equals sign."""
    sides = _sides(tokens)
    for left, right in pairwise(sides):
        one, other = _last_expression(left), _first_expression(right)
        if one is None or other is None or max(one.operations, other.operations) == 0:
            continue
        given = one if one.operations >= other.operations else other
        stated = other if given is one else one
        if abs(given.value) < _LARGEST and abs(stated.value) < _LARGEST:
            yield Equation(given.operands, stated.value, _is_right(given.value, stated))


def _sides(tokens: Sequence[_Token]) -> list[list[_Token]]:
    sides: list[list[_Token]] = [[]]
    for token in tokens:
        if token.text in ("=", "<<", ">>"):
            # What a calculator note opens begins anew; what it closes ends there.
            sides.append([])
            if token.text != "=":
                sides.append([])
        else:
            sides[-1].append(token)
    return sides


@dataclass(frozen=True, slots=True)
class _Expression:
    value: float
    operands: tuple[float, ...]
    operations: int
    decimals: int


def _is_right(value: float, stated: _Expression) -> bool:
    """Allow for rounding to the decimals that were written."""
    slack = 0.5 * 10.0**-stated.decimals if stated.decimals else 0.0
    if stated.decimals == 0 and value != int(value):
        slack = 0.5  # "7 / 2 = 3" is rounding, if a crude one; "7 / 2 = 5" is not
    return abs(value - stated.value) <= slack + 1e-9 * max(1.0, abs(value))


def _last_expression(tokens: Sequence[_Token]) -> _Expression | None:
    """Read the longest expression that ends where the tokens end."""
    kept = _without_units(tokens)
    for start, token in enumerate(kept):
        before = kept[start - 1] if start else _NOTHING
        # What follows an operation is only part of a calculation that could not be read.
        if token.kind in ("word", "stop") or before.kind == "number" or before.text in _OPERATIONS:
            continue
        read = _Reader(kept, start).whole()
        if read is not None:
            return read
    return None


def _first_expression(tokens: Sequence[_Token]) -> _Expression | None:
    """Read the expression that begins where the tokens begin."""
    kept = _without_units(tokens[:20])
    return _Reader(kept, 0).prefix() if kept else None


def _without_units(tokens: Sequence[_Token]) -> list[_Token]:
    """Drop words that name a unit (`feet`, `feet/minute`); keep those that mean an operation."""
    kept: list[_Token] = []
    after_unit = False
    for token in tokens:
        is_word, was_after_unit = token.kind == "word", after_unit
        after_unit = False
        if is_word and len(token.text) == 1 and token.is_attached and token.text != "x":
            return []  # 5S: an unknown, not a unit
        if is_word and kept and _ends_a_value(kept[-1]):
            if token.text in _TIMES:
                kept.append(_Token("mark", "*"))
            else:
                after_unit = True
        elif is_word and kept and kept[-1].text == "/":
            kept.pop()
        elif was_after_unit and token.text == "^":
            after_unit = True  # cm^3
        else:
            if was_after_unit and token.kind == "number":
                kept.append(_NOTHING)  # "of 12 is 12 / 2": another phrase begins
            kept.append(token)
    return kept[-40:]


def _ends_a_value(token: _Token) -> bool:
    return token.kind == "number" or token.text in (")", "%")


class _Reader:
    """Recursive descent over +, -, *, /, ^, percentages and brackets."""

    def __init__(self, tokens: Sequence[_Token], start: int) -> None:
        self._tokens = tokens
        self._at = start
        self._operands: list[float] = []
        self._operations = 0
        self._decimals = 0
        self._depth = 0

    def whole(self) -> _Expression | None:
        """Read all tokens, or nothing."""
        value = self._sum()
        return self._made(value) if self._at == len(self._tokens) else None

    def prefix(self) -> _Expression | None:
        """Read as far as an expression goes."""
        return self._made(self._sum())

    def _made(self, value: float | None) -> _Expression | None:
        if value is None:
            return None
        return _Expression(value, tuple(self._operands), self._operations, self._decimals)

    def _peek(self) -> str:
        return self._tokens[self._at].text if self._at < len(self._tokens) else ""

    def _sum(self) -> float | None:
        value = self._product()
        while value is not None and (mark := self._peek()) in ("+", "-"):
            self._at += 1
            right = self._product()
            if right is None:
                return None
            self._operations += 1
            value = value + right if mark == "+" else value - right
        return value

    def _product(self) -> float | None:
        value = self._power()
        while value is not None and (mark := self._peek()) in ("*", "/", "("):
            self._at += mark != "("
            right = self._power()
            if right is None or (mark == "/" and right == 0):
                return None
            self._operations += 1
            value = value / right if mark == "/" else value * right
        return value

    def _power(self) -> float | None:
        value = self._atom()
        if value is not None and self._peek() == "^":
            self._at += 1
            exponent = self._atom()
            if exponent is None or abs(exponent) > 12 or abs(value) > 1e6 or value <= 0:
                return None
            self._operations += 1
            return float(value**exponent)
        return value

    def _atom(self) -> float | None:
        text = self._peek()
        if text == "-":
            self._at += 1
            value = self._atom()
            return None if value is None else -value
        if text == "(":
            return self._bracket()
        if self._at >= len(self._tokens) or self._tokens[self._at].kind != "number":
            return None
        self._at += 1
        value = _value(text)
        self._decimals = len(text.partition(".")[2])
        self._operands.append(value)
        if self._peek() == "%":
            self._at += 1
            value /= 100.0
        return value

    def _bracket(self) -> float | None:
        self._depth += 1
        if self._depth > 20:
            return None
        self._at += 1
        value = self._sum()
        if value is None or self._peek() != ")":
            return None
        self._at += 1
        self._depth -= 1
        return value


def _value(text: str) -> float:
    return float(text.replace(",", ""))
