"""What a reply says in the end, and whether two replies say the same.

Two models rarely agree word for word; where they reason first, only the last
word counts. The answer is looked for where models are asked to put it: the
`answer` member of a JSON object, `\\boxed{}`, a `####` line, `answer: …`. A
reply without such a mark is a choice letter, a calculation (its last number
counts), a JSON value, or plain text that must be the same as a whole.

In doubt two replies differ: a needless escalation costs cents, a false
agreement an answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

_MOST = 100_000  # characters read of a reply, from its end
_KEYS = ("answer", "final_answer")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reply comes to: a number, or normalised text.

    `detail` is the unit of a number, or the wording of a choice. `exact` is the
    text as it was written; where one side wrote a literal in quotes, only that
    counts.
    """

    value: Fraction | str
    detail: str = ""
    exact: str = ""
    is_literal: bool = False

    def agrees(self, other: Answer) -> bool:
        """Return whether both come to the same; a missing detail is no contradiction."""
        if self.value != other.value:
            return False
        if self.is_literal or other.is_literal:
            return self.exact == other.exact
        return not self.detail or not other.detail or self.detail == other.detail


def same_answer(one: str, other: str) -> bool:
    """Return whether two replies come to the same answer.

    Numbers are compared by value (`1,200.0`, `$1200` and `2400/2` are one),
    choices by letter, JSON by value, everything else by its normalised text.
    """
    first = final_answer(one)
    second = final_answer(other) if first else None
    return first is not None and second is not None and first.agrees(second)


def final_answer(reply: str) -> Answer | None:
    """Return what a reply says in the end; None when it says nothing."""
    reply = reply.strip()[-_MOST:]
    marked = _from_json(reply)
    if marked is None:
        marked = _from_marks(reply)
    if marked is not None:
        return _read_line(marked)
    return _calculated(reply) or _read(reply)


def _from_json(reply: str) -> str | None:
    """Find the answer member, also in a fence and in JSON that is not quite well-formed."""
    start, end = reply.find("{"), reply.rfind("}")
    if start < 0 or not any(f'"{key}"' in reply for key in _KEYS):
        return None
    try:
        # Models write line breaks into strings, which only the lax reading takes.
        found = json.loads(reply[start : end + 1], strict=False)
    except (ValueError, RecursionError):
        return _from_broken_json(reply)
    if not isinstance(found, dict):
        return None
    return next((_as_text(found[key]) for key in _KEYS if key in found), None)


_MEMBER = re.compile(
    r'"(?:final_)?answer"\s{0,9}:\s{0,9}(?:"((?:[^"\\]|\\.){0,2000})"|([^\s",}][^",}\n]{0,200}))'
)


def _from_broken_json(reply: str) -> str | None:
    found = _MEMBER.findall(reply)
    return "".join(found[-1]).replace('\\"', '"').strip() if found else None


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


_HASHES = re.compile(r"^[ \t]{0,9}#{4}[ \t]{1,9}(\S[^\n]{0,500})$", re.MULTILINE)
_ANSWER = re.compile(
    r"\banswer[*_`]{0,3}(?:[ \t]{1,3}is\b)?[ \t]{0,3}(?::|=|(?<=is))[*_`]{0,3}\s{0,3}"
    r"(?!not\b)(?=[^\s:=])",
    re.IGNORECASE,
)


def _from_marks(reply: str) -> str | None:
    boxed = _boxed(reply)
    if boxed is not None:
        return boxed
    if hashes := _HASHES.findall(reply):
        return str(hashes[-1])
    *_, last = (None, *_ANSWER.finditer(reply))
    return None if last is None else reply[last.end() : last.end() + 500].partition("\n")[0]


def _boxed(reply: str) -> str | None:
    start = reply.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 1, start + len("\\boxed{")
    for at in range(begin, min(len(reply), begin + 500)):
        depth += {"{": 1, "}": -1}.get(reply[at], 0)
        if depth == 0:
            return reply[begin:at]
    return None


_CODE = re.compile(
    r"```|^\s{0,40}(?:def|return|import|print|let|const|var|#include)\b", re.MULTILINE
)
_DECIMAL = r"[-+\u2212]?(?:[1-9]\d{0,2}(?:,\d{3})+|0|[1-9]\d*)(?:\.\d+)?"
_RESULT = re.compile(r"=\s?[$(]{0,2}-?\d")
_OPERATION = re.compile(r"\d.{0,40}?(?:[-+*/\u00d7\u00f7\u00b7]|\\times|\\div|\\cdot| x )")
_ANY_NUMBER = re.compile(rf"(?<![\w.,])(?:{_DECIMAL})(?!\w)")


def _calculated(reply: str) -> Answer | None:
    """Take the last number of a reply that calculates; neither prose nor code does."""
    end = reply[-5000:]
    if not any(map(_OPERATION.search, _left_sides(end))) or _CODE.search(reply):
        return None
    numbers = _ANY_NUMBER.findall(end[-300:])
    value = _value(numbers[-1]) if numbers else None
    return None if value is None else Answer(value)


def _left_sides(text: str) -> Iterator[str]:
    """Yield what stands before each `= number`, on its line."""
    for result in _RESULT.finditer(text):
        yield text[max(0, result.start() - 100) : result.start()].rpartition("\n")[2]


def _read_line(text: str) -> Answer | None:
    """Read an answer that words of explanation may follow."""
    whole = _read(text)
    if whole is None or isinstance(whole.value, Fraction):
        return whole
    first = re.split(r"\.(?=\s)", text.strip(), maxsplit=1)[0]
    number = _number(_bare(first))
    return number or whole


def _read(text: str) -> Answer | None:
    """Read an answer by itself: a choice, a number with its unit, JSON, or text."""
    bare = _bare(text)
    inner = _unquoted(bare)
    if inner is not None:
        return _number(inner) or Answer(_folded(inner), exact=inner, is_literal=True)
    return _choice(bare) or _number(bare) or _literal(bare) or _text(bare)


def _unquoted(text: str) -> str | None:
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if is_quoted and text[0] not in text[1:-1] else None


_LONE = re.compile(r"[(\[]?([A-Ja-j])[)\]]?")
_CHOICE = re.compile(r"(?:\(([A-J])\)[).:]?|([A-J])[).:])\s{1,3}(\S.{0,300})")


def _choice(text: str) -> Answer | None:
    if lone := _LONE.fullmatch(text):
        return Answer(lone[1].casefold())
    if found := _CHOICE.fullmatch(text):
        return Answer((found[1] or found[2]).casefold(), _folded(found[3]))
    return None


_FRACTION = re.compile(r"\\[dt]?frac\{(\d{1,18})\}\{(\d{1,18})\}")
_NUMBER = re.compile(
    rf"(?:[a-z]\w{{0,20}}\s?=\s?)?([$€£¥]?)\s?({_DECIMAL})(?:\s?/\s?(\d{{1,18}}))?"
    r"\s?([%$€£¥\"]|/?\s?[^\W\d_][^\d=]{0,40})?",
    re.IGNORECASE,
)
_MONEY = {"$": "dollar", "usd": "dollar", "€": "euro", "eur": "euro", "£": "pound", "¥": "yen"}
# Words after a number that make another statement, or another number, of it.
_CONNECTIVES = frozenset(("and", "or", "not", "but", "if", "to", "times", "plus", "minus", "over"))
_SCALES = frozenset(
    ("dozen", "hundred", "thousand", "million", "billion", "trillion", "k", "m", "b", "bn", "mn")
)
_FACTORS = frozenset(("point", "half", "quarter", "squared", "cubed", "x", "e", "pi", "i"))
_CHANGING = _CONNECTIVES | _SCALES | _FACTORS


def _number(text: str) -> Answer | None:
    if len(text) > 120:
        return None
    found = _NUMBER.fullmatch(_FRACTION.sub(r"\1/\2", text))
    if found is None:
        return None
    value, unit = _value(found[2], found[3]), _unit(found[4] or "")
    if value is None or unit in _CHANGING:
        return None
    return Answer(value, _unit(found[1]) or unit)


def _value(number: str, below: str | None = None) -> Fraction | None:
    if len(number) > 60 or (below is not None and not int(below)):
        return None
    return Fraction(number.replace(",", "").replace("\u2212", "-")) / int(below or 1)


def _unit(text: str) -> str:
    words = text.casefold().split()
    if not words:
        return ""
    word = words[0].strip(".,;()/")
    return _MONEY.get(word, word if word in _CHANGING else word.removesuffix("s"))


def _literal(text: str) -> Answer | None:
    """Read JSON by value, whatever its spacing and the order of its members."""
    if text[:1] not in ("{", "["):
        return None
    try:
        return Answer(json.dumps(json.loads(text), sort_keys=True))
    except (ValueError, RecursionError):
        return None


_QUOTED = re.compile(r"""["'\[\]{}]""")


def _text(text: str) -> Answer | None:
    """Fold case and spacing, but not in what looks like code, where both mean something."""
    folded = re.sub(r"([,:])\s+", r"\1", text) if _QUOTED.search(text) else _folded(text)
    return Answer(folded, exact=text) if folded.strip() else None


def _folded(text: str) -> str:
    if not re.search(r"[a-z][A-Z]", text):  # capitals within a word mean something
        text = text.casefold()
    return re.sub(r"(?<=\w)[,;:]?\s+", " ", text).strip().rstrip(".")


def _bare(text: str) -> str:
    """Take away what only decorates: fences, mark-up, mathematics signs, a closing full stop."""
    text = re.sub(r"^\s*```[a-z]{0,12}\n(.*)\n```\s*$", r"\1", text, flags=re.DOTALL)
    text = re.sub(r"\\(?:text|mathrm|mathbf)\{([^{}]{0,200})\}", r"\1", text)
    text = re.sub(r"\\[()\[\]]|\*\*|`", " ", text).replace("\\$", "$").replace("\\%", "%")
    text = text.replace("\\,", "").replace("\\!", "").strip()
    text = re.sub(r"(?<=[\w)\]%$'\"])[.!]$", "", text)
    is_formula = len(text) > 2 and text[0] == text[-1] == "$"
    return text[1:-1].strip() if is_formula else text
