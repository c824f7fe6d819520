"""What keeps interpreted code small: steps, sizes of values, sizes of numbers.

Every value that interpreted code makes is charged to one allowance, by its
size. Whatever the code does, it ends within the allowance in time and memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MOST_STEPS = 4_000
LARGEST = 4_000  # members of a container, characters of a text
LARGEST_NUMBER = 1 << 256
_PER_STEP = 16  # members that are handled in about the time of one step


class CannotTell(BaseException):
    """The code is outside what is interpreted, or beyond its allowance.

    No `Exception`: the code under interpretation must not be able to catch it.
    """


class Allowance:
    """What one run may still spend."""

    __slots__ = ("_left",)

    def __init__(self, steps: int = MOST_STEPS) -> None:
        self._left = steps

    def spend(self, steps: int = 1) -> None:
        """Take steps off. Raises CannotTell when none are left."""
        self._left -= steps
        if self._left < 0:
            raise CannotTell("too many steps")

    def made(self, value: Any) -> Any:
        """Return a value that was just made, after charging for its size."""
        kind = type(value)
        if kind is int:
            if not -LARGEST_NUMBER < value < LARGEST_NUMBER:
                raise CannotTell("a number too large")
        elif kind in _SIZED:
            self.room(len(value))
        return value

    def room(self, size: int) -> None:
        """Charge for a value of this size, before it is made where it may be large."""
        if size > LARGEST:
            raise CannotTell("a value too large")
        self.spend(size // _PER_STEP)

    def weigh(self, *values: Any) -> None:
        """Charge for all that comparing, hashing or printing these values would visit.

        Members count as often as they are reached: `x = [x, x]`, said a hundred
        times, would take for ever to print.
        """
        visited, pending = 0, list(values)
        while pending:
            value = pending.pop()
            kind = type(value)
            if kind in (str, bytes):
                visited += len(value) // _PER_STEP
            elif kind in _CONTAINERS:
                pending.extend(value)
                if kind is dict:
                    pending.extend(value.values())
            visited += 1
            if visited + len(pending) > LARGEST:
                raise CannotTell("a value too large")
        self.spend(visited // _PER_STEP)

    def listed(self, values: Iterable[Any]) -> list[Any]:
        """Return a list of what an iterable yields, as far as there is room."""
        found: list[Any] = []
        for value in values:
            found.append(value)
            if len(found) > LARGEST:
                raise CannotTell("a value too large")
        self.room(len(found))
        return found


_CONTAINERS = (list, tuple, set, frozenset, dict)
_SIZED = frozenset((str, bytes, *_CONTAINERS))
