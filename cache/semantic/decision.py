"""Whether a stored answer serves, by a calibrated chance that it is right."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from cache.semantic.calibration import Calibration, default_calibration, probability
from cache.semantic.decision_features import Evidence, weigh
from cache.semantic.types import Candidate, Decision

# How often the nearest question asks for the same hangs on what a cache holds: one of a single
# topic has an answer that all neighbours share. A far question is not served however much error
# is allowed; one whose neighbours bear each other out may be farther.
_LEAST = 0.8
_LEAST_SHARED = 0.65


@dataclass(frozen=True, slots=True)
class Effect:
    """How far one entry, or one route, lies from the average: mean and variance in log-odds."""

    mean: float
    variance: float

    def after(self, logit: float, was_right: bool) -> Effect:
        """Return the effect once an answer at these log-odds was found right or wrong.

        One step of Newton from the present mean; `logit` is without this effect.
        """
        chance = probability(logit + self.mean)
        variance = 1 / (1 / self.variance + chance * (1 - chance))
        return Effect(self.mean + variance * (was_right - chance), variance)


@dataclass(frozen=True, slots=True)
class Assessed:
    """Log-odds of an average entry, the lower bound of this one's, and the error from there up."""

    logit: float
    score: float
    error: float


def assess(calibration: Calibration, evidence: Evidence, shift: float, variance: float) -> Assessed:
    """Return how sure the evidence makes of an answer, given what is known of its entry."""
    model = calibration.shared if evidence.is_shared else calibration.alone
    score = calibration.score(model, evidence.values, shift, variance)
    is_far = evidence.similarity < (_LEAST_SHARED if evidence.is_shared else _LEAST)
    return Assessed(model.logit(evidence.values), score, 1.0 if is_far else model.error_from(score))


class CalibratedDecider:
    """Serves where the error among answers at least this sure is bounded by what is allowed.

    A new entry starts from what all entries taught; each audit then moves the entry
    and, less, the route. One decider belongs to one route. Of entries, the `known`
    last audited are remembered.
    """

    def __init__(self, calibration: Calibration | None = None, *, known: int = 50_000) -> None:
        self._calibration = calibration or default_calibration()
        self._known = known
        self._entries: OrderedDict[str, Effect] = OrderedDict()
        self._last: OrderedDict[str, float] = OrderedDict()
        self._fresh = Effect(0.0, self._calibration.entry_variance)
        self._route = Effect(0.0, self._calibration.route_variance)

    def decide(self, asked: str, candidates: Sequence[Candidate], max_error: float) -> Decision:
        """Return the candidate whose chance to be wrong is surely at most `max_error`."""
        if not candidates:
            return Decision(None, reason="no candidate")
        evidence = weigh(asked, candidates)
        entry_id = candidates[evidence.place].entry_id
        effect = self._entries.get(entry_id, self._fresh)
        shift = effect.mean + self._route.mean
        found = assess(self._calibration, evidence, shift, effect.variance)
        chance = probability(found.logit + shift)
        if found.error > max_error:
            return Decision(None, chance, 1 - found.error, "not sure enough")
        _keep(self._last, entry_id, found.logit, self._known)
        return Decision(evidence.place, chance, 1 - found.error, "sure enough")

    def observe(self, entry_id: str, was_right: bool) -> None:
        """Take note of an audited hit. One that was not served by this decider is ignored."""
        logit = self._last.get(entry_id)
        if logit is None:
            return
        effect = self._entries.get(entry_id, self._fresh)
        route = self._route
        _keep(self._entries, entry_id, effect.after(logit + route.mean, was_right), self._known)
        self._route = route.after(logit + effect.mean, was_right)


_T = TypeVar("_T")


def _keep(kept: OrderedDict[str, _T], name: str, value: _T, at_most: int) -> None:
    kept[name] = value
    kept.move_to_end(name)
    if len(kept) > at_most:
        kept.popitem(last=False)
