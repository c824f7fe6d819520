"""What a cross-encoder's score does to a decision that was close: refuse it, or turn it round.

The score of a pair is on a scale of its model's own, and what "the same" means is the
route's own. So the score is held against what became of earlier pairs of the route
(Platt, 1999, with the decider's log-odds as the offset). Until enough of them are known
it may only refuse.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from math import isfinite, log, sqrt

import msgspec

from cache.semantic.calibration import probability
from cache.semantic.types import Decision

ENOUGH = 50
"""How many labels must be known before a score may admit."""

REFUSED, ADMITTED = "refused by the cross-encoder", "admitted by the cross-encoder"

_CAUTION = 1.645  # deviations: one-sided 95 %
_FARTHEST = 8.0  # log-odds; beyond, a model is sure of itself and no longer informative
_REMEMBERED, _COMPARED = 4096, 1000


@dataclass(frozen=True, slots=True)
class Platt:
    """What a score adds to the log-odds, `constant + slope * score`, and how sure that is.

    The spreads are the precision (inverse covariance) of the two, row by row.
    """

    constant: float = 0.0
    slope: float = 0.0
    precision: tuple[float, float, float] = (1.0, 0.0, 4.0)

    def shift(self, score: float) -> tuple[float, float]:
        """Return what a score adds to the log-odds, and its deviation."""
        one, cross, other = self.precision
        whole = one * other - cross * cross
        variance = (other - 2 * cross * score + one * score * score) / whole
        return self.constant + self.slope * score, sqrt(max(variance, 0.0))

    @property
    def is_sound(self) -> bool:
        """Return whether it may have been learnt: finite, and of a precision that can be."""
        one, cross, other = self.precision
        are_numbers = all(map(isfinite, (self.constant, self.slope, *self.precision)))
        return are_numbers and one >= 1.0 and other >= 4.0 and one * other > cross * cross

    def after(self, logit: float, score: float, was_right: bool) -> Platt:
        """Return what is known after one more pair; one step of Newton from the present."""
        chance = probability(logit + self.shift(score)[0])
        weight, missed = chance * (1 - chance), was_right - chance
        one, cross, other = self.precision
        one, cross, other = one + weight, cross + weight * score, other + weight * score * score
        whole = one * other - cross * cross
        return Platt(
            self.constant + missed * (other - cross * score) / whole,
            self.slope + missed * (one * score - cross) / whole,
            (one, cross, other),
        )


@dataclass(frozen=True, slots=True)
class _Known:
    platt: Platt
    labels: tuple[tuple[float, bool], ...]


@dataclass(frozen=True, slots=True)
class _Met:
    logit: float
    score: float


class GreyZone:
    """Decides again for one route, given scores of one model, and learns from what became of it."""

    def __init__(self) -> None:
        self._platt = Platt()
        self._met: OrderedDict[str, _Met] = OrderedDict()
        self._labels: deque[tuple[float, bool]] = deque(maxlen=_COMPARED)

    def decide(self, decision: Decision, entry_id: str, score: float, max_error: float) -> Decision:
        """Return the decision once a pair's score is known; that of a sure one may only fall."""
        score = max(-_FARTHEST, min(_FARTHEST, score))
        self._met[entry_id] = _Met(_log_odds(decision.probability), score)
        self._met.move_to_end(entry_id)
        if len(self._met) > _REMEMBERED:
            self._met.popitem(last=False)
        if decision.serve is not None:
            is_held = self._holds(decision, score, max_error)
            return decision if is_held else _turned(decision, None, REFUSED)
        if self._admits(decision, score, max_error):
            return _turned(decision, decision.grey, ADMITTED)
        return decision

    def observe(self, entry_id: str, was_right: bool) -> None:
        """Take note of whether an entry's answer was right. One not met lately is ignored."""
        met = self._met.pop(entry_id, None)
        if met is not None:
            self._platt = self._platt.after(met.logit, met.score, was_right)
            self._labels.append((met.score, was_right))

    def dumped(self) -> bytes:
        """Return what is known, as bytes."""
        return msgspec.msgpack.encode(_Known(self._platt, tuple(self._labels)))

    def recall(self, known: bytes) -> bool:
        """Go on from what `dumped` gave; return False where it makes no sense."""
        try:
            found = msgspec.msgpack.decode(known, type=_Known)
        except (msgspec.DecodeError, ValueError):
            return False
        if not (found.platt.is_sound and all(abs(s) <= _FARTHEST for s, _ in found.labels)):
            return False
        self._platt = found.platt
        self._labels.extend(found.labels)
        return True

    def _holds(self, decision: Decision, score: float, max_error: float) -> bool:
        if len(self._labels) < ENOUGH:
            return score >= 0.0
        shift, _ = self._platt.shift(score)
        return _log_odds(decision.lower) + shift >= _log_odds(1 - max_error)

    def _admits(self, decision: Decision, score: float, max_error: float) -> bool:
        if len(self._labels) < ENOUGH or decision.lower <= 0.0:
            return False
        shift, deviation = self._platt.shift(score)
        lower = _log_odds(decision.lower) + shift - _CAUTION * deviation
        return lower >= _log_odds(1 - max_error) and self._was_right(score, max_error)

    def _was_right(self, score: float, max_error: float) -> bool:
        """Whether scores at least as good meant so: a curve may promise what nobody has seen."""
        alike = [was_right for known, was_right in self._labels if known >= score]
        return (alike.count(False) + 1) / (len(alike) + 2) <= max_error


def _turned(decision: Decision, serve: int | None, reason: str) -> Decision:
    teaches = decision.grey if serve is None else None
    return replace(decision, serve=serve, teaches=teaches, reason=reason)


def _log_odds(chance: float) -> float:
    inside = min(max(chance, 1e-9), 1 - 1e-9)
    return log(inside / (1 - inside))
