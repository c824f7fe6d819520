"""The jobs of one route: a bundle is trained, weighed on later audits, and promoted or not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from gateway.learning.bundles import Bundles
from gateway.learning.duties import Duty, training_of, weighing_of
from gateway.learning.errors import LearningError
from gateway.learning.workshop import Workshop
from gateway.money.errors import LedgerError, PriceError
from router.online.jobs import Job, step_of_weighing
from router.online.standing import Standing, Step
from router.types import RouterError

BEAT_S = 120.0
"""How often a training is said to be at work, well within its lease."""

_log = logging.getLogger(__name__)


class Taking(Protocol):
    """Where a route stands, and how steps are taken from there."""

    standing: Standing

    async def follow(self) -> None:
        """Route by the steps that were taken."""
        ...

    async def take(self, step: Step, standing: Standing) -> bool:
        """Take a step from where a route stands; False where it stands elsewhere by now."""
        ...


class Craft:
    """Does a route's jobs, one at a time, beside the looks that go on."""

    def __init__(
        self,
        duty: Duty,
        route: Taking,
        workshop: Workshop,
        ledger_url: str,
        bundles: Bundles,
        *,
        beat_s: float = BEAT_S,
    ) -> None:
        self._beat_s = beat_s
        self._duty = duty
        self._route = route
        self._workshop = workshop
        self._url = ledger_url
        self._bundles = bundles
        self._task: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Return whether a job may begin."""
        return self._task is None or self._task.done()

    def begin(self, job: Job) -> None:
        """Begin a job."""
        self._task = asyncio.create_task(self._do(job))

    async def finish(self) -> None:
        """Wait until the job under way is done."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def aclose(self) -> None:
        """Give up the job under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _do(self, job: Job) -> None:
        try:
            await (self._train(job) if job.kind == "train" else self._weigh(job))
        except (LedgerError, LearningError, PriceError) as exc:
            _log.warning(
                "route %s: nothing came of a job to %s: %s", self._duty.route, job.kind, exc
            )
        except Exception:
            _log.exception("route %s: nothing came of a job to %s", self._duty.route, job.kind)

    async def _train(self, job: Job) -> None:
        standing = self._route.standing
        why = f"the whole learner begins to learn from {job.audits} audits"
        if not await self._route.take(Step("training", why, {"audits": job.audits}), standing):
            return  # somebody else trains
        out = self._workshop.room(self._duty.route, self._route.standing.number)
        beat = asyncio.create_task(self._beat())
        try:
            found = await self._workshop.do(training_of(self._duty, job, self._url, out))
        except LearningError as exc:
            await self._take_at_last(Step("untrained", str(exc)))
            return
        except asyncio.CancelledError:
            why = "given up, as this policy is followed no longer"
            await self._take_at_last(Step("untrained", why, {"may_begin_again": True}))
            raise
        finally:
            beat.cancel()
            await asyncio.gather(beat, return_exceptions=True)
        why = f"learnt from {job.audits} audits, and to be weighed on later ones"
        told = {"path": found["path"], "id": found["id"], "until_us": job.until_us}
        await self._publish(told)
        await self._take_at_last(Step("candidate", why, told))

    async def _weigh(self, job: Job) -> None:
        before = self._route.standing
        assert before.candidate is not None, "only a candidate is weighed"
        given = self._duty, job, self._url, before, self._bundles
        try:
            weighing = await asyncio.to_thread(weighing_of, *given)
        except (RouterError, OSError) as exc:
            # Of no say in whether it wins: a machine that has it weighs it.
            _log.warning("route %s: nothing is weighed here: %s", self._duty.route, exc)
            return
        try:
            found = await self._workshop.do(weighing)
        except LearningError as exc:
            found = {"why_not": str(exc)}
        now = self._route.standing
        if (now.candidate, now.stage, now.looks) != (before.candidate, before.stage, before.looks):
            return  # what it was weighed against runs no more, or the error was spent elsewhere
        step = step_of_weighing(found, now, self._duty.terms, job.audits)
        if await self._route.take(step, now) and step.detail.get("is_final"):
            self._workshop.clear(Path(before.candidate["path"]))

    async def _publish(self, told: Mapping[str, Any]) -> None:
        """Put a candidate where the other machines find it; without that it is this one's alone."""
        running = self._route.standing.bundle
        keep = () if running is None else (running["id"],)
        given = self._duty.route, Path(told["path"]), told["id"], keep
        try:
            await asyncio.to_thread(self._bundles.publish, *given)
        except (RouterError, LedgerError, OSError) as exc:
            _log.warning("route %s: other machines cannot have it: %s", self._duty.route, exc)

    async def _beat(self) -> None:
        """Say from time to time that the training goes on: else others take it for dead."""
        while True:
            await asyncio.sleep(self._beat_s)
            try:
                await self._route.follow()
                await self._route.take(Step("at_work", "it still learns"), self._route.standing)
            except LedgerError as exc:
                _log.warning("route %s: cannot say that it learns: %s", self._duty.route, exc)

    async def _take_at_last(self, step: Step) -> None:
        """Take a step that holds wherever the route has come to stand meanwhile."""
        while not await self._route.take(step, self._route.standing):
            await self._route.follow()
