"""A route's learning while it serves: look at what came of its traffic, and take the step due.

Every process reads the steps that were taken and routes by them; one of each machine looks
for the next one. A step is written down before it is followed, and only once: where two
machines come to one at the same time, the second reads what the first wrote.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.learning.book import Book, LearnStep
from gateway.learning.traffic import traffic_of
from gateway.money.errors import LedgerError
from policies.cascade import Cascade, Learning
from policies.kinds import LEARNED
from policies.schema import Policy
from router.cold import ColdCourses
from router.guarantee import Floor
from router.learned import LearnedRouter
from router.online.stages import NO_NEWS, counting, next_step
from router.online.standing import Standing, Step, Taken, Terms, standing_of
from router.types import Router

ALARMS = frozenset(("lost", "reset", "drift", "rolled_back"))
"""Steps that somebody should hear of."""

_MOST_ROWS = 24_000
_log = logging.getLogger(__name__)

Tell = Callable[[str, str, int, str], None]
"""Tells of a route's step that is an alarm: the route, its kind, its number, and why."""

Latest = Callable[[str], Mapping[str, Sequence[str]]]
"""Returns the versions that the upstreams of a route have named lately, by model."""


@dataclass(frozen=True, slots=True)
class Duty:
    """What is to be learnt of one route, and how often one looks."""

    route: str
    terms: Terms
    every_s: float


def duties_of(policy: Policy) -> list[Duty]:
    """Return the routes that learn by themselves: learned ones for which no bundle is named."""
    return [
        Duty(name, terms_of(cascade, may_train=policy.privacy.store_texts), learning.every)
        for name, route in policy.routes.items()
        if (cascade := route.cascade) is not None
        and cascade.confidence.kind == LEARNED
        and cascade.bundle is None
        and len(cascade.tiers) > 1
        and (learning := cascade.learning or Learning()).automatic
    ]


def terms_of(cascade: Cascade, *, may_train: bool) -> Terms:
    """Return what a cascade is to learn, as its policy says."""
    learning, target = cascade.learning or Learning(), cascade.target
    floor = None
    if target is not None and target.max_quality_loss is not None:
        floor = Floor(target.max_quality_loss, target.certainty)
    return Terms(
        tuple(tier for tier in cascade.tiers if tier != cascade.reference_model),
        cascade.reference_model,
        floor,
        learning.calibrate_from,
        learning.certify_from,
        learning.train_from,
        may_train,
    )


class Steward:
    """Looks after one route. `acts` is False where another process takes the steps."""

    def __init__(
        self,
        duty: Duty,
        router: LearnedRouter,
        book: Book,
        wall: Callable[[], float],
        *,
        acts: bool,
        tell: Tell | None = None,
        latest: Latest | None = None,
    ) -> None:
        self.standing = Standing()
        self._duty = duty
        self._router = router
        self._book = book
        self._wall = wall
        self._acts = acts
        self._tell = tell
        self._latest = latest or (lambda route: NO_NEWS)
        self._looked_at: tuple[int, Mapping[str, Sequence[str]]] | None = None

    async def follow(self) -> None:
        """Route by the steps that were taken. Raises LedgerError."""
        steps = await asyncio.to_thread(self._book.steps, self._duty.route)
        last = steps[-1].step if steps else 0
        if last != self.standing.number:
            self._adopt(standing_of([taken_of(step) for step in steps], self._duty.terms))

    async def look(self) -> Step | None:
        """Take the step that is due, if one is; return it. Raises LedgerError."""
        await self.follow()
        if not self._acts:
            return None
        step = await asyncio.to_thread(self._due)
        if step is None:
            return None
        return step if await self._take(step) else None

    async def run(self) -> None:
        """Look from time to time; trouble is told, and looked at again."""
        while True:
            try:
                while await self.look() is not None:
                    pass
            except LedgerError as exc:
                _log.warning("route %s: its learning waits: %s", self._duty.route, exc)
            except Exception:
                _log.exception("route %s: its learning waits", self._duty.route)
            await asyncio.sleep(self._duty.every_s)

    def _due(self) -> Step | None:
        route, terms = self._duty.route, self._duty.terms
        newest_us, latest = self._book.newest_us(route), self._latest(route)
        if (newest_us, latest) == self._looked_at:
            return None
        since_us = self.standing.since_us
        rows = self._book.rows(route, most=_MOST_ROWS, since_us=since_us, texts=False)
        requests = counting(traffic_of(rows, terms.reference), self.standing, terms)
        step = next_step(requests, self.standing, terms, latest)
        # What was seen need not be seen again, unless a step changes what it comes to.
        self._looked_at = (newest_us, latest) if step is None else None
        return step

    async def _take(self, step: Step) -> bool:
        route, number = self._duty.route, self.standing.number + 1
        taken = Taken(number, int(self._wall() * 1e6), step, self._duty.terms.key)
        standing = standing_of([taken], self._duty.terms, self.standing)
        if not await asyncio.to_thread(self._book.take, row_of(route, taken, standing)):
            return True  # somebody else was first: look again, by what they wrote
        _log.info("route %s is %s: %s: %s", route, standing.stage, step.kind, step.why)
        self._adopt(standing)
        if self._tell is not None and step.kind in ALARMS:
            self._tell(route, step.kind, number, step.why)
        return True

    def _adopt(self, standing: Standing) -> None:
        self.standing = standing
        self._router.courses = courses_at(standing, self._duty.terms)


def courses_at(standing: Standing, terms: Terms) -> ColdCourses:
    """Return the courses of a route that stands there."""
    if standing.stage == "rules":
        return ColdCourses(terms.reference, may_serve=terms.floor is None)
    is_certified = standing.stage == "certified"
    may_serve = terms.floor is None or is_certified
    return ColdCourses(
        terms.reference, may_serve, standing.acceptance, standing.stage, is_certified
    )


def row_of(route: str, taken: Taken, standing: Standing) -> LearnStep:
    """Return a step as it is written down, with the stage it led to."""
    told: dict[str, Any] = {
        "key": taken.key,
        "stage": standing.stage,
        "bound": (standing.certificate or {}).get("bound"),
        "why": taken.step.why,
        "detail": taken.step.detail,
    }
    detail = msgspec.json.encode(told).decode()
    return LearnStep(route, taken.number, taken.at_us, taken.step.kind, detail)


def taken_of(row: LearnStep) -> Taken:
    """Return a step that was written down."""
    told = msgspec.json.decode(row.detail)
    step = Step(row.kind, told["why"], told["detail"])
    return Taken(row.step, row.at_us, step, told["key"])


@asynccontextmanager
async def learning(
    policy: Policy,
    routers: Mapping[str, Router],
    ledger_url: str,
    wall: Callable[[], float],
    *,
    acts: bool,
    tell: Tell | None = None,
    latest: Latest | None = None,
) -> AsyncIterator[Sequence[Steward]]:
    """Look after the routes of a policy that learn by themselves.

    They stand where their steps left them before the first request comes.
    """
    duties = duties_of(policy)
    if not duties:
        yield ()
        return
    book = await asyncio.to_thread(Book, ledger_url)
    stewards = []
    for duty in duties:
        router = routers[duty.route]
        assert isinstance(router, LearnedRouter), "its confidence is learned"
        stewards.append(Steward(duty, router, book, wall, acts=acts, tell=tell, latest=latest))
    tasks: list[asyncio.Task[None]] = []
    try:
        for steward in stewards:
            await _begin(steward)
        tasks += [asyncio.create_task(steward.run()) for steward in stewards]
        yield stewards
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        book.close()


async def _begin(steward: Steward) -> None:
    try:
        await steward.follow()
    except LedgerError as exc:
        # A ledger away for a moment keeps nobody from serving: by the rules of the beginning.
        _log.warning("what a route has learnt cannot be read yet: %s", exc)
