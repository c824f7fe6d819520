"""The router of a route with `confidence: learned`: rules first, then a course."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from policies.cascade import Cascade, Confidence
from policies.rules import RequestFacts, first_match
from policies.schema import Route
from router.cascade import CascadePlan, lineup
from router.cold import ColdCourses
from router.confidence import LogprobScorer
from router.course import Course, CoursePlan
from router.eligibility import Able
from router.query import Query, query_of
from router.stakes import NO_STAKES, Stakes
from router.types import Capabilities, Features, Plan
from router.validators import NOTHING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Judges nothing: a single tier's answer goes out live.
_UNASKED = LogprobScorer(Confidence())


class Courses(Protocol):
    """Begins the course of a request: what was learnt, or the rules of the cold start."""

    @property
    def wants_vector(self) -> bool:
        """Return whether the query is to come with its vector, if that can be had."""
        ...

    @property
    def embedder(self) -> str:
        """Return the version of the embedder whose vectors it understands; empty for none."""
        ...

    @property
    def spent(self) -> Callable[[float], None] | None:
        """Return what wants to hear the dollars of each request; None where nothing does."""
        ...

    def begin(
        self,
        query: Query,
        able: Sequence[str],
        *,
        drawn: bool = False,
        stakes: Stakes = NO_STAKES,
    ) -> Course:
        """Begin the course of one request that these models are able to serve, two at least.

        `drawn` are those drawn to learn from, before anything was known of them.
        `stakes` says what a conversation forfeits by leaving each model.
        """
        ...


class LearnedRouter:
    """Chooses who may be asked by rules and capabilities; the course chooses among them."""

    def __init__(
        self, route: Route, capabilities: Mapping[str, Capabilities], courses: Courses
    ) -> None:
        self._route = route
        self._able = Able(capabilities)
        self.courses: Courses = courses

    @property
    def wants_vector(self) -> bool:
        """Return whether `start` is to find `features.known_vector` computed."""
        return self.courses.wants_vector

    @property
    def spent(self) -> Callable[[float], None] | None:
        """Return what wants to hear the dollars of each request, to pace them; else None."""
        return self.courses.spent

    def start(self, facts: RequestFacts, features: Features | None = None) -> Plan:
        """Begin a request: the first rule that matches may narrow whom the course may ask."""
        route = self._route
        rule = first_match(route.rules, facts) if route.rules else None
        named = () if rule is None else (rule.model,) if rule.model else rule.tiers or ()
        able, unable = self._able.split(named or route.tiers, facts)
        fallback, others = self._able.split(route.fallback, facts)
        skipped = tuple(dict.fromkeys((*unable, *others)))
        if len(able) < 2:
            return CascadePlan(lineup(able, fallback), skipped, _UNASKED)
        query = query_of(
            features.messages if features is not None else (),
            vector=self._vector(features),
            input_tokens=facts.input_tokens,
            max_tokens=facts.max_tokens,
            has_tools=facts.has_tools,
            has_images=facts.has_images,
            json_schema=facts.json_schema,
            wanted=features.wanted if features is not None else NOTHING,
        )
        barred = frozenset(route.tiers) - frozenset(able)
        drawn = features is not None and features.is_drawn
        stakes = features.stakes if features is not None else NO_STAKES
        course = self.courses.begin(query, able, drawn=drawn, stakes=stakes)
        return CoursePlan(course, barred=barred, fallback=fallback, skipped=skipped)

    def _vector(self, features: Features | None) -> NDArray[np.float32] | None:
        """Return the vector where it is of the embedder that the course was learnt with."""
        if features is None or features.embedder != self.courses.embedder:
            return None
        return features.known_vector


def build_learned(route: Route, capabilities: Mapping[str, Capabilities]) -> LearnedRouter:
    """Build the router of a learned cascade: by its bundle, else by the rules of the cold start.

    Raises RouterError for a bundle that cannot be used, or was made for something else.
    """
    cascade = route.cascade
    assert cascade is not None, "only a cascade is learned"
    if cascade.bundle_path is not None:
        from router.learnt_build import learnt_courses

        return LearnedRouter(route, capabilities, learnt_courses(cascade))
    courses = ColdCourses(cascade.reference_model, may_serve=not has_floor(cascade))
    return LearnedRouter(route, capabilities, courses)


def tells_tokens(capabilities: Mapping[str, Capabilities], model: str) -> bool:
    """Return whether a model is known, not only believed, to tell of its tokens."""
    known = capabilities.get(model)
    return known is not None and known.logprobs is True


def has_floor(cascade: Cascade) -> bool:
    """Return whether a quality floor is to be held, so that only what is certified may serve."""
    return cascade.target is not None and cascade.target.max_quality_loss is not None
