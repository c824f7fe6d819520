"""One call to one model while it is under way: what was seen of it, how it ended, what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from gateway.clock import Clock
from gateway.errors import ProviderError
from gateway.money.bounds import least_usd, rates_of
from gateway.money.estimate import estimate_usage, is_beyond_belief
from gateway.money.price import cost, from_nano
from gateway.money.prices import PriceBook
from gateway.money.usage import NOTHING, Usage
from gateway.request import ChatRequest
from gateway.tool_calls import calls_of
from gateway.wire import Part
from router.types import Draft, TokenStats, Tried, Verdict
from router.validators import ToolCall

Purpose = Literal["serve", "control", "judge", "hedge"]
_WAYS = {"tier": "served", "stay": "stayed"}
_ZERO = Decimal(0)


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
