"""Do what a route's router says: call a tier, hold or send its answer, or serve a draft."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from random import random

from gateway.access.admission import Admission
from gateway.access.ceiling import REASON as MAX_USD
from gateway.access.ceiling import ModestPlan
from gateway.affinity import Affinity
from gateway.attempt import Attempt, Purpose
from gateway.early import Early
from gateway.entry import Entry
from gateway.errors import (
    CeilingTooLow,
    GatewayError,
    InvalidRequest,
    LedgerUnavailable,
    ModelLimited,
    NoModelAvailable,
    ProviderError,
    ProviderRejected,
)
from gateway.features import Embedding, Features
from gateway.intending import Intending, once
from gateway.learning.control import controls_of
from gateway.learning.observing import Observer
from gateway.released import in_mode
from gateway.resilience.hedge import Runner, opening, race
from gateway.resilience.resilience import Resilience, terms_of
from gateway.telemetry.context import new_span_id
from gateway.wire import Part, Provider, ProviderCall
from policies.resilience import HedgeRules
from policies.schema import Policy, Route
from router.cascade import build_router
from router.control import ControlPlan
from router.types import Ask, Call, Draft, NoModelLeft, Plan, Router, Serve, cut_short


class Cascading:
    """The cascade at work: it knows no learner, and decides nothing."""

    def __init__(
        self,
        policy: Policy,
        routers: Mapping[str, Router],
        providers: Mapping[str, Provider],
        resilience: Resilience,
        admission: Admission | None,
        intending: Intending,
        embedding: Embedding | None = None,
        chance: Callable[[], float] = random,
        observer: Observer | None = None,
        affinity: Affinity | None = None,
    ) -> None:
        self.early = Early()
        self._affinity = affinity
        self._observer = observer
        self._chance = chance
        self._controls = controls_of(policy)
        self._embedding = embedding
        self._routers = routers
        self._providers = providers
        self._resilience = resilience
        self._admission = admission
        self._intending = intending
        self._upstream_names = {name: model.model or name for name, model in policy.models.items()}

    async def run(self, entry: Entry) -> AsyncGenerator[Part, None]:
        """Do what the router says: call a tier, or serve an attempt."""
        plan = await self._plan(entry)
        entry.skipped = plan.skipped
        self._resilience.count(entry)
        while isinstance(step := self._next(plan, entry), Call):
            purpose: Purpose = "control" if step.why == "control" else "serve"
            attempt = entry.attempt(step.model, purpose=purpose, why=step.why)
            attempt.choice = step.reason
            try:
                if step.judged:
                    await self._judged(attempt, entry, plan)
                    self._note(attempt, entry)
                else:
                    parts = self._live(attempt, entry)
                    try:  # as `aclosing` does, which costs more than what it does
                        async for part in parts:
                            yield part
                    finally:
                        await parts.aclose()
                    self._note(entry.served or attempt, entry)
                    return
            except ProviderError as exc:
                if not step.judged and entry.served is not None:
                    attempt = entry.served  # or the hedge that was quicker
                attempt.fail(exc)
                attempt.is_superseded = await self._resilience.try_again(attempt, entry, exc)
                if attempt.is_superseded:
                    continue  # to the plan this attempt never was: it names the same model
                is_final = attempt.has_begun or isinstance(exc, ProviderRejected)
                if is_final and not step.judged:
                    raise  # half an answer cannot be taken back, nor the client's mistake mended
        for part in _served(step, entry):
            yield part

    async def _plan(self, entry: Entry) -> Plan:
        """Let the router begin, without what the client would not pay for."""
        router = self._router(entry)
        features = entry.features = entry.features or self._features(entry)
        if self._observer is not None and self._observer.draws(entry):
            entry.is_drawn = features.is_drawn = True
        if router.wants_vector:
            await features.vector()
        if self._affinity is not None:
            features.stakes = self._affinity.stakes(entry)
        plan = router.start(entry.facts, features)
        if (control := self._controls.get(entry.route_name)) and control.draws(entry, self._chance):
            plan = ControlPlan(control.reference, plan)
        if entry.left_out:
            return ModestPlan(plan, entry.left_out, entry.request.max_nano_usd or 0)
        return plan

    def _note(self, attempt: Attempt, entry: Entry) -> None:
        """Remember who has read the conversation, where that may matter."""
        if self._affinity is not None and attempt.is_complete:
            self._affinity.note(attempt, entry)

    def _features(self, entry: Entry) -> Features:
        return Features(entry.request.body["messages"], self._embedding, entry.request.body)

    def _router(self, entry: Entry) -> Router:
        """Return who decides: the route's router, or one that knows the cheapest model alone."""
        if entry.only is not None:
            return build_router(Route(model=entry.only), {})
        if entry.permit is None or entry.permit.cheapest is None:
            return self._routers[entry.route_name]
        return build_router(Route(model=entry.permit.cheapest), {})

    def _next(self, plan: Plan, entry: Entry) -> Call | Serve:
        try:
            return plan.next([attempt.as_tried() for attempt in entry.tried])
        except NoModelLeft as exc:
            raise _why_none(entry, exc) from exc

    async def _live(self, attempt: Attempt, entry: Entry) -> AsyncGenerator[Part, None]:
        """Send a reply as it comes: nothing above this tier could take its place."""
        entry.serve(attempt)
        is_stream = entry.request.stream
        if is_stream and entry.route.hedge is not None:
            attempt, call = await self._hedged(attempt, entry, entry.route.hedge)
        else:
            call = self._call(attempt, entry, stream=is_stream, wants_stats=False)
        try:
            for part in await opening(call):
                attempt.see(part)
                yield part
            async for part in call:
                attempt.see(part)
                yield part
        finally:
            await call.aclose()
        attempt.end()

    async def _hedged(
        self, attempt: Attempt, entry: Entry, rules: HedgeRules
    ) -> tuple[Attempt, AsyncGenerator[Part, None]]:
        """Return who has begun to answer: the attempt, or a second one where it is slow."""

        def run(each: Attempt) -> Runner:
            return Runner(each, self._call(each, entry, stream=True, wants_stats=False))

        def rival() -> Runner | None:
            if not self._resilience.may_hedge(entry):
                return None
            hedge = entry.attempt(attempt.model, purpose="hedge", why=attempt.why)
            try:
                return run(hedge)
            except LedgerUnavailable:
                return None  # the first call goes on

        winner = await race(run(attempt), rules.after, rival)
        entry.serve(winner.attempt)
        return winner.attempt, winner.parts()

    async def _judged(self, attempt: Attempt, entry: Entry, plan: Plan) -> None:
        """Hold a draft and judge it; a slow or hopeless one is cancelled where it stands."""
        watches = plan.watches(attempt.model)
        stream = entry.request.stream or watches
        call = self._call(attempt, entry, stream=stream, wants_stats=plan.needs_stats)
        hold_s = entry.route.cascade.max_hold if entry.route.cascade else None
        try:
            async with asyncio.timeout(hold_s), aclosing(call) as parts:
                async for part in parts:
                    attempt.hold(part)
                    if watches and attempt.is_worth_a_look() and not plan.watch(attempt.draft()):
                        self._give_up(attempt)
                        return
        except TimeoutError:
            attempt.reject_early(cut_short(f"not complete within {hold_s:g} s"))
            return
        attempt.end()
        if watches:
            self.early.finished(attempt)
        attempt.verdict = await plan.judge(attempt.draft(), self._asker(entry))

    def _give_up(self, attempt: Attempt) -> None:
        """End a draft that the plan has given up on."""
        saved = self.early.given_up(attempt)
        sure = None if attempt.stats is None else math.exp(min(attempt.stats.logprobs, default=0.0))
        why = f"given up after {attempt.seen} tokens, about {saved:.0f} saved"
        attempt.reject_early(cut_short(why, sure))

    def _asker(self, entry: Entry) -> Ask:
        async def ask(model: str) -> Draft | None:
            for earlier in entry.attempts:
                if earlier.model == model and earlier.is_complete:
                    return earlier.draft()  # asked already, and paid for
            attempt = entry.attempt(model, purpose="judge")
            try:
                call = self._call(attempt, entry, stream=False, wants_stats=False)
                async with aclosing(call) as parts:
                    async for part in parts:
                        attempt.see(part)
            except ProviderError as exc:
                attempt.fail(exc)
                return None
            attempt.end()
            return attempt.draft()

        return ask

    def _call(
        self, attempt: Attempt, entry: Entry, *, stream: bool, wants_stats: bool
    ) -> AsyncGenerator[Part, None]:
        request = entry.request
        attempt.is_stream = stream
        body = {**request.body, "model": self._upstream_names[attempt.model], "stream": stream}
        if stream:
            # Usage is always wanted; `answer` strips it where the client did not ask.
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        else:
            body.pop("stream_options", None)
        timeouts, asked = terms_of(attempt, entry)
        call = ProviderCall(
            body,
            stream,
            wants_stats,
            timeouts,
            request.id,
            asked,
            entry.caller.tenant,
            partial(self._again, attempt, entry),
            _traced(attempt, entry) if entry.trace is not None else (),
        )
        durable = self._intending.announce(attempt, entry)
        parts = self._providers[attempt.model].call(call)
        if durable is not None:
            parts = once(durable, parts)
        if _may_be_too_much(entry):
            parts = self._covered(parts, entry)
        parts = self._resilience.guarded(parts, attempt, entry)
        if self._admission is not None and self._admission.limits_model(attempt.model):
            return self._admission.metered(parts, attempt, entry)
        return parts

    def _again(self, attempt: Attempt, entry: Entry, exc: ProviderError) -> Awaitable[None] | None:
        """Give a call that was sent in vain a line of its own: it may be billed, as the next is.

        Raises LedgerUnavailable, ModelLimited where no budget has room for both.
        """
        durable = self._intending.announce(entry.lost(attempt, exc), entry)
        if _may_be_too_much(entry):
            return self._cover(entry, durable)
        return durable

    async def _covered(
        self, parts: AsyncGenerator[Part, None], entry: Entry
    ) -> AsyncGenerator[Part, None]:
        """Yield a call's parts; it is made once its money is set aside. Raises ModelLimited."""
        async with aclosing(parts):
            await self._cover(entry, None)
            async for part in parts:
                yield part

    async def _cover(self, entry: Entry, durable: asyncio.Future[None] | None) -> None:
        most = self._intending.most_nano(entry)
        ceiling = entry.request.max_nano_usd
        if ceiling is not None and most > ceiling:
            raise ModelLimited("another call may cost more than x-frugal-max-usd")
        if self._admission is not None:
            await self._admission.cover(entry, most)
        if durable is not None:
            await durable


def _may_be_too_much(entry: Entry) -> bool:
    """Return whether it is to be looked at more closely if there is money for a call."""
    permit = entry.permit
    return (permit is not None and permit.may_lack) or entry.request.max_nano_usd is not None


def _traced(attempt: Attempt, entry: Entry) -> tuple[tuple[str, str], ...]:
    """Give a call its place in the request's trace, and return what its upstream is told."""
    assert entry.trace is not None, "only what is traced, or passed through, comes here"
    if entry.trace.is_sampled:
        attempt.span_id = new_span_id()
    return entry.trace.headers(attempt.span_id)


def _served(step: Serve, entry: Entry) -> Iterable[Part]:
    """Serve a draft; one that a later draft spoke for is accepted after all."""
    served = entry.tried[step.index]
    if served.verdict is not None and not step.degraded:
        served.verdict = replace(served.verdict, accepted=True)
    entry.serve(served)
    return in_mode(served.parts, stream=entry.request.stream)


def _why_none(entry: Entry, exc: NoModelLeft) -> GatewayError:
    """Return what the client is told: the one failure as it was, or that all have failed."""
    failures = [a.failure for a in entry.tried if a.failure is not None]
    if len(failures) == 1:
        return failures[0]
    if not entry.tried and entry.skipped:
        if all(skip.reason == MAX_USD for skip in entry.skipped):
            message = f"{exc}; send a smaller max_tokens, or a larger x-frugal-max-usd"
            return CeilingTooLow(message, param="x-frugal-max-usd")
        is_too_long = any(skip.reason in ("context", "max_output") for skip in entry.skipped)
        return InvalidRequest(
            str(exc), code="context_length_exceeded" if is_too_long else "unsupported"
        )
    waits = [f.retry_after for f in failures if f.retry_after is not None]
    return NoModelAvailable(str(exc), retry_after=waits[0] if waits else None)
