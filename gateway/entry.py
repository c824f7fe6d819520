"""The account of one request while it is under way: its attempts, its path, its cost."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

from gateway.access.keys import Caller
from gateway.access.permit import Permit
from gateway.attempt import Attempt, Purpose, Spent, Tariff
from gateway.clock import Clock
from gateway.errors import GatewayError, ProviderError
from gateway.features import Features
from gateway.money import records
from gateway.money.price import cost, to_nano
from gateway.money.prices import PriceBook
from gateway.money.records import AttemptRecord, EntryRecord
from gateway.money.usage import NOTHING, Usage, total_usage
from gateway.request import ChatRequest
from gateway.telemetry.context import TraceContext
from policies.rules import RequestFacts
from policies.schema import Route
from router.types import Skip

CacheState = Literal["exact", "semantic", "miss", "bypass"]
_SERVING = ("serve", "control")
_ZERO = Decimal(0)


class Entry:
    """One request in the ledger, from its admission to its settlement."""

    def __init__(
        self, request: ChatRequest, caller: Caller, route_name: str, route: Route, clock: Clock
    ) -> None:
        self.request = request
        self.caller = caller
        self.route_name = route_name
        self.route = route
        self.cache: CacheState = "miss"
        self.age_s: int | None = None
        self.similarity: float | None = None
        self.features: Features | None = None
        self.attempts: list[Attempt] = []
        self.skipped: Sequence[Skip] = ()
        self.served: Attempt | None = None
        self.cached_model = ""
        self.cached_path = ""
        self.cached_usage: Usage | None = None
        self.status = 200
        self.error: str | None = None
        self.state: Literal["settled", "abandoned", "failed"] = "settled"
        self.cost_nano = 0
        self.saved_nano = 0
        self.is_refused = False
        self.is_first = False
        self.is_replay = False
        self.own_account: records.Purpose | None = None
        self.only: str | None = None
        self.is_drawn = False
        self.permit: Permit | None = None
        self.refusal: GatewayError | None = None
        self.left_out: frozenset[str] = frozenset()
        self._asked: dict[str, set[str]] = {}
        self._facts: RequestFacts | None = None
        self._settled_path: str | None = None
        self.trace: TraceContext | None = None
        self._clock = clock
        self._started_at = clock.wall()
        self._started = clock.tick()
        self._first: float | None = None

    def attempt(self, model: str, *, purpose: Purpose = "serve", why: str = "tier") -> Attempt:
        """Begin an attempt."""
        attempt = Attempt(model, purpose, why, self._clock)
        attempt.seq = len(self.attempts)
        self.attempts.append(attempt)
        return attempt

    def lost(self, attempt: Attempt, exc: ProviderError) -> Attempt:
        """Begin an attempt's call again: what was sent of it in vain becomes one before it."""
        lost = Attempt(attempt.model, attempt.purpose, attempt.why, self._clock)
        lost.seq = len(self.attempts)
        lost.take_place_of(attempt, exc)
        self.attempts.insert(self.attempts.index(attempt), lost)
        return lost

    def began_after_s(self, attempt: Attempt) -> float:
        """Return how long after the request an attempt began, in seconds."""
        return max(0.0, attempt.started - self._started)

    def drop(self, attempt: Attempt) -> None:
        """Forget the last attempt, which was not made after all."""
        self.attempts.remove(attempt)
        if self.served is attempt:
            self.served = None

    def ended_lines(self, tariff: Tariff) -> tuple[AttemptRecord, ...]:
        """Return the ledger lines of the attempts that are over by now."""
        return tuple(
            _line(self, each, each.spent(tariff, self.request), tariff)
            for each in self.attempts
            if each.is_over
        )

    def most_nano(self, tariff: Tariff) -> int:
        """Return the most that the calls so far may cost, those under way at their longest."""
        return sum(
            to_nano(each.spent(tariff, self.request).upper) if each.is_over else each.most_nano
            for each in self.attempts
        )

    def serve(self, attempt: Attempt) -> None:
        """Say whose answer the client gets."""
        attempt.has_been_served = True
        self.served = attempt

    def mark_first(self) -> None:
        """Take note that the first byte of the answer is about to leave."""
        if self._first is None:
            self._first = self._clock.tick()

    @property
    def facts(self) -> RequestFacts:
        """Return what routing may know of the request, computed once."""
        if self._facts is None:
            self._facts = self.request.facts(self.caller)
        return self._facts

    @property
    def tried(self) -> list[Attempt]:
        """Return the attempts that were meant to serve, in order; of retried ones the last."""
        return [a for a in self.attempts if a.purpose in _SERVING and not a.is_superseded]

    def superseded(self, model: str) -> list[Attempt]:
        """Return the attempts at a model that failed and were repeated, in order."""
        return [a for a in self.attempts if a.is_superseded and a.model == model]

    def asked(self, model: str) -> set[str]:
        """Return the deployments of a model that this request was sent to, to be added to."""
        return self._asked.setdefault(model, set())

    def replay(self) -> None:
        """Take note that the answer is that of the same request, sent before."""
        self.is_replay = True
        self.cache, self.age_s, self.similarity = "bypass", None, None

    def abandon(self) -> None:
        """Close with the client gone."""
        self.state = "abandoned"
        self.status = 499

    def fail(self, exc: GatewayError) -> None:
        """Close with an error in place of an answer, or after part of one."""
        self.is_refused = exc.is_refusal and not self.attempts
        self.state = "failed"
        self.status = exc.status
        self.error = exc.code or exc.type

    @property
    def started_at(self) -> float:
        """Return when the request came in, in seconds since the epoch."""
        return self._started_at

    @property
    def model(self) -> str:
        """Return the model whose answer the client gets."""
        return self.served.model if self.served else self.cached_model

    @property
    def reference_model(self) -> str:
        """Return what savings are measured against."""
        return self.route.cascade.reference_model if self.route.cascade else self.model

    @property
    def path(self) -> str:
        """Return the models met on the way and what became of each."""
        if self._settled_path is not None:
            return self._settled_path
        if self.is_replay or self.cache in ("exact", "semantic"):
            return self.cached_path
        skipped = [f"{skip.model}:{skip.reason}:skipped" for skip in self.skipped]
        shown = [a for a in self.attempts if a.purpose in _SERVING or _has_won(a)]
        return ",".join(skipped + [attempt.segment() for attempt in shown])

    @property
    def is_keepable(self) -> bool:
        """Return whether the answer may be cached: complete, accepted, no fallback."""
        served = self.served
        return (
            self.state == "settled"
            and served is not None
            and served.is_complete
            and served.why != "fallback"
            and (self.permit is None or self.permit.cheapest is None)
            and (served.verdict is None or served.verdict.accepted)
            and served.finish_reason != "content_filter"
            and not any(attempt.error for attempt in self.tried)
        )

    def settle(self, tariff: Tariff) -> tuple[EntryRecord, list[AttemptRecord]]:
        """Add up what the request cost and return its ledger lines."""
        if not self.attempts:
            if self.state == "settled":
                self.saved_nano = to_nano(self._list_price(tariff.prices, _ZERO))
            return self._record(NOTHING, 0, 0), []
        spent = [attempt.spent(tariff, self.request) for attempt in self.attempts]
        cost = sum((s.cost for s in spent), _ZERO)
        self.cost_nano = to_nano(cost)
        if self.state == "settled":
            self.saved_nano = to_nano(self._list_price(tariff.prices, cost) - cost)
        lines = [
            _line(self, attempt, money, tariff)
            for attempt, money in zip(self.attempts, spent, strict=True)
        ]
        usage = total_usage([s.usage for s in spent])
        if not usage.estimated:
            return self._record(usage, self.cost_nano, self.cost_nano), lines
        lower = to_nano(sum((s.lower for s in spent), _ZERO))
        upper = to_nano(sum((s.upper for s in spent), _ZERO))
        return self._record(usage, lower, upper), lines

    def _list_price(self, prices: PriceBook, paid: Decimal) -> Decimal:
        """Return what the reference model would have charged for the answer; `paid` if unknown."""
        usage = self.served.usage if self.served else self.cached_usage
        if usage is None or self.is_replay:
            return paid
        price = prices.for_model(self.reference_model)
        return paid if price.is_hourly else cost(usage, price)

    def _record(self, usage: Usage, lower: int, upper: int) -> EntryRecord:
        request, caller, model = self.request, self.caller, self.model
        tags = caller.tags | request.tags
        self._settled_path = self.path
        return EntryRecord(
            request_id=request.id,
            started_at_us=int(self._started_at * 1_000_000),
            state=self.state,
            tenant=caller.tenant,
            key=caller.key,
            tags=tuple(sorted(tags)) if tags else (),
            route=self.route_name,
            model=model,
            requested_model=request.model,
            cache=self.cache,
            path=self._settled_path,
            stream=request.stream,
            status=self.status,
            usage=usage,
            cost_nano_usd=self.cost_nano,
            saved_nano_usd=self.saved_nano,
            reference_model=self.route.cascade.reference_model if self.route.cascade else model,
            estimated=usage.estimated,
            lower_nano_usd=lower,
            upper_nano_usd=upper,
            latency_us=int((self._clock.tick() - self._started) * 1_000_000),
            ttft_us=None if self._first is None else int((self._first - self._started) * 1e6),
            error=self.error,
        )


def _has_won(attempt: Attempt) -> bool:
    return attempt.purpose == "hedge" and attempt.has_been_served


def _line(entry: Entry, attempt: Attempt, money: Spent, tariff: Tariff) -> AttemptRecord:
    price = tariff.prices.for_model(attempt.model)
    reason = attempt.verdict.reason if attempt.verdict else attempt.reason
    if attempt.choice:
        reason = f"{attempt.choice}; {reason}" if reason else attempt.choice
    return AttemptRecord(
        request_id=entry.request.id,
        seq=attempt.seq,
        model=attempt.model,
        provider=tariff.providers.get(attempt.model, ""),
        purpose=attempt.purpose,
        payer=entry.caller.tenant,
        outcome=_outcome(entry, attempt),
        confidence=attempt.verdict.confidence if attempt.verdict else None,
        reason=reason,
        usage=money.usage,
        cost_nano_usd=to_nano(money.cost),
        lower_nano_usd=to_nano(money.lower),
        upper_nano_usd=to_nano(money.upper),
        latency_us=int(attempt.latency_s * 1_000_000),
        ttft_us=None if attempt.first_s is None else int(attempt.first_s * 1_000_000),
        price_source=price.source,
        price_dated=price.dated.isoformat() if price.dated else None,
        began_us=int((attempt._started - entry._started) * 1_000_000),
    )


def _outcome(entry: Entry, attempt: Attempt) -> str:
    if attempt.error is not None:
        return attempt.error
    if attempt.verdict is not None and not attempt.verdict.accepted:
        return "rejected" if attempt.is_complete else "rejected_early"
    is_used = attempt.has_been_served or attempt.purpose == "judge"
    return "accepted" if attempt.is_complete and is_used else "abandoned"
