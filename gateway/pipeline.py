"""The request's way, readable from top to bottom: look up, cascade, settle, remember.

Deciding belongs to the router, the caches and the price book; here it is done.
No socket is seen from here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import msgspec

from cache.exact import ExactCache, Seat
from cache.fingerprint import fingerprint
from cache.freshness import ANY_AGE, Bounds, Freshness
from cache.types import CachedReply, FellBehind
from gateway.access.accounts import priority_of
from gateway.access.admission import Admission
from gateway.access.ceiling import too_dear
from gateway.access.keys import Caller, KeyRing
from gateway.access.refused import Refusals
from gateway.access.worst_case import WorstCase, longest_answer
from gateway.affinity import Affinity
from gateway.alerts import Alerting
from gateway.attempt import Tariff
from gateway.cascading import Cascading
from gateway.clock import Clock
from gateway.entry import Entry
from gateway.errors import (
    GatewayError,
    LedgerUnavailable,
    ReadTooSlowly,
    UnknownModel,
)
from gateway.features import Embedding
from gateway.intending import Intending
from gateway.learning.observing import Observer
from gateway.money.ledger import Ledger, LedgerError
from gateway.money.prices import PriceBook, capabilities_of
from gateway.money.records import AttemptRecord, EntryRecord
from gateway.own_calls import CallsOfOurOwn
from gateway.released import Released, cached, followed, replayed, size_of
from gateway.repeats import Repeats
from gateway.reply import Reply
from gateway.request import ChatRequest
from gateway.resilience.resilience import Resilience
from gateway.resilience.shed import Shedding
from gateway.semantic import NearAnswers
from gateway.sharing import Place, place_of
from gateway.telemetry.traces import Tracing
from gateway.wire import Part, Provider
from policies.rules import first_match
from policies.schema import ExactCache as ExactRules
from policies.schema import Policy
from router.learned import LearnedRouter
from router.types import Router

_LEAST_WORTH = 1e-6  # dollars: even a free answer takes a call and its time
_MAX_RENEWALS = 64
_MAX_NAMES = 64  # of one body, under as many tenants
Lead = Callable[[Entry, Seat[Released]], AsyncGenerator[Part, None]]
"""Makes the answer that others may share."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a pipeline is made of; each is handed in, so a test hands in its own."""

    policy: Policy
    keys: KeyRing
    routers: Mapping[str, Router]
    providers: Mapping[str, Provider]
    prices: PriceBook
    exact: ExactCache[Released]
    ledger: Ledger
    clock: Clock
    admission: Admission | None = None
    shedding: Shedding | None = None
    resilience: Resilience | None = None
    near: NearAnswers | None = None
    repeats: Repeats | None = None
    refusals: Refusals = field(default_factory=Refusals)
    embedding: Embedding | None = None
    observer: Observer | None = None
    tracing: Tracing | None = None
    alerting: Alerting | None = None
    tell: Callable[[EntryRecord], None] | None = None


class Pipeline:
    """One policy at work. A reload makes another; a request keeps the one it began with."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.policy = parts.policy
        self.keys = parts.keys
        self.under_way = 0
        self.refusals = parts.refusals
        self._repeats = parts.repeats
        models = parts.policy.models
        self._capabilities = {name: capabilities_of(model, name) for name, model in models.items()}
        self._tariff = Tariff(
            parts.prices,
            {name: longest_answer(able) for name, able in self._capabilities.items()},
            {name: model.provider for name, model in models.items()},
            frozenset(name for name, able in self._capabilities.items() if able.reasoning is False),
        )
        self._intending = Intending(
            parts.ledger,
            self._tariff,
            self._capabilities,
            parts.clock,
        )
        self._worst = WorstCase(parts.prices, self._capabilities)
        self._exact = parts.exact
        self.near = parts.near
        self._affinity = Affinity(parts.policy, parts.prices, parts.clock)
        self._cascading = Cascading(
            parts.policy,
            parts.routers,
            parts.providers,
            parts.resilience or Resilience(parts.clock),
            parts.admission,
            self._intending,
            parts.embedding,
            observer=parts.observer,
            affinity=self._affinity,
        )
        self.early = self._cascading.early
        self._made = self._cascading.run if parts.near is None else self._near_or_made
        self._rates: dict[str, tuple[float, float]] = {}
        self._fresh: dict[int, Freshness] = {}
        self._renewals: set[asyncio.Task[None]] = set()
        self._holds_abandoned = parts.policy.limits.abandoned == "most"
        self._paced = {
            name: router
            for name, router in parts.routers.items()
            if isinstance(router, LearnedRouter)
        }
        self._ledger = parts.ledger
        self._observer = parts.observer
        self._tracing = parts.tracing
        self._tell = parts.tell
        self._admission = parts.admission
        self._shedding = parts.shedding
        self._clock = parts.clock
        self._routes = {
            name: route
            for name in {*parts.policy.routes, *parts.policy.models}
            if (route := parts.policy.route_for(name)) is not None
        }
        self._own_calls = CallsOfOurOwn(
            self._cascading.run, parts.ledger, self._routes, parts.clock, lambda: self._tariff
        )
        self._revisions = {name: parts.policy.revision(name) for name in self._routes}
        self._placed = {
            name for name, route in self._routes.items() if route.has_corpora or route.rules
        }

    def use_prices(self, prices: PriceBook) -> None:
        """Settle what ends from now on by other prices: a dated price has changed."""
        self._tariff = replace(self._tariff, prices=prices)
        self._intending.use(self._tariff)
        self._affinity.use(prices)
        self._worst = WorstCase(prices, self._capabilities)
        self._rates.clear()
        if self._admission is not None:
            self._admission.use_prices(prices)

    def open(self, request: ChatRequest, caller: Caller) -> Reply:
        """Admit a request and take its seat at the exact cache.

        Raises UnknownModel, Forbidden, Overloaded or LedgerUnavailable.
        """
        route = self._routes.get(request.model)
        if route is None:
            names = ", ".join(sorted(self._routes))
            raise UnknownModel(
                f"no route or model is called {request.model!r}; there are: {names}", param="model"
            )
        caller.require(request.model)
        if self._shedding is not None:
            self._shedding.check(priority_of(self.policy.limits, caller, route))
        if not self._ledger.is_healthy:
            raise LedgerUnavailable("the ledger cannot be written; try again shortly")
        entry = Entry(request, caller, request.model, route, self._clock)
        if self._tracing is not None:
            entry.trace = self._tracing.begin(request.headers)
        if request.max_nano_usd is not None:
            entry.left_out = too_dear(
                self._worst, request, route, entry.facts, request.max_nano_usd
            )
        # A request that may be a repetition sits at the cache only once it is known to be none.
        return Reply(self, entry, None if self._may_repeat(entry) else self._seat(entry))

    def _may_repeat(self, entry: Entry) -> bool:
        return entry.request.repeat_key is not None and self._repeats is not None

    def _seat(self, entry: Entry) -> Seat[Released] | None:
        request = entry.request
        rules = self._cache_rules(entry)
        if rules is None or request.cache in ("off", "no-store"):
            entry.cache = "bypass"
            return None
        key = self._key(entry)
        if request.cache == "refresh":
            self._exact.drop(key)
        freshness = self._freshness(rules, request.bounds)
        skips = request.cache == "refresh"
        seat = self._exact.seat(key, freshness, max_entry=rules.max_entry, skips=skips)
        # With fewer models than others have, it leads nobody.
        return None if entry.left_out and seat.hit is None else seat

    def _cache_rules(self, entry: Entry) -> ExactRules | None:
        route = entry.route
        return route.exact_cache(first_match(route.rules, entry.facts) if route.rules else None)

    def _freshness(self, rules: ExactRules, bounds: Bounds) -> Freshness:
        if bounds is not ANY_AGE:
            return Freshness(rules.ttl, rules.stale, bounds)
        known = self._fresh.get(id(rules))  # the policy keeps them, so none takes the id of another
        if known is None:
            known = self._fresh[id(rules)] = Freshness(rules.ttl, rules.stale)
        return known

    def _key(self, entry: Entry) -> bytes:
        asked, tenant = entry.request.asked, entry.caller.tenant
        revision = self._revisions[entry.route_name]
        if (place := self._place(entry)) is not None:
            revision = place.revision
            if place.corpus is not None:
                name = entry.route_name
                return fingerprint("", name, revision, asked.body, corpus=place.corpus)
        known = asked.fingerprints.get((tenant, revision))
        if known is None:
            known = fingerprint(tenant, entry.route_name, revision, asked.body)
            if len(asked.fingerprints) < _MAX_NAMES:
                asked.fingerprints[tenant, revision] = known
        return known

    def _place(self, entry: Entry) -> Place | None:
        """Return where an answer is kept that not all of its route's requests may share."""
        name = entry.route_name
        if name not in self._placed:
            return None
        return place_of(entry.route, self._revisions[name], entry.facts)

    def _kept(self, released: Sequence[Part], entry: Entry) -> CachedReply:
        """Return an answer as the exact and the semantic cache keep it."""
        place = self._place(entry)
        is_shared = place is not None and place.corpus is not None
        return cached(released, entry, self._clock, self._worth(entry), is_shared=is_shared)

    @property
    def admits_at_once(self) -> bool:
        """Return whether a hit's limits, if there are any, are in this process's memory."""
        return self._admission is None or self._admission.is_immediate

    async def replay(self, entry: Entry, seat: Seat[Released]) -> Sequence[Part]:
        """Serve a hit: account for it, and return its parts."""
        if self._admission is not None:
            await self._let_in(entry, self._admission)
        with seat:
            assert seat.hit is not None, "only a hit is replayed"
            self._renew_if_stale(entry, seat)
            parts = replayed(seat.hit, entry, self._clock)
            entry.mark_first()
            await self._settle(entry)
        wants_usage = entry.request.include_usage
        return [part for part in parts if wants_usage or not part.is_usage_only]

    async def told(self, entry: Entry, seat: Seat[Released]) -> Sequence[Part] | None:
        """Serve what other processes have an answer of, else return None.

        The seat is held then: `answer` goes on with it.
        """
        if self._admission is not None:
            await self._let_in(entry, self._admission)
        seat.hold()
        try:
            if seat.may_look_further:
                await seat.look_further()
        except BaseException as exc:
            seat.let_go(exc)
            if isinstance(exc, asyncio.CancelledError):
                entry.abandon()
            else:
                entry.fail(GatewayError("the gateway failed; see its log"))
            await self._settle(entry)
            raise
        return await self.replay(entry, seat) if seat.hit is not None else None

    async def answer(self, entry: Entry, seat: Seat[Released] | None) -> AsyncGenerator[Part, None]:
        """Answer one request and account for it.

        Once the generator has ended, the entry is durable in the ledger.
        """
        self.under_way += 1
        try:
            if self._admission is not None:
                await self._let_in_to_work(entry, seat, self._admission)
            parts = self._source(entry, seat)
            try:  # as `aclosing` does, which costs more than what it does: here and below
                async for part in parts:
                    entry.mark_first()
                    if not part.is_usage_only or entry.request.include_usage:
                        yield part
            finally:
                await parts.aclose()
        except GatewayError as exc:
            entry.fail(exc)
            raise
        except FellBehind as exc:
            slow = ReadTooSlowly(str(exc))
            entry.fail(slow)
            raise slow from exc
        except (asyncio.CancelledError, GeneratorExit):
            entry.abandon()
            raise
        except Exception:
            entry.fail(GatewayError("the gateway failed; see its log"))
            raise
        finally:
            self.under_way -= 1
            if seat is not None:
                seat.let_go()  # where it was refused before its turn
            await self._settle(entry)

    async def _let_in_to_work(
        self, entry: Entry, seat: Seat[Released] | None, admission: Admission
    ) -> None:
        """Take what a request takes at once; if others may have its answer, the rest once it leads.

        Nobody here comes between a request that finds itself alone and its lead.
        Other processes may know the answer; asking for all ahead spares a second way to them.
        """
        may_be_told = self.near is not None or self._may_repeat(entry)
        if seat is not None and not may_be_told:
            if seat.is_alone and admission.admit_now(entry):
                return
            if seat.may_ask_others and admission.has_plenty(entry):
                seat.hold()  # so that equal requests wait behind this one, and ask for nothing
                if await admission.admit_ahead(entry):
                    return
        await admission.admit(entry, is_free=may_be_told or seat is not None)

    def _source(self, entry: Entry, seat: Seat[Released] | None) -> AsyncGenerator[Part, None]:
        if self._may_repeat(entry):
            return self._once(entry)
        return self._shared(entry, seat, self._lead) if seat else self._made(entry)

    async def _let_in(self, entry: Entry, admission: Admission) -> None:
        """Take what a hit takes of its caller's limits; a refusal is counted."""
        try:
            await admission.admit(entry, is_free=True)
        except GatewayError as exc:
            entry.fail(exc)
            await self._settle(entry)
            raise

    async def _is_refused(self, entry: Entry) -> bool:
        """Set aside what the request may use; where it may not, the entry says why."""
        if self._admission is not None:
            try:
                await self._admission.admit(entry)
            except GatewayError as exc:
                entry.refusal = exc
        return entry.refusal is not None

    async def _settle(self, entry: Entry) -> None:
        if entry.is_refused:
            self.refusals.count(entry.error or "", entry.caller.tenant, entry.caller.key)
            if entry.permit is not None:
                entry.permit.close(tokens=0, nano_usd=0)
            if self._tracing is not None or self._tell is not None:
                self._account(entry, *entry.settle(self._tariff))
            return
        record, lines = entry.settle(self._tariff)
        if self._tracing is not None or self._tell is not None:
            self._account(entry, record, lines)
        try:
            await self._ledger.write(record, lines)
            if self._observer is not None:
                self._observer.note(entry, lines, self._own_calls)
        except LedgerError as exc:
            raise LedgerUnavailable("the ledger could not be written; nothing was served") from exc
        finally:
            if entry.permit is not None:
                held = record.held_nano_usd(abandoned_at_most=self._holds_abandoned)
                entry.permit.close(tokens=record.usage.total, nano_usd=held)
            if self._paced:
                self._pace(entry.route_name, record.cost_nano_usd)

    def _account(self, entry: Entry, record: EntryRecord, lines: Sequence[AttemptRecord]) -> None:
        """Tell whoever follows single requests, beside the ledger."""
        trace = entry.trace
        if self._tracing is not None and trace is not None and trace.is_sampled:
            self._tracing.note(entry, trace, record, lines)
        if self._tell is not None:
            self._tell(record)

    def _pace(self, route: str, nano_usd: int) -> None:
        """Tell a route that is to keep to a budget what a request of it has cost."""
        if (router := self._paced.get(route)) is not None and (spent := router.spent) is not None:
            spent(nano_usd / 1e9)

    async def _once(self, entry: Entry) -> AsyncGenerator[Part, None]:
        """Answer what may be a repetition: with what the first one got, or as the first one."""
        assert self._repeats is not None, "only where repetitions are known"
        seat = await self._repeats.seat(entry)
        async with aclosing(self._shared(entry, seat, self._first)) as parts:
            async for part in parts:
                if not entry.is_first:
                    entry.replay()
                yield part

    async def _first(self, entry: Entry, seat: Seat[Released]) -> AsyncGenerator[Part, None]:
        """Answer the first of what may be several equal requests, and keep the answer for them."""
        assert self._repeats is not None, "only where repetitions are known"
        async with self._repeats.turn(entry) as kept:
            if kept is None:
                source = self._first_here(entry, seat)
            else:
                self._repeats.pass_on(seat, kept)
                source = _these(replayed(kept, entry, self._clock))
            async with aclosing(source) as parts:
                async for part in parts:
                    yield part

    async def _first_here(self, entry: Entry, seat: Seat[Released]) -> AsyncGenerator[Part, None]:
        assert self._repeats is not None, "only where repetitions are known"
        entry.is_first = True
        inner = self._seat(entry)
        if inner is None and self.near is None and await self._is_refused(entry):
            return
        source = self._shared(entry, inner, self._lead) if inner else self._made(entry)
        released: list[Part] = []
        async with aclosing(source) as parts:
            async for part in parts:
                seat.publish(Released(part, entry))
                released.append(part)
                yield part
        if released:
            reply = cached(released, entry, self._clock, self._worth(entry))
            await self._repeats.keep(entry, seat, reply)

    async def _shared(
        self, entry: Entry, seat: Seat[Released], lead: Lead
    ) -> AsyncGenerator[Part, None]:
        """Replay a hit, share the answer of an equal request under way, or lead for others."""
        with seat:
            while seat.may_look_further or seat.is_follower or seat.hit is not None:
                if seat.may_look_further:
                    await seat.look_further()
                elif seat.hit is not None:
                    _spare(entry)
                    self._renew_if_stale(entry, seat)
                    for part in replayed(seat.hit, entry, self._clock):
                        yield part
                    return
                else:
                    _spare(entry)
                    async with aclosing(followed(seat, entry)) as parts:
                        async for part in parts:
                            yield part
                    if not seat.was_promoted:
                        return
            paced = seat.paced(lead(entry, seat), size_of)
            try:
                async for part in paced:
                    yield part
            finally:
                await paced.aclose()
        if entry.refusal is not None:
            raise entry.refusal

    async def _lead(self, entry: Entry, seat: Seat[Released]) -> AsyncGenerator[Part, None]:
        """Make the answer and let others share it; that we may not is no failure of the answer."""
        if self.near is None and await self._is_refused(entry):
            return
        released: list[Part] = []
        try:
            parts = self._made(entry)
            try:
                async for part in parts:
                    seat.publish(Released(part, entry))
                    released.append(part)
                    yield part
            finally:
                await parts.aclose()
        except GatewayError:
            if entry.refusal is None:
                raise
            return
        if entry.is_keepable and (entry.route_name not in self._placed or self._may_write(entry)):
            seat.keep(self._kept(released, entry))

    def _may_write(self, entry: Entry) -> bool:
        """Return whether an answer may be kept; of those that others are given, not too many."""
        place, rules = self._place(entry), self._cache_rules(entry)
        if place is None or place.corpus is None or rules is None:
            return True
        return self._exact.may_write(entry.caller.tenant, rules.writes_per_minute)

    def _worth(self, entry: Entry) -> float:
        """Return about what it would cost to answer this again, in dollars."""
        worth = _LEAST_WORTH
        for attempt in entry.attempts:
            if attempt.usage is not None:
                a_token_in, a_token_out = self._rate(attempt.model)
                worth += a_token_in * attempt.usage.input + a_token_out * attempt.usage.output
        return worth

    def _rate(self, model: str) -> tuple[float, float]:
        rate = self._rates.get(model)
        if rate is None:
            price = self._tariff.prices.for_model(model)
            rate = self._rates[model] = float(price.input), float(price.output)
        return rate

    def _renew_if_stale(self, entry: Entry, seat: Seat[Released]) -> None:
        """Answer anew behind the back of a client that was served a stale answer."""
        if seat.is_stale and len(self._renewals) < _MAX_RENEWALS:
            key = self._key(entry)
            if not self._exact.is_under_way(key):
                task = asyncio.create_task(self._renew(entry, key))
                self._renewals.add(task)
                task.add_done_callback(self._renewals.discard)

    async def _renew(self, stale: Entry, key: bytes) -> None:
        request = msgspec.structs.replace(
            stale.request, id=f"{stale.request.id}r", cache="refresh", repeat_key=None
        )
        entry = Entry(request, stale.caller, stale.route_name, stale.route, self._clock)
        rules = self._cache_rules(entry)
        if rules is None:
            return
        freshness = Freshness(rules.ttl, rules.stale, request.bounds, only_fresh=True)
        seat = self._exact.seat(key, freshness, max_entry=rules.max_entry)
        try:
            async for _ in self.answer(entry, seat):
                pass
        except GatewayError as exc:
            _log.info("a stale answer of %s could not be renewed: %s", entry.route_name, exc)

    async def aclose(self) -> None:
        """Give up what is done behind clients' backs."""
        for task in self._renewals:
            task.cancel()
        await asyncio.gather(*self._renewals, return_exceptions=True)

    async def _near_or_made(self, entry: Entry) -> AsyncGenerator[Part, None]:
        """Answer with what was said to the same question in other words, else by the cascade."""
        assert self.near is not None, "only a policy with a semantic cache comes here"
        asking = await self.near.ask(entry)
        hit = await self.near.find(entry, asking) if asking else None
        if asking and hit and not hit.is_withheld:
            await self.near.blur(asking)
            for part in self.near.serve(entry, asking, hit, self._own_calls):
                yield part
            return
        if await self._is_refused(entry):
            assert entry.refusal is not None, "it says why"
            raise entry.refusal
        released: list[Part] = []
        async with aclosing(self._cascading.run(entry)) as parts:
            async for part in parts:
                released.append(part)
                yield part
        if asking and entry.is_keepable:
            self.near.learn(entry, asking, hit, self._kept(released, entry), self._own_calls)


def _spare(entry: Entry) -> None:
    """Say nothing of tokens that were set aside for an answer that needed none."""
    if entry.permit is not None:
        entry.permit.tells_tokens = False


async def _these(parts: Iterable[Part]) -> AsyncGenerator[Part, None]:
    for part in parts:
        yield part
