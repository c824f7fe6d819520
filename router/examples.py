"""Examples that a request or a reply gives, put to the test.

Two kinds of request say themselves how to check the answer: "what does this
code return", where a small interpreter can work it out, and "write this
function", with assertions or a session that the reply's code must satisfy.
Only pure, short, plain Python is understood (see `router.interpreter`); all
else gives no features rather than wrong ones.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from router.answers import final_answer
from router.interpreter.bounds import CannotTell
from router.interpreter.run import parsed, value_of

NAMES: tuple[str, ...] = ("output_known", "output_same", "examples_run", "examples_held_share")
_NOTHING = (0.0, math.nan, 0.0, math.nan)

_ASKED = re.compile(r"^\s*assert\s+(.{1,500}?)\s*==\s*(?:\?{1,4}|_{2,8}|\.\.\.)\s*$", re.MULTILINE)
_BLOCK = re.compile(r"```(?:python|py)?\s*\n(.*?)```|\[PYTHON\](.*?)\[/PYTHON\]", re.DOTALL)
_ASSERT = re.compile(r"^\s*assert\s+(.{1,300}?)\s*==\s*(.{1,300}?)\s*$", re.MULTILINE)
_SESSION = re.compile(r"^\s*>>>\s*(\w+\(.{0,200}\))\s*\n\s*([^\s>].{0,200}?)\s*$", re.MULTILINE)
_MOST_EXAMPLES = 4


@dataclass(frozen=True, slots=True)
class Example:
    """A call and what it must come to, both as Python."""

    call: str
    value: str


@dataclass(frozen=True, slots=True)
class Examples:
    """What a request says about how to check its answer.

    `output` is the value that the code in the request returns, in a tuple, where
    that is asked and could be worked out; `examples` are those of code to write.
    """

    output: tuple[Any] | None = None
    examples: Sequence[Example] = ()

    def features(self, reply: str) -> tuple[float, ...]:
        """Return the features of `NAMES` for a reply."""
        if self.output is not None:
            return (1.0, float(_says(reply, self.output[0])), 0.0, math.nan)
        if not self.examples or "def " not in reply:
            return _NOTHING
        held = _held(self.examples, reply)
        return (0.0, math.nan, float(len(held)), sum(held) / len(held) if held else math.nan)

    def share_held(self, reply: str) -> float | None:
        """Return what share of the examples a reply satisfies; None where not all could be run."""
        _, same, run, held = self.features(reply)
        if self.output is not None:
            return same
        return held if self.examples and run == len(self.examples) else None


def examples_of(prompt: str) -> Examples:
    """Return how a request's answer can be checked by running plain Python, if at all."""
    prompt = prompt[-8000:]
    if asked := _ASKED.search(prompt):
        return Examples(_output(prompt, asked[1]))
    found = [Example(*pair) for pair in (*_ASSERT.findall(prompt), *_SESSION.findall(prompt))]
    return Examples(examples=found[:_MOST_EXAMPLES])


def _output(prompt: str, call: str) -> tuple[Any] | None:
    for first, second in _BLOCK.findall(prompt):
        code = _ASKED.sub("", first or second).strip()
        try:
            return (value_of(_expression(call), parsed(code)),)
        except CannotTell:
            continue
    return None


def _expression(text: str) -> ast.expr:
    node = parsed(text.strip()).body
    if len(node) != 1 or not isinstance(node[0], ast.Expr):
        raise CannotTell("no expression")
    return node[0].value


def _says(reply: str, value: Any) -> bool:
    """Compare by value where the reply holds a literal, else by its text without quotes."""
    answer = final_answer(reply)
    text = "" if answer is None else answer.exact or str(answer.value)
    try:
        if _alike(ast.literal_eval(text), value):
            return True
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        pass
    wanted = value if isinstance(value, str) else repr(value)
    return text.strip("'\" ") == wanted.strip("'\" ")


def _alike(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _held(examples: Sequence[Example], reply: str) -> list[bool]:
    blocks = [first or second for first, second in _BLOCK.findall(reply)] or [reply]
    try:
        code = parsed("\n".join(block for block in blocks if "def " in block))
    except CannotTell:
        return []
    held = []
    for each in examples:
        try:
            value = value_of(_expression(each.call), code)
            held.append(_alike(value, value_of(_expression(each.value), parsed(""))))
        except CannotTell:
            continue
    return held
