"""What a learned cascade knows, and the course of a request by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from random import random
from typing import TYPE_CHECKING, Any

import numpy as np

from router.beliefs import Beliefs
from router.beside import BesideCourse
from router.correctness import AnswerScorer, Judgement
from router.costs import CostModel, Price
from router.course import Course, Judged, Step
from router.drafts import DraftRead, read_draft
from router.early import LENGTHS
from router.guarantee import Floor
from router.quality.model import QualityModel
from router.query import Query
from router.reading import Question, read_question
from router.reply import Reply
from router.stakes import NO_STAKES, Stakes
from router.state import State
from router.targets import Mix, PriceOfQuality, Spend
from router.types import Draft, RouterError
from router.value import STOP, Known, ValueModel, known_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_MOST_WHY = 3


@dataclass(frozen=True, slots=True)
class Learnt:
    """Every learnt part of one route. `values` has one model an objective.

    `beginnings` judges drafts under way, where enough of them were long enough to learn that.
    """

    quality: QualityModel
    costs: CostModel
    scorer: AnswerScorer
    beliefs: Beliefs
    values: Mapping[str, ValueModel]
    prices: Mapping[str, Price]
    beginnings: AnswerScorer | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """Return the models of the line-up, in the order of the route's tiers."""
        return next(iter(self.values.values())).lineup.models

    def to_state(self) -> State:
        """Return what is kept on disk."""
        parts = {
            "quality": self.quality.to_state(),
            "costs": self.costs.to_state(),
            "scorer": self.scorer.to_state(),
            "beliefs": self.beliefs.to_state(),
        }
        if self.beginnings is not None:
            parts["beginnings"] = self.beginnings.to_state()
        parts |= {f"value-{name}": value.to_state() for name, value in self.values.items()}
        prices = {
            name: {**asdict(price), "as_of": price.as_of.isoformat()}
            for name, price in self.prices.items()
        }
        return State(values={"objectives": sorted(self.values), "prices": prices}, parts=parts)

    @classmethod
    def from_state(cls, state: State) -> Learnt:
        """Make it again. Raises RouterError for parts that are missing or do not fit together."""
        names = state.values.get("objectives")
        if not isinstance(names, list) or not names:
            raise RouterError("bundle: expected at least one objective; train it again")

        def part(name: str) -> State:
            if name not in state.parts:
                raise RouterError(f"bundle: its part {name!r} is missing; train it again")
            return state.parts[name]

        learnt = cls(
            QualityModel.from_state(part("quality")),
            CostModel.from_state(part("costs")),
            AnswerScorer.from_state(part("scorer")),
            Beliefs.from_state(part("beliefs")),
            {str(name): ValueModel.from_state(part(f"value-{name}")) for name in names},
            _prices(state.values.get("prices")),
            AnswerScorer.from_state(part("beginnings")) if "beginnings" in state.parts else None,
        )
        parts = learnt.quality.names, learnt.costs.models, learnt.scorer.models
        # A price goes by its model's name: whoever trained may have told them in any order.
        if any(known != learnt.models for known in parts) or {*learnt.prices} != {*learnt.models}:
            raise RouterError("bundle: its parts know different models; train it again")
        return learnt


def _prices(kept: object) -> dict[str, Price]:
    if not isinstance(kept, dict):
        raise RouterError("bundle: its prices are missing; train it again")
    try:
        return {
            str(name): Price(**{**price, "as_of": date.fromisoformat(price["as_of"])})
            for name, price in kept.items()
        }
    except (TypeError, KeyError, ValueError) as exc:
        raise RouterError(f"bundle: a price cannot be read: {exc!r}") from exc


@dataclass(frozen=True, slots=True)
class Operating:
    """How a route runs: by which objective, at which exchange rate.

    `mix` is None where a floor was asked for and nothing could be certified: the
    reference answers. A draft whose beginning scores below `early` is given up. `solved_for` is
    the target of money that the rates were solved for, None for a floor.
    """

    objective: str
    mix: Mix | None
    floor: Floor | None = None
    early: float | None = None
    solved_for: Spend | PriceOfQuality | None = None


class LearntCourses:
    """Begins courses by what was learnt, at one operating point."""

    def __init__(
        self,
        learnt: Learnt,
        operating: Operating,
        *,
        route: str | None = None,
        chance: Callable[[], float] = random,
        rate: Callable[[], float] | None = None,
        prices: Mapping[str, Price] | None = None,
        embedder: str = "",
        spent: Callable[[float], None] | None = None,
        usd_per_second: float = 0.0,
        has_lapsed: Callable[[], bool] | None = None,
    ) -> None:
        self._has_lapsed = has_lapsed
        self._learnt = learnt
        self._value = learnt.values[operating.objective]
        self._operating = operating
        self._route = route
        # A floor was certified without it: there no wait makes a draft do that would not.
        self._usd_per_second = 0.0 if operating.objective == "floor" else usd_per_second
        self._chance = chance
        self._rate = rate
        self.embedder = embedder
        self.spent = spent
        self._prices = {**learnt.prices, **(prices or {})}

    @property
    def wants_vector(self) -> bool:
        """Return whether the estimates were learnt with an embedder's vectors."""
        return self._learnt.quality.full is not None

    def begin(
        self,
        query: Query,
        able: Sequence[str],
        *,
        drawn: bool = False,
        stakes: Stakes = NO_STAKES,
    ) -> Course:
        """Begin the course of one request; of one drawn, the other drafts are made beside."""
        course = self._course(query, NO_STAKES if drawn else stakes)
        if not drawn:
            return course
        lineup = self._value.lineup
        judged = [lineup.models[place] for place in sorted(lineup.judged)]
        return BesideCourse(course, query, judged, lineup.models[lineup.reference])

    def _course(self, query: Query, stakes: Stakes) -> LearntCourse:
        first = self._learnt.quality.estimate((query,)).quality
        costs = self._learnt.costs.estimate((query,), self._prices)
        usd = costs.usd
        if self._usd_per_second:
            usd = usd + self._usd_per_second * costs.latency_s
        return LearntCourse(
            self._learnt,
            self._value,
            query,
            first,
            usd,
            self._now(),
            self._route,
            self._forfeits(stakes),
            self._operating.early,
        )

    def _forfeits(self, stakes: Stakes) -> Floats | None:
        """Return what leaving each model would forfeit, [1, K]; None where nothing.

        A floor was certified without it. There only the reference's counts: to be asked more
        often can only lower the loss.
        """
        models = self._learnt.models
        lineup = self._value.lineup
        counts = (lineup.models[lineup.reference],) if self._value.objective == "floor" else models
        if not any(stakes[name].forfeit_usd for name in counts if name in stakes):
            return None
        known = (stakes.get(name) if name in counts else None for name in models)
        return np.array([[stake.forfeit_usd if stake else 0.0 for stake in known]])

    def _now(self) -> float | None:
        if self._operating.mix is None or (self._has_lapsed is not None and self._has_lapsed()):
            return None
        return self._rate() if self._rate else self._operating.mix.of(self._chance())


class LearntCourse:
    """The course of one request.

    `first`, `usd` and `forfeits` are [1, K]; without a `rate` the reference answers.
    """

    __slots__ = (
        "_early",
        "_first",
        "_forfeits",
        "_has_given_up",
        "_learnt",
        "_looks",
        "_places",
        "_query",
        "_question",
        "_rate",
        "_read",
        "_route",
        "_usd",
        "_value",
    )  # fmt: skip

    needs_stats = True

    def __init__(
        self,
        learnt: Learnt,
        value: ValueModel,
        query: Query,
        first: Floats,
        usd: Floats,
        rate: float | None,
        route: str | None,
        forfeits: Floats | None = None,
        early: float | None = None,
    ) -> None:
        self._early = early
        self._has_given_up = False
        self._looks: dict[str, int] = {}
        self._learnt = learnt
        self._forfeits = forfeits
        self._value = value
        self._query = query
        self._first = first
        self._usd = usd
        self._rate = rate
        self._route = route
        self._places = {name: place for place, name in enumerate(learnt.models)}
        self._question: Question | None = None
        self._read: dict[str, DraftRead] = {}

    def watches(self, model: str) -> bool:
        """Return whether a draft of this model may be given up before its end."""
        can_tell = self._early is not None and self._learnt.beginnings is not None
        return can_tell and self.is_judged(model)

    def watch(self, draft: Draft, earlier: Sequence[Judged]) -> bool:
        """Return False where the beginning of a draft says that it will not do.

        It is looked at whenever it has come to another of the lengths that were learnt from.
        """
        reached = sum(length < len(draft.text) for length in LENGTHS)
        if reached <= self._looks.get(draft.model, 0) or self._early is None:
            return True
        self._looks[draft.model] = reached
        self._has_given_up |= self._beginning(draft, LENGTHS[reached - 1]) < self._early
        return not self._has_given_up

    def _beginning(self, draft: Draft, length: int) -> float:
        assert self._learnt.beginnings is not None, "else nothing is watched"
        self._question = self._question or read_question(self._query.text)
        reply = Reply(draft.text[:length])
        read = read_draft(self._question, reply, self._places[draft.model], draft.model)
        (found,) = self._learnt.beginnings.judge([read], self._first[0], self._route)
        return found.quality

    def is_judged(self, model: str) -> bool:
        """Return whether this model's draft is held and judged, or goes out live."""
        return self._rate is not None and self._places[model] in self._value.lineup.judged

    def judge(self, draft: Draft, earlier: Sequence[Judged]) -> Sequence[Judged]:
        """Judge a draft, and the earlier ones anew beside it."""
        self._question = self._question or read_question(self._query.text)
        self._read[draft.model] = read_draft(
            self._question,
            Reply.of_draft(draft),
            self._places[draft.model],
            draft.model,
            self._query.wanted,
        )
        drafts = [*(judged.draft for judged in earlier), draft]
        told = [each for each in drafts if each.model in self._read]
        found = self._learnt.scorer.judge(
            [self._read[each.model] for each in told], self._first[0], self._route
        )
        by_model = {each.model: judged for each, judged in zip(told, found, strict=True)}
        return [
            self._judged(each, by_model[each.model]) if each.model in by_model else earlier[place]
            for place, each in enumerate(drafts)
        ]

    def _judged(self, draft: Draft, found: Judgement) -> Judged:
        expected = float(self._first[0, self._places[draft.model]])
        return Judged(draft, found.quality, _told(found.why), expected=expected)

    def step(self, drafts: Sequence[Judged], barred: frozenset[str]) -> Step | None:
        """Stop, or call whom it pays most to call."""
        reference = self._value.lineup.models[self._value.lineup.reference]
        if self._rate is None and reference not in barred:
            return Step(reference, reason="not certified")
        # A floor was certified of drafts that come to their end: without one, only the reference.
        has_floor = self._value.objective == "floor"
        if self._has_given_up and has_floor and reference not in barred:
            return Step(reference, reason="a draft was given up")
        usable = sorted(
            (self._places[each.draft.model], place)
            for place, each in enumerate(drafts)
            if not each.useless
        )
        calls = tuple(model for model, _ in usable)
        quality = np.array([[drafts[place].quality or 0.0 for _, place in usable]])
        usd = self._usd_without(barred)
        if self._forfeits is not None:
            usd = np.maximum(usd - self._forfeits, 0.0)
        known, best = known_of(calls, self._first, quality, usd, self._learnt.beliefs, self._value)
        chosen = self._value.choose(known, self._rate or self._value.rates[0])
        step = int(chosen.step[0])
        if step == STOP:
            if not calls:
                return None
            return Step(None, dict(usable)[int(best[0])], _why_stop(known.worth, chosen.worth))
        gain = float(chosen.worth[0, step]) - (float(known.worth[0]) if calls else 0.0)
        if not np.isfinite(gain):
            return None
        name = self._learnt.models[step]
        reason = f"{name} is worth {gain:+.3f}, its price taken off"
        return Step(name, reason=reason, stays=self._why_stays(step, known, barred, reason))

    def _usd_without(self, barred: frozenset[str]) -> Floats:
        """Return what each call would cost with nothing cached; the barred cost too much."""
        usd = self._usd.copy()
        usd[0, [self._places[name] for name in barred if name in self._places]] = np.inf
        return usd

    def _why_stays(self, step: int, known: Known, barred: frozenset[str], reason: str) -> str:
        """Say so where another would be asked if nothing were cached; empty where not."""
        if self._forfeits is None or not self._forfeits[0, step]:
            return ""
        cold = replace(known, usd=self._usd_without(barred))
        if int(self._value.choose(cold, self._rate or self._value.rates[0]).step[0]) == step:
            return ""
        return f"{reason}; of that ${self._forfeits[0, step]:.6f} for its cached prompt"


def _told(why: Sequence[tuple[str, float, float]]) -> str:
    return ", ".join(f"{name} {weight:+.2f}" for name, weight, _ in why[:_MOST_WHY])


def _why_stop(now: Floats, worth: Any) -> str:
    most = float(np.max(worth))
    if not np.isfinite(most):
        return "nobody else to ask"
    return f"no call is worth its price ({most - float(now[0]):+.3f})"
