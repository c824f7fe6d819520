"""The account of one request while it is under way: its attempts, its path, its cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from gateway.access.keys import Caller
from gateway.access.permit import Permit
from gateway.errors import GatewayError, ProviderError
from gateway.features import Features
from gateway.money import records
from gateway.money.bounds import least_usd, rates_of
from gateway.money.estimate import estimate_usage, is_beyond_belief
from gateway.money.price import cost, from_nano, to_nano
from gateway.money.prices import PriceBook
from gateway.money.records import AttemptRecord, EntryRecord
from gateway.money.usage import NOTHING, Usage, total_usage
from gateway.request import ChatRequest
from gateway.telemetry.context import TraceContext
from gateway.tool_calls import calls_of
from gateway.wire import Part
from policies.rules import RequestFacts
from policies.schema import Route
from router.types import Draft, Skip, TokenStats, Tried, Verdict
from router.validators import ToolCall

Purpose = Literal["serve", "control", "judge", "hedge"]
CacheState = Literal["exact", "semantic", "miss", "bypass"]
_SERVING = ("serve", "control")
_WAYS = {"tier": "served", "stay": "stayed"}
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Clock:
    """Where time comes from: `wall` in seconds since the epoch, `tick` monotonic seconds."""

    wall: Callable[[], float] = time.time
    tick: Callable[[], float] = time.perf_counter


@dataclass(frozen=True, slots=True)
class Tariff:
    """What an account is settled by: prices, the longest answers in tokens, who provides.

    `plain` are the models all of whose tokens are seen.
    """

    prices: PriceBook
    max_output: Mapping[str, int | None]
    providers: Mapping[str, str] = field(default_factory=dict)
    plain: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Spent:
    """What one attempt used and cost, with bounds where the count is our own."""

    usage: Usage
    cost: Decimal
    lower: Decimal
    upper: Decimal


class Attempt:
    """One call to one model: what it said, used and cost, and how it ended."""

    def __init__(self, model: str, purpose: Purpose, why: str, clock: Clock) -> None:
        self.model = model
        self.purpose = purpose
        self.why = why
        self.seq = 0
        self.parts: list[Part] = []
        self.usage: Usage | None = None
        self.verdict: Verdict | None = None
        self.error: str | None = None
        self.failure: ProviderError | None = None
        self.reason = ""
        self.choice = ""
        self.is_complete = False
        self.is_superseded = False
        self.is_outrun = False
        self.has_been_served = False
        self.is_stream = False
        self.finish_reason: str | None = None
        self.answered_by: str | None = None
        self.span_id = 0
        self.most_nano = 0
        self._stats: list[TokenStats] = []
        self._counted = 0
        self._look_at = 1
        self._texts: list[str] = []
        self._tool_calls = 0
        self._call_data: list[bytes] = []
        self._clock = clock
        self._started = clock.tick()
        self._first: float | None = None
        self._ended: float | None = None

    def see(self, part: Part) -> None:
        """Take note of one part as it arrives."""
        if self._first is None:
            self._first = self._clock.tick()
        if part.text:
            self._texts.append(part.text)
        if part.usage is not None:
            self.usage = part.usage
        if part.stats is not None:
            self._stats.append(part.stats)
            self._counted += part.stats.count
        elif part.text:
            self._counted += 1
        if part.finish_reason is not None:
            self.finish_reason = part.finish_reason
        if part.model is not None:
            self.answered_by = part.model
        self._tool_calls += part.tool_calls
        if self._tool_calls:
            self._call_data.append(part.data)

    def hold(self, part: Part) -> None:
        """Keep a part of a draft that may never be served."""
        self.see(part)
        self.parts.append(part)

    def end(self) -> None:
        """Close the attempt with its answer complete."""
        self._ended = self._clock.tick()
        self.is_complete = True

    def reject_early(self, verdict: Verdict) -> None:
        """Close the attempt with its answer cut short by us."""
        self._ended = self._clock.tick()
        self.verdict = verdict

    def fail(self, exc: ProviderError) -> None:
        """Close the attempt with the upstream's failure."""
        self._ended = self._clock.tick()
        self.error = exc.word
        self.failure = exc
        self.reason = exc.message

    def take_place_of(self, other: Attempt, exc: ProviderError) -> None:
        """Be the beginning of another attempt, which failed and is made again."""
        self._started = other._started
        self.is_stream = other.is_stream
        self.is_superseded = True
        self.fail(exc)

    def lose(self) -> None:
        """Close the attempt, unless it has failed, since another one began its answer first."""
        self.has_been_served = False
        if self.error is None:
            self._ended = self._clock.tick()
            self.is_outrun = True
            self.reason = "another attempt began first"

    @property
    def is_over(self) -> bool:
        """Return whether it has ended, however it did."""
        return self._ended is not None

    @property
    def has_begun(self) -> bool:
        """Return whether any part has arrived."""
        return self._first is not None

    @property
    def text(self) -> str:
        """Return the words of the answer so far."""
        return "".join(self._texts)

    @property
    def stats(self) -> TokenStats | None:
        """Return the statistics of all tokens so far."""
        if len(self._stats) <= 1:
            return self._stats[0] if self._stats else None
        return TokenStats(
            logprobs=tuple(x for s in self._stats for x in s.logprobs),
            margins=tuple(x for s in self._stats for x in s.margins),
            entropies=tuple(x for s in self._stats for x in s.entropies),
            source=self._stats[0].source,
        )

    @property
    def has_tool_calls(self) -> bool:
        """Return whether the answer so far calls tools."""
        return self._tool_calls > 0

    @property
    def calls(self) -> Sequence[ToolCall]:
        """Return the tool calls of the answer so far; none where they cannot be read."""
        return calls_of(self._call_data) if self._call_data else ()

    @property
    def seen(self) -> int:
        """Return how many tokens have come, or pieces of text where nobody counts tokens."""
        return self._counted

    def is_worth_a_look(self) -> bool:
        """Return whether enough has come since the last look, so that looks stay few."""
        count = self._counted
        if count < self._look_at:
            return False
        self._look_at = count + 1 + count // 8
        return True

    def draft(self) -> Draft:
        """Return the answer as the router judges it."""
        return Draft(
            self.model, self.text, self.finish_reason, self._tool_calls, self.stats, self.calls
        )

    def as_tried(self) -> Tried:
        """Return the attempt as the plan needs to know it."""
        return Tried(self.model, self.verdict, self.error)

    def segment(self) -> str:
        """Return this attempt's word in `x-frugal-path`."""
        if self.error is not None:
            return f"{self.model}:{self.error}:{'retried' if self.is_superseded else 'failed'}"
        if self.verdict is None:
            return f"{self.model}:{self._way_word()}"
        sure = self.verdict.confidence
        number = f"{sure:.2f}" if sure is not None else "-"
        return f"{self.model}:{number}:{self._outcome_word(self.verdict)}"

    def _way_word(self) -> str:
        if self.is_outrun:
            return "outrun"
        if self.purpose == "hedge":
            return "hedged"
        return _WAYS.get(self.why, self.why)

    def _outcome_word(self, verdict: Verdict) -> str:
        if self.has_been_served:
            return "accepted" if verdict.accepted else "degraded"
        return "escalated" if self.is_complete else "escalated_early"

    @property
    def started(self) -> float:
        """Return when the attempt began, in the clock's monotonic seconds."""
        return self._started

    @property
    def age_s(self) -> float:
        """Return how long ago the attempt began, in seconds."""
        return self._clock.tick() - self._started

    @property
    def latency_s(self) -> float:
        """Return how long the attempt took, in seconds."""
        return (self._ended or self._clock.tick()) - self._started

    @property
    def first_s(self) -> float | None:
        """Return the time to the first part, in seconds."""
        return None if self._first is None else self._first - self._started

    def spent(self, tariff: Tariff, request: ChatRequest) -> Spent:
        """Return usage and cost; counted by ourselves, with bounds, where nobody reported it."""
        price = tariff.prices.for_model(self.model)
        self._doubt(request)
        if self.usage is not None:
            exact = cost(self.usage, price)
            return Spent(self.usage, exact, exact, exact)
        if self.failure is not None and not (self.has_begun or self.failure.may_be_billed):
            return Spent(NOTHING, _ZERO, _ZERO, _ZERO)
        own = estimate_usage(
            request.body,
            self.text,
            is_complete=self.is_complete,
            may_reason=self.model not in tariff.plain,
            max_output=tariff.max_output.get(self.model),
            elapsed_s=self.latency_s if price.is_hourly else 0.0,
        )
        # Which bucket the tokens would be billed in is not known either: the dearest bounds them.
        most = rates_of(price, any_service=request.asks_service).most_nano(
            own.upper.input,
            own.upper.output,
            own.upper.compute_s,
            is_rich=request.is_rich,
            is_spoken="modalities" in request.body,
        )
        upper = from_nano(most)
        if self.has_begun:
            lower = least_usd(own.lower.input, own.lower.output, price)
            return Spent(own.usage, cost(own.usage, price), lower, upper)
        # Nothing came: the upstream may have made, and may bill, all of an answer or none.
        usage = Usage(estimated=True) if self.failure is not None else own.usage
        return Spent(usage, cost(usage, price), _ZERO, upper)

    def _doubt(self, request: ChatRequest) -> None:
        """Give up a report that cannot be true; what images and files come to, we cannot know."""
        told = self.usage
        if told is not None and is_beyond_belief(told, request.size) and not request.is_rich:
            self.usage = None


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
