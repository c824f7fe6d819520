"""What a draft's own signs say before anything was learnt: tokens, checks of its content, form.

Log odds are added up: what the least likely token says, plus a fixed weight for each check
that could be made. The weights are careful guesses; a few labels later they are calibrated,
and many labels later learnt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from zlib import crc32

from router.arithmetic import equations
from router.confidence import trust
from router.examples import Examples, examples_of
from router.online.acceptance import chance_of, odds_of
from router.query import Query
from router.reading import MOST
from router.types import Draft, TokenStats
from router.validators import fault_of

AGREES = 3.0
"""What an earlier draft that says the same adds."""

_WRONG = -3.0
_RIGHT = 3.0
_SOUND = 0.5
_TIE = 0.002
_UNTOLD = 0.5  # neither for nor against: log odds of zero


@dataclass(frozen=True, slots=True)
class Signs:
    """How sure a draft's own signs make it, 0 to 1, and in words; `is_wrong`: a check failed."""

    raw: float
    why: str
    is_wrong: bool = False


class Checked:
    """Reads what can be run of the question once, and every draft's signs."""

    __slots__ = ("_examples", "_query", "_wanted")

    def __init__(self, query: Query) -> None:
        self._query = query
        wanted = query.wanted
        if query.json_schema and not wanted.json:
            wanted = replace(wanted, json=True)
        self._wanted = wanted
        self._examples: Examples | None = None

    def signs(self, draft: Draft) -> Signs:
        """Return what a draft's signs come to."""
        sure, told = _tokens(draft.stats)
        found = list(self._checks(draft))
        odds = odds_of(sure) + _tie_break(draft.text)
        if not found:
            return Signs(chance_of(odds), told)
        odds += sum(weight for weight, _ in found)
        why = "; ".join((told, *(each for _, each in found)))
        return Signs(chance_of(odds), why, any(weight < 0 for weight, _ in found))

    def at_most(self, stats: TokenStats | None, *, may_agree: bool) -> float:
        """Return the most that a draft can come to whose tokens so far are these.

        Its least likely token will be no likelier; every check that may yet be made is granted.
        """
        if stats is None or not stats.count:
            return 1.0
        examples = self._read()
        has_examples = examples.output is not None or bool(examples.examples)
        odds = odds_of(trust(stats.logprobs, 0.0)) + _SOUND + _RIGHT * has_examples + _TIE
        return chance_of(max(odds, 0.0) + AGREES if may_agree else odds)

    def _read(self) -> Examples:
        if self._examples is None:
            self._examples = examples_of(self._query.text)
        return self._examples

    def _checks(self, draft: Draft) -> Iterator[tuple[float, str]]:
        """Yield the weight of each check that could be made, and what it found."""
        fault = None
        if draft.calls or not draft.tool_calls:
            fault = fault_of(draft.text, draft.calls, self._wanted)
        if fault is not None:
            yield _WRONG, fault
        if draft.tool_calls:
            return
        _, same, _, held = self._read().features(draft.text)
        for share in (same, held):
            if share == share:  # a number: there was something to run
                is_right = share == 1.0
                yield (_RIGHT, "examples hold") if is_right else (_WRONG, "an example fails")
        stated = equations(draft.text[-MOST:])
        if any(not each.is_right for each in stated):
            yield _WRONG, "a calculation is wrong"
        elif stated:
            yield _SOUND, "calculations are right"


def _tie_break(text: str) -> float:
    """Return next to nothing, by chance, and the same for the same text.

    Many drafts have the same signs. So a threshold may lie among them, and let a share of them
    through, where all of them would be too many.
    """
    return _TIE * crc32(text.encode("utf-8", "surrogatepass")) / 2**32


def _tokens(stats: TokenStats | None) -> tuple[float, str]:
    if stats is None or not stats.count:
        return _UNTOLD, "its tokens say nothing"
    sure = trust(stats.logprobs, 0.0)
    return sure, f"least likely token {sure:.2f}"
