"""Whether a stored answer serves, by a calibrated chance that it is right."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from math import isfinite
from typing import TypeVar

import msgspec

from cache.semantic.calibration import Calibration, default_calibration, encode, probability
from cache.semantic.decision_features import Evidence, weigh
from cache.semantic.learnt import Lesson
from cache.semantic.types import Candidate, Decision

# How often the nearest question asks for the same hangs on what a cache holds: one of a single
# topic has an answer that all neighbours share. A far question is not served however much error
# is allowed; one whose neighbours bear each other out may be farther.
_LEAST_ALONE = 0.8
LEAST = 0.65
"""The cosine below which nothing is served, whatever bears it out."""

_WORTH_LEARNING = 0.3  # what is surely wrong teaches nothing about what might serve
_DOUBTLESS = 0.1  # of the allowed error: what is so sure needs no second opinion
_OFTEN, _NOW_AND_THEN = 1000, 8
_BOLDER = 1.0  # log-odds


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


_NO_EFFECT = Effect(0.0, 0.0)
_FARTHEST = 100.0  # log-odds; an effect that says more was not learnt
_ROUTE, _ANSWER, _ENTRY, _COUNT = "route", "answer", "entry", "taught"


@dataclass(frozen=True, slots=True)
class Assessed:
    """Log-odds of an average entry, and the lower bound of this one's, which is its score."""

    logit: float
    score: float
    is_far: bool

    @property
    def lower(self) -> float:
        """Return the lower bound of the chance that the answer is right."""
        return 0.0 if self.is_far else probability(self.score)


def assess(calibration: Calibration, evidence: Evidence, shift: float, variance: float) -> Assessed:
    """Return how sure the evidence makes of an answer, given what is known of its entry."""
    model = calibration.shared if evidence.is_shared else calibration.alone
    score = calibration.score(model, evidence.values, shift, variance)
    is_far = evidence.similarity < (LEAST if evidence.is_shared else _LEAST_ALONE)
    return Assessed(model.logit(evidence.values), score, is_far)


@dataclass(frozen=True, slots=True)
class _Met:
    """What an entry was last weighed at: log-odds without effects, and whose effects they are."""

    logit: float
    is_shared: bool
    answer: str


class CalibratedDecider:
    """Serves where the chance to be wrong is surely at most what is allowed.

    A new route starts from what several domains taught, and every answer that it buys
    teaches it: whether the nearest stored one would have served (`teaches`), as every
    audit does. What is learnt moves the route, the answer where several entries share
    it, and the entry. One decider belongs to one route. Of entries, and of answers, the
    `known` last met are remembered.
    """

    def __init__(self, calibration: Calibration | None = None, *, known: int = 50_000) -> None:
        self._calibration = calibration or default_calibration()
        self._known = known
        self._entries: OrderedDict[str, Effect] = OrderedDict()
        self._answers: OrderedDict[str, Effect] = OrderedDict()
        self._last: OrderedDict[str, _Met] = OrderedDict()
        self._fresh_entry = Effect(0.0, self._calibration.entry_variance)
        self._fresh_answer = Effect(0.0, self._calibration.answer_variance)
        fresh_route = Effect(0.0, self._calibration.route_variance)
        self._routes = {True: fresh_route, False: fresh_route}
        self._taught = self._unsure = 0
        self._news: dict[tuple[str, str], None] = {}

    def decide(self, asked: str, candidates: Sequence[Candidate], max_error: float) -> Decision:
        """Return the candidate whose chance to be wrong is surely at most `max_error`."""
        if not candidates:
            return Decision(None, reason="no candidate")
        evidence = weigh(asked, candidates)
        best = candidates[evidence.place]
        shift, variance = self._known_of(evidence.is_shared, best.answer_key, best.entry_id)
        found = assess(self._calibration, evidence, shift, variance)
        chance = probability(found.logit + shift)
        if chance >= _WORTH_LEARNING:
            met = _Met(found.logit, evidence.is_shared, best.answer_key)
            _keep(self._last, best.entry_id, met, self._known)
        is_grey = chance >= _WORTH_LEARNING and 0 < found.lower < 1 - _DOUBTLESS * max_error
        grey = evidence.place if is_grey else None
        if found.lower >= 1 - max_error:
            return Decision(evidence.place, chance, found.lower, "sure enough", grey=grey)
        teaches = evidence.place if self._wants(chance) else None
        return Decision(None, chance, found.lower, "not sure enough", teaches, grey)

    def observe(self, entry_id: str, was_right: bool) -> None:
        """Take note of whether an entry's answer was right. One not met lately is ignored."""
        met = self._last.get(entry_id)
        if met is None:
            return
        self._taught += 1
        entry = self._entries.get(entry_id, self._fresh_entry)
        answer, route = self._answer(met.is_shared, met.answer), self._routes[met.is_shared]
        logit = met.logit + entry.mean + answer.mean + route.mean
        _keep(self._entries, entry_id, entry.after(logit - entry.mean, was_right), self._known)
        self._routes[met.is_shared] = route.after(logit - route.mean, was_right)
        if met.is_shared:
            after = answer.after(logit - answer.mean, was_right)
            _keep(self._answers, met.answer, after, self._known)
            self._news[_ANSWER, met.answer] = None
        self._news |= {(_ENTRY, entry_id): None, _route(met.is_shared): None, (_COUNT, ""): None}

    @cached_property
    def basis(self) -> str:
        """Return what tells lessons that build on this calibration."""
        return blake2b(encode(self._calibration), digest_size=8).hexdigest()

    def news(self) -> Sequence[Lesson]:
        """Return what was learnt and is not `kept` yet."""
        told = [(place, self._state(*place)) for place in self._news]
        return [
            Lesson(*place, msgspec.msgpack.encode(state))
            for place, state in told
            if state is not None
        ]

    def kept(self) -> None:
        """Learn that the news stand on disk."""
        self._news.clear()

    def recall(self, lessons: Sequence[Lesson]) -> int:
        """Build on earlier lessons, what is oldest first; return how many made no sense."""
        return sum(not self._recalled(lesson) for lesson in lessons)

    def _state(self, kind: str, name: str) -> Effect | int | None:
        if kind == _COUNT:
            return self._taught
        if kind == _ROUTE:
            return self._routes[name == _route(True)[1]]
        return (self._answers if kind == _ANSWER else self._entries).get(name)

    def _recalled(self, lesson: Lesson) -> bool:
        kind, name, state = lesson
        try:
            if kind == _COUNT:
                self._taught = max(0, msgspec.msgpack.decode(state, type=int))
                return True
            effect = msgspec.msgpack.decode(state, type=Effect)
        except (msgspec.DecodeError, ValueError):
            return False
        if kind == _ROUTE and _is_sound(effect, self._calibration.route_variance):
            self._routes[name == _route(True)[1]] = effect
        elif kind == _ANSWER and _is_sound(effect, self._calibration.answer_variance):
            _keep(self._answers, name, effect, self._known)
        elif kind == _ENTRY and _is_sound(effect, self._calibration.entry_variance):
            _keep(self._entries, name, effect, self._known)
        else:
            return False
        return True

    def _known_of(self, is_shared: bool, answer_key: str, entry_id: str) -> tuple[float, float]:
        """Return the shift in log-odds by what was learnt, and its variance."""
        entry = self._entries.get(entry_id, self._fresh_entry)
        answer, route = self._answer(is_shared, answer_key), self._routes[is_shared]
        # What was bought lay below the bound, what is served lies above: what was learnt there
        # makes a route as cautious as it must be here, but only somewhat bolder.
        common = min(route.mean + answer.mean, _BOLDER if is_shared else 0.0)
        return common + entry.mean, entry.variance + answer.variance + route.variance

    def _answer(self, is_shared: bool, answer_key: str) -> Effect:
        if not is_shared:
            return _NO_EFFECT
        return self._answers.get(answer_key, self._fresh_answer)

    def _wants(self, chance: float) -> bool:
        """Whether it is worth comparing answers to learn: often at first, then now and then."""
        if chance < _WORTH_LEARNING:
            return False
        self._unsure += 1
        return self._taught < _OFTEN or self._unsure % _NOW_AND_THEN == 0


def _route(is_shared: bool) -> tuple[str, str]:
    return _ROUTE, "shared" if is_shared else "alone"


def _is_sound(effect: Effect, most: float) -> bool:
    """Whether it may have been learnt: what is learnt only ever becomes surer."""
    is_near = isfinite(effect.mean) and abs(effect.mean) <= _FARTHEST
    return is_near and 0.0 < effect.variance <= most * (1 + 1e-9)


_T = TypeVar("_T")


def _keep(kept: OrderedDict[str, _T], name: str, value: _T, at_most: int) -> None:
    kept[name] = value
    kept.move_to_end(name)
    if len(kept) > at_most:
        kept.popitem(last=False)
