"""What another policy would have made of logged traffic: pure, and honest about its limits.

Each logged request is sent through the new policy's rules and tiers once more. What was
called then is priced anew, by its own tokens; a model that was not called is taken to
read the same prompt and to write as much as the answer that was served. Whether a draft
would have been good enough is known where its confidence was logged and is judged in the
same way; where it is not, both ways are counted, so that costs come as a range.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.money.price import cost, to_nano
from gateway.money.prices import PriceBook, capabilities_of
from gateway.money.usage import Usage
from policies.kinds import LEARNED
from policies.schema import Policy, Route, When
from router.types import Capabilities

_SAME = {"limits", "timeouts", "retries", "breaker", "hedge"}
"""What of a route changes no answer and no price."""
_UNSEEN = ("has_tools", "has_images", "json_schema", "max_tokens_over", "header")
"""Conditions on what the ledger does not keep."""
HITS = ("exact", "semantic")


@dataclass(frozen=True, slots=True)
class LoggedCall:
    """One call that a request led to."""

    model: str
    usage: Usage
    cost_nano_usd: int
    outcome: str
    confidence: float | None
    latency_s: float
    purpose: str = "serve"


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request as the ledger has it; `calls` are those that its tenant paid for."""

    requested_model: str
    tenant: str
    key: str
    tags: frozenset[str]
    stream: bool
    cache: str
    model: str
    cost_nano_usd: int
    saved_nano_usd: int
    latency_s: float
    calls: tuple[LoggedCall, ...] = ()

    @property
    def served(self) -> LoggedCall | None:
        """Return the call whose answer was taken, else the last one with an answer."""
        done = [call for call in self.calls if call.usage.total]
        taken = [call for call in done if call.outcome == "accepted" and call.model == self.model]
        return next(iter(taken or done[::-1]), None)


@dataclass(frozen=True, slots=True)
class Range:
    """Between what and what; equal ends where it is known. `middle` by the rates of the log."""

    low: float = 0.0
    high: float = 0.0
    middle: float | None = 0.0

    def __add__(self, other: Range) -> Range:
        known = self.middle is not None and other.middle is not None
        middle = (self.middle or 0.0) + (other.middle or 0.0) if known else None
        return Range(self.low + other.low, self.high + other.high, middle)

    def or_else(self, other: Range) -> Range:
        """Return what holds where it is not known which of two it is."""
        return Range(min(self.low, other.low), max(self.high, other.high), None)


@dataclass(slots=True)
class RouteOutcome:
    """What becomes of one name that clients asked for. Costs in nano-dollars, seconds a request."""

    name: str
    requests: int = 0
    refused: int = 0
    unsure: int = 0
    now_nano_usd: int = 0
    cost: Range = field(default_factory=Range)
    now_latency_s: float = 0.0
    latency: Range = field(default_factory=Range)
    calls_now: Counter[str] = field(default_factory=Counter)
    calls: dict[str, Range] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Walk:
    """What one way through the tiers costs and takes, and whom it calls how often."""

    cost: Range
    latency: Range
    calls: Mapping[str, Range]


class Replay:
    """Sends logged requests through another policy."""

    def __init__(
        self, old: Policy, new: Policy, prices: PriceBook, made_keys: frozenset[str]
    ) -> None:
        self._old = old
        self._new = new
        self._prices = prices
        self._made_keys = made_keys
        self._able = {name: capabilities_of(model, name) for name, model in new.models.items()}
        self._keys = {key.name: frozenset(key.scopes) for key in new.access.keys}
        self._old_keys = {key.name for key in old.access.keys}

    def run(self, requests: Sequence[LoggedRequest]) -> list[RouteOutcome]:
        """Return what becomes of each name that was asked for, the dearest first."""
        rates, paces = _acceptance(requests), _latencies(requests)
        found: dict[str, RouteOutcome] = {}
        for request in requests:
            name = request.requested_model
            outcome = found.setdefault(name, RouteOutcome(name))
            self._add(outcome, request, rates, paces)
        return sorted(found.values(), key=lambda each: -each.now_nano_usd)

    def _add(
        self,
        outcome: RouteOutcome,
        request: LoggedRequest,
        rates: Mapping[str, float],
        paces: Mapping[str, float],
    ) -> None:
        outcome.requests += 1
        outcome.now_nano_usd += request.cost_nano_usd
        outcome.now_latency_s += request.latency_s
        outcome.calls_now.update(call.model for call in request.calls)
        why = self._refusal(request)
        if why is not None:
            outcome.refused += 1
            outcome.notes[why] += 1
            return
        walk, notes = self._walk(request, rates, paces)
        outcome.cost += walk.cost
        outcome.latency += walk.latency
        outcome.notes.update(notes)
        outcome.unsure += walk.cost.low != walk.cost.high
        for model, times in walk.calls.items():
            outcome.calls[model] = outcome.calls.get(model, Range()) + times

    def _refusal(self, request: LoggedRequest) -> str | None:
        """Return why a request would not be let in, None where it would."""
        name = request.requested_model
        if self._new.route_for(name) is None:
            return f"no route or model is called {name!r} any more"
        scopes = self._keys.get(request.key)
        if scopes is None and request.key in self._old_keys - self._made_keys:
            return f"the key {request.key!r} is gone"
        if scopes and name not in scopes:
            return f"the key {request.key!r} may not use {name!r}"
        return None

    def _walk(
        self, request: LoggedRequest, rates: Mapping[str, float], paces: Mapping[str, float]
    ) -> tuple[Walk, list[str]]:
        name = request.requested_model
        new, old = self._new.route_for(name), self._old.route_for(name)
        assert new is not None, "it would have been refused"
        if request.cache in HITS:
            return self._hit(request, new)
        way = _Way(self._prices, rates, paces, request)
        if old is not None and _same_way(old, new):
            return way.again(), []
        if new.cascade is not None and new.confidence.kind == LEARNED:
            options, notes = [new.tiers], ["a learned route chooses by its bundle: any tier may be"]
            walks = [way.through(order, new, None) for order in _orders(new.tiers)]
        else:
            options, notes = _options(new, request)
            walks = [way.through(self._fit(tiers, request), new, old) for tiers in options]
        found = walks[0]
        for walk in walks[1:]:
            found = _either(found, walk)
        return found, notes + way.notes

    def _hit(self, request: LoggedRequest, new: Route) -> tuple[Walk, list[str]]:
        """Return what a hit costs: nothing, unless its cache is gone."""
        kept = new.cache.exact if request.cache == "exact" else new.cache.semantic
        latency = Range(request.latency_s, request.latency_s, request.latency_s)
        if kept is not None:
            return Walk(Range(), latency, {}), []
        dear = float(max(0, request.saved_nano_usd))
        note = f"a hit of the {request.cache} cache would be a call"
        return Walk(Range(0.0, dear, None), latency, {}), [note]

    def _fit(self, tiers: Sequence[str], request: LoggedRequest) -> tuple[str, ...]:
        """Return the tiers that can take the request; all of them where none could."""
        served = request.served
        if served is None:
            return tuple(tiers)
        fit = tuple(model for model in tiers if _fits(self._able.get(model), served.usage))
        return fit or tuple(tiers)


class _Way:
    """One request's way through tiers, priced."""

    def __init__(
        self,
        prices: PriceBook,
        rates: Mapping[str, float],
        paces: Mapping[str, float],
        request: LoggedRequest,
    ) -> None:
        self._prices = prices
        self._rates = rates
        self._paces = paces
        self._request = request
        self._called = {call.model: call for call in request.calls if call.purpose != "hedge"}
        self.notes: list[str] = []

    def again(self) -> Walk:
        """Return the way that it went, at the new prices."""
        calls = [call for call in self._request.calls if call.model in self._prices.prices]
        nano = float(sum(self._nano(call.model, call.usage) for call in calls))
        took = self._request.latency_s
        counted = Counter(call.model for call in calls)
        return Walk(
            Range(nano, nano, nano),
            Range(took, took, took),
            {model: Range(n, n, n) for model, n in counted.items()},
        )

    def through(self, tiers: Sequence[str], route: Route, old: Route | None) -> Walk:
        """Return the way through some tiers, from the first on."""
        if not tiers:
            return Walk(Range(), Range(), {})
        model, *rest = tiers
        nano, took = self._step(model)
        here = Walk(
            Range(nano, nano, nano),
            Range(took or 0.0, took or 0.0, took),
            {model: Range(1.0, 1.0, 1.0)},
        )
        if not rest:
            return here
        accepted = self._accepted(model, route, old)
        if accepted is True:
            return here
        further = _then(here, self.through(rest, route, old))
        return further if accepted is False else _maybe(here, further, self._rates.get(model))

    def _step(self, model: str) -> tuple[float, float | None]:
        """Return what a call costs in nano-dollars, and takes in seconds where that is known."""
        call = self._called.get(model)
        if call is not None:
            return float(self._nano(model, call.usage)), call.latency_s
        served = self._request.served
        usage = _like(served.usage) if served is not None else Usage()
        if self._prices.for_model(model).is_hourly:
            self.notes.append(f"{model} was not called: what its machine's time costs is not known")
        return float(self._nano(model, usage)), self._paces.get(model)

    def _nano(self, model: str, usage: Usage) -> int:
        return to_nano(cost(usage, self._prices.for_model(model)))

    def _accepted(self, model: str, route: Route, old: Route | None) -> bool | None:
        """Return whether its draft would have been good enough, None where nobody knows."""
        call = self._called.get(model)
        if call is None or old is None or call.confidence is None:
            return None
        new_rules, rules = route.confidence, old.confidence
        if (new_rules.kind, new_rules.quantile, new_rules.second) != (
            rules.kind, rules.quantile, rules.second,
        ):  # fmt: skip
            return None
        if new_rules == rules and call.outcome in ("accepted", "rejected", "rejected_early"):
            return call.outcome == "accepted"
        if new_rules.kind != "logprob" or call.outcome == "rejected_early":
            return None
        return call.confidence >= new_rules.threshold


def _options(route: Route, request: LoggedRequest) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return the tiers that rules may choose: several, where a condition is not to be known."""
    found: list[tuple[str, ...]] = []
    notes: list[str] = []
    for rule in route.rules:
        holds = _holds(rule.when, request)
        if holds is False:
            continue
        found.append((rule.model,) if rule.model else rule.tiers or route.tiers)
        if holds:
            return found, notes
        notes.append("a rule asks for what the ledger does not keep of a request")
    return [*found, route.tiers], notes


def _holds(when: When, request: LoggedRequest) -> bool | None:
    """Return whether a rule's conditions hold, None where that hangs on what was not kept."""
    served = request.served
    size = served.usage.prompt if served is not None else None
    told = {
        "tenant": request.tenant,
        "key": request.key,
        "model": request.requested_model,
        "stream": request.stream,
    }
    for name, value in told.items():
        wanted = getattr(when, name)
        if wanted is not None and wanted != value:
            return False
    if when.tag is not None and when.tag not in request.tags:
        return False
    over, under = when.input_tokens_over, when.input_tokens_under
    if over is not None or under is not None:
        if size is None:
            return None
        if (over is not None and size <= over) or (under is not None and size >= under):
            return False
    return None if any(getattr(when, name) is not None for name in _UNSEEN) else True


def _same_way(old: Route, new: Route) -> bool:
    return old.model_dump(exclude=_SAME) == new.model_dump(exclude=_SAME)


def _orders(tiers: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield what a learned route may do at least and at most: any tier alone, or all of them."""
    for model in tiers:
        yield (model,)
    yield tuple(tiers)


def _fits(able: Capabilities | None, usage: Usage) -> bool:
    if able is None:
        return True
    wrote = usage.output + usage.reasoning
    if able.max_output is not None and wrote > able.max_output:
        return False
    return able.context is None or usage.prompt + wrote <= able.context


def _like(usage: Usage) -> Usage:
    """Return what another model is taken to read and write: as much, nothing of it cached."""
    return Usage(
        input=usage.input + usage.cached_input + usage.cache_write + usage.cache_write_1h,
        output=usage.output + usage.reasoning,
        audio=usage.audio,
        image=usage.image,
        audio_output=usage.audio_output,
    )


def _then(first: Walk, second: Walk) -> Walk:
    calls = dict(first.calls)
    for model, times in second.calls.items():
        calls[model] = calls.get(model, Range()) + times
    return Walk(first.cost + second.cost, first.latency + second.latency, calls)


def _maybe(here: Walk, further: Walk, rate: float | None) -> Walk:
    """Return what holds where it is not known whether the first draft would have done."""

    def mixed(one: Range, other: Range) -> Range:
        known = rate is not None and one.middle is not None and other.middle is not None
        middle = (
            rate * one.middle + (1 - rate) * other.middle  # type: ignore[operator]
            if known
            else None
        )
        return Range(min(one.low, other.low), max(one.high, other.high), middle)

    names = {*here.calls, *further.calls}
    none = Range()
    return Walk(
        mixed(here.cost, further.cost),
        mixed(here.latency, further.latency),
        {name: mixed(here.calls.get(name, none), further.calls.get(name, none)) for name in names},
    )


def _either(one: Walk, other: Walk) -> Walk:
    return _maybe(one, other, None)


def _acceptance(requests: Iterable[LoggedRequest]) -> dict[str, float]:
    """Return how often each model's judged drafts were taken."""
    judged: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for request in requests:
        for call in request.calls:
            if call.confidence is not None:
                judged[call.model][0] += call.outcome == "accepted"
                judged[call.model][1] += 1
    return {model: taken / count for model, (taken, count) in judged.items()}


def _latencies(requests: Iterable[LoggedRequest]) -> dict[str, float]:
    """Return how long each model's calls took on average, in seconds."""
    took: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    for request in requests:
        for call in request.calls:
            if call.usage.total:
                took[call.model][0] += call.latency_s
                took[call.model][1] += 1
    return {model: total / count for model, (total, count) in took.items()}
