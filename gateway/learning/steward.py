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
from pathlib import Path
from typing import Any

import msgspec

from gateway.learning.book import Book, LearnStep
from gateway.learning.bundles import Bundles
from gateway.learning.craft import Craft
from gateway.learning.duties import Duty, courses_at, duties_of
from gateway.learning.feedback import ratings, words_of
from gateway.learning.traffic import traffic_of
from gateway.learning.workshop import Workshop
from gateway.money.errors import LedgerError
from policies.schema import Policy
from router.learned import LearnedRouter
from router.online.jobs import Job, next_job
from router.online.stages import NO_NEWS, counting, next_step
from router.online.standing import Standing, Step, Taken, beginning, standing_of
from router.types import Router

ALARMS = frozenset(("lost", "reset", "drift", "rolled_back"))
"""Steps that somebody should hear of."""

_MOST_ROWS = 24_000
_NEWS = 0.01
_log = logging.getLogger(__name__)

Tell = Callable[[str, str, int, str], None]
"""Tells of a route's step that is an alarm: the route, its kind, its number, and why."""

Latest = Callable[[str], Mapping[str, Sequence[str]]]
"""Returns the versions that the upstreams of a route have named lately, by model."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the last look was at: its newest outcome, how many, and the versions heard of."""

    newest_us: int
    count: int
    latest: Mapping[str, Sequence[str]]


class Steward:
    """Looks after one route. `acts` is False where another process takes the steps.

    `craft` does the heavy jobs; without one there are none.
    """

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
        bundles: Bundles | None = None,
    ) -> None:
        self.standing = beginning(duty.terms)
        self._first = router.courses
        self.craft: Craft | None = None
        self._duty = duty
        self._router = router
        self._book = book
        self._wall = wall
        self._acts = acts
        self._tell = tell
        self._latest = latest or (lambda route: NO_NEWS)
        self._bundles = bundles or Bundles("", None)
        self._lacks: str | None = None
        self._seen: _Seen | None = None
        self._turn = asyncio.Lock()

    async def follow(self) -> None:
        """Route by the steps that were taken. Raises LedgerError."""
        async with self._turn:
            steps = await asyncio.to_thread(self._book.steps, self._duty.route)
            last = steps[-1].step if steps else 0
            if last != self.standing.number or self._lacks is not None:
                taken = [taken_of(step) for step in steps]
                if not self.standing.number:
                    self._say_where_it_begins(taken)
                await self._adopt(standing_of(taken, self._duty.terms))

    async def take(self, step: Step, standing: Standing) -> bool:
        """Take a step from where the route stands; False where it stands elsewhere by now.

        Raises LedgerError.
        """
        async with self._turn:
            if standing.number != self.standing.number:
                return False
            route, number = self._duty.route, standing.number + 1
            taken = Taken(number, int(self._wall() * 1e6), step, self._duty.terms.key)
            after = standing_of([taken], self._duty.terms, standing)
            if not await asyncio.to_thread(self._book.take, row_of(route, taken, after)):
                return False
            level = logging.WARNING if step.kind in ALARMS else logging.INFO
            _log.log(level, "route %s is %s: %s: %s", route, after.stage, step.kind, step.why)
            await self._adopt(after)
        if self._tell is not None and step.kind in ALARMS:
            self._tell(route, step.kind, number, step.why)
        return True

    async def look(self) -> Step | None:
        """Take the step that is due, or begin the job; return the step. Raises LedgerError."""
        await self.follow()
        if not self._acts:
            return None
        standing = self.standing
        step, job = await asyncio.to_thread(self._due, standing)
        if job is not None and self.craft is not None:
            self.craft.begin(job)
        if step is not None:
            await self.take(step, standing)  # else somebody was first: what they wrote is followed
        return step

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

    def _due(self, standing: Standing) -> tuple[Step | None, Job | None]:
        route, terms = self._duty.route, self._duty.terms
        latest = self._latest(route)
        if self._seen is not None and not self._is_news(self._seen, latest):
            return None, None
        since_us = standing.since_us
        rows = self._book.rows(route, most=_MOST_ROWS, since_us=since_us, texts=False)
        heard = ratings(words_of(self._book, route, most=_MOST_ROWS, since_us=since_us))
        requests = counting(traffic_of(rows, terms.reference, heard=heard), standing, terms)
        if (step := next_step(requests, standing, terms, latest)) is not None:
            return step, None
        if self.craft is not None and not self.craft.is_idle:
            return None, None
        # What was seen need not be seen again, unless a step changes what it comes to.
        self._seen = _Seen(rows[-1].at_us if rows else 0, len(rows), latest)
        if self.craft is None:
            return None, None
        return None, next_job(requests, standing, terms, int(self._wall() * 1e6))

    def _is_news(self, seen: _Seen, latest: Mapping[str, Sequence[str]]) -> bool:
        """Return whether it is worth to look again: reading all audits takes a while."""
        if latest != seen.latest:
            return True
        return self._book.count_after(self._duty.route, seen.newest_us) > seen.count * _NEWS

    async def _adopt(self, standing: Standing) -> None:
        if self._duty.terms.bundle and standing.stage == "learned":
            self._router.courses = self._first
        else:
            given = standing, self._duty, self._bundles
            self._router.courses, lacks = await asyncio.to_thread(courses_at, *given)
            self._say_what_lacks(lacks)
        self.standing = standing
        self._seen = None

    def _say_where_it_begins(self, taken: Sequence[Taken]) -> None:
        route, terms = self._duty.route, self._duty.terms
        own = [each for each in taken if each.key == terms.key]
        if own:
            last = own[-1]
            _log.info("route %s goes on after step %d, %s", route, last.number, last.step.kind)
        else:
            _log.info(
                "route %s begins anew: its %d steps were for other tiers, another reference, "
                "floor or bundle",
                route,
                len(taken),
            )

    def _say_what_lacks(self, lacks: str | None) -> None:
        """Tell once that a bundle cannot be had here; each look tries again."""
        route = self._duty.route
        if lacks is not None and lacks != self._lacks:
            _log.error("route %s goes by what it was before its bundle: %s", route, lacks)
        if lacks is None and self._lacks is not None:
            _log.info("route %s goes by its bundle", route)
        self._lacks = lacks


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
    place: Path | None = None,
) -> AsyncIterator[Sequence[Steward]]:
    """Look after the routes of a policy that learn by themselves; bundles are made in `place`.

    They stand where their steps left them before the first request comes.
    """
    duties = duties_of(policy)
    if not duties:
        yield ()
        return
    book = await asyncio.to_thread(Book, ledger_url)
    workshop = Workshop(place) if place is not None else None
    bundles = Bundles(ledger_url, place)
    stewards = []
    for duty in duties:
        router = routers[duty.route]
        assert isinstance(router, LearnedRouter), "its confidence is learned"
        steward = Steward(
            duty, router, book, wall, acts=acts, tell=tell, latest=latest, bundles=bundles
        )
        if workshop is not None and acts:
            steward.craft = Craft(duty, steward, workshop, ledger_url, bundles)
        stewards.append(steward)
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
        await asyncio.gather(*(one.craft.aclose() for one in stewards if one.craft))
        book.close()


async def _begin(steward: Steward) -> None:
    try:
        await steward.follow()
    except LedgerError as exc:
        # A ledger away for a moment keeps nobody from serving: by the rules of the beginning.
        _log.warning("what a route has learnt cannot be read yet: %s", exc)
