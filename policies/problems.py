"""What is wrong with a policy, and where: a problem points at file, line, column and key path."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]
"""The keys and list positions that lead to a value, from the top of the file."""

_LONGEST = 80
_PLAIN_KEY = re.compile(r"[\w@:/-]+")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend. Lines and columns count from 1; 0 where there is no such place."""

    file: str
    line: int
    column: int
    path: str
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        what = f"{self.path}: {self.message}" if self.path else self.message
        return _printable(f"{place}: {what}" + (f" ({self.hint})" if self.hint else ""))


class PolicyError(ValueError):
    """A policy that cannot be used; names everything that is wrong with it at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        ordered = sorted(dict.fromkeys(problems), key=lambda p: (p.line, p.column))
        self.problems: tuple[Problem, ...] = tuple(ordered)
        super().__init__("\n".join(map(str, self.problems)))


def shortened(text: str) -> str:
    """Cut a text to what fits in a message."""
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _printable(text: str) -> str:
    """Escape what a file could use to play with a terminal."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def spell(path: KeyPath) -> str:
    """Write a path as people read it: `routes.auto.cascade.tiers[1]`."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            shown = shortened(key)
            text += ("." if text else "") + (shown if _PLAIN_KEY.fullmatch(key) else f'"{shown}"')
    return text
