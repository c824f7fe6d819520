"""What the reports of the admin port say: the contract with dashboards and scripts.

Money is whole nano-dollars (`…_nano_usd`), beside it dollars as text where a person
reads them (`…_usd`). Moments are ISO 8601 in UTC, durations milliseconds. A rate or
quantile is null where there is nothing to tell it from.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Step = Literal["hour", "day"]
Dimension = Literal["model", "route", "tenant", "key", "tag"]


class Shape(BaseModel):
    """An answer, complete as it is: nothing that is not described here is in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Range(Shape):
    """From `since` until before `until`, told in steps of an hour or a day (UTC)."""

    since: str
    until: str
    step: Step


class Quantiles(Shape):
    """Of durations in milliseconds, within 3 % (they are kept in classes)."""

    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


class MeasuredSaving(Shape):
    """What a route's cascade saved, by its control arm; null before there is enough to say so."""

    route: str
    control_requests: int
    policy_requests: int
    saved_nano_usd: int | None = None
    low_nano_usd: int | None = None
    high_nano_usd: int | None = None
    saved_usd: str | None = None
    low_usd: str | None = None
    high_usd: str | None = None


class Savings(Shape):
    """What was saved, told in three ways that are never added up.

    `list_price`: models' answers against the reference model's list price. `caches`: what
    hits would have cost there. `measured`: against requests that went straight to the
    reference, with a 95 % interval.
    """

    list_price_nano_usd: int
    list_price_usd: str
    caches_nano_usd: int
    caches_usd: str
    measured: tuple[MeasuredSaving, ...] = ()


class Totals(Shape):
    """All that happened in a time. `own` is what the gateway paid itself, `idle` of its machines.

    `errors` are requests that failed; `abandoned` those whose client left.
    """

    requests: int
    errors: int
    abandoned: int
    tokens: int
    spend_nano_usd: int
    spend_usd: str
    own_nano_usd: int
    own_usd: str
    idle_nano_usd: int
    idle_usd: str
    hits_exact: int
    hits_semantic: int
    escalations: int
    estimated: int
    error_rate: float | None
    hit_rate_exact: float | None
    hit_rate_semantic: float | None
    escalation_rate: float | None
    latency: Quantiles
    ttft: Quantiles
    saved: Savings


class Point(Shape):
    """One step of an overview; `t` is when it begins."""

    t: str
    spend_nano_usd: int
    spend_usd: str
    requests: int
    errors: int
    hits_exact: int
    hits_semantic: int
    escalations: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    ttft_p50_ms: float | None


class Overview(Shape):
    """What happened, beside the same length of time before it where that was asked for."""

    range: Range
    now: Totals
    before: Totals | None
    series: tuple[Point, ...]


class SpendGroup(Shape):
    """What one model, route, tenant, key or tag came to. The empty name: none of them."""

    name: str
    requests: int
    tokens: int
    errors: int
    hits_exact: int
    hits_semantic: int
    escalations: int
    estimated: int
    spend_nano_usd: int
    spend_usd: str
    saved_nano_usd: int
    saved_usd: str
    cache_saved_nano_usd: int
    cache_saved_usd: str


class SpendPoint(Shape):
    """What one of the groups spent in one step."""

    t: str
    name: str
    spend_nano_usd: int
    spend_usd: str
    requests: int


class OwnSpend(Shape):
    """What the gateway spent on its own account, for one purpose."""

    purpose: str
    calls: int
    tokens: int
    spend_nano_usd: int
    spend_usd: str


class IdleSpend(Shape):
    """What a machine of ours cost while it did nothing."""

    model: str
    up_s: float
    busy_s: float
    spend_nano_usd: int
    spend_usd: str


class Spend(Shape):
    """Where money went. By tag a request counts for each of its tags, and once in `total`.

    `series` names the groups that cost most; the rest of them are its name `other`, which
    `others` counts (0 where there is none).
    """

    by: Dimension
    range: Range
    groups: tuple[SpendGroup, ...]
    total: SpendGroup
    series: tuple[SpendPoint, ...]
    others: int
    own: tuple[OwnSpend, ...]
    idle: tuple[IdleSpend, ...]
    measured: tuple[MeasuredSaving, ...]


class Forecast(Shape):
    """What will be spent by the window's end, with the range that holds with 80 %."""

    spend_nano_usd: int
    low_nano_usd: int
    high_nano_usd: int
    spend_usd: str
    low_usd: str
    high_usd: str
    runs_out: str | None
    """When the limit is reached at this rate, null where that is after the window."""


class BurnPoint(Shape):
    """What is left of a budget at the end of a step."""

    t: str
    left_nano_usd: int
    spent_nano_usd: int


class BudgetState(Shape):
    """One budget in its present window; `end` is null for one without end.

    `reserved_nano_usd` is set aside for requests under way, null where the process that
    answers cannot know it.
    """

    kind: Literal["key", "tenant", "route", "tag"]
    name: str
    per: Literal["hour", "day", "month", "total"]
    at_limit: Literal["refuse", "cheapest", "warn"]
    time_zone: str
    start: str
    end: str | None
    limit_nano_usd: int
    limit_usd: str
    spent_nano_usd: int
    spent_usd: str
    reserved_nano_usd: int | None
    reserved_usd: str | None
    share: float
    forecast: Forecast | None
    burn_down: tuple[BurnPoint, ...]


MOST_BUDGETS = 100
"""How many are listed of those that were written, where nobody asks for more or fewer."""


class Budgets(Shape):
    """Every budget that has been written, fullest first; `left_out` more were not listed."""

    budgets: tuple[BudgetState, ...]
    left_out: int


class ReliabilityBin(Shape):
    """Drafts whose confidence was from `low` to `high`: what they promised and what they kept."""

    low: float
    high: float
    drafts: int
    mean_confidence: float
    share_good: float
    share_low: float
    share_high: float


class ModelQuality(Shape):
    """One model's drafts on a route that were compared with the reference's answer."""

    model: str
    drafts: int
    scored: int
    mean_confidence: float | None
    mean_score: float | None
    bins: tuple[ReliabilityBin, ...]


class Certificate(Shape):
    """What is proven of a route.

    `state`: `certified`, `learning` (not enough labels), `none` (nothing to be proven was
    asked for), `weaker` (what is proven is less than what is asked for) or `lost` (it no longer
    holds, or its last day is over); in all but `certified` and `none` the reference answers.
    `why` says why it is so. `bound` is the upper bound of the share of worse answers; `promised`
    with `promised_certainty` what the certificate says, `floor` with `certainty` what is asked.
    """

    state: str
    why: str | None
    stage: str | None
    bound: float | None
    promised: float | None
    promised_certainty: float | None
    floor: float | None
    certainty: float | None
    labeller: str | None
    labeller_error: float | None
    valid_until: str | None
    looks: int | None
    labels: int | None
    bundle: str | None


class LearningStep(Shape):
    """One step of a route's learning, as it was written down."""

    at: str
    step: int
    kind: str
    detail: dict[str, Any]


class FalseHits(Shape):
    """A route's (and tenant's) audited semantic hits against what may be wrong of them."""

    route: str
    tenant: str
    state: str
    audited: int
    wrong: int
    rate: float | None
    low: float
    high: float
    budget: float | None
    stops: int


class RouteQuality(Shape):
    """How good a route's cheaper answers are.

    Of `drawn` requests, `losses` were answered by a draft worse than the reference's answer,
    and of `unknown` nobody could tell; `low` and `high` bound the share of losses (95 %).
    """

    route: str
    reference: str | None
    drawn: int
    losses: int
    unknown: int
    rate: float | None
    low: float
    high: float
    floor: float | None
    labels: dict[str, int]
    models: tuple[ModelQuality, ...]
    certificate: Certificate
    alarms: tuple[LearningStep, ...]
    steps: tuple[LearningStep, ...]
    false_hits: tuple[FalseHits, ...]


class QualityReport(Shape):
    """Every route of the running policy."""

    range: Range
    routes: tuple[RouteQuality, ...]


class RequestRow(Shape):
    """One request, as `frugal costs --by request --json` tells it, with when and how long."""

    request_id: str
    at: str
    state: Literal["settled", "abandoned", "failed", "open"]
    status: int
    usage: dict[str, int]
    cost_nano_usd: int
    cost_usd: str
    saved_nano_usd: int
    saved_usd: str
    estimated: bool
    lower_nano_usd: int
    upper_nano_usd: int
    cache: str
    path: str
    tenant: str
    key: str
    tags: tuple[str, ...]
    route: str
    model: str
    requested_model: str
    stream: bool
    latency_ms: float
    ttft_ms: float | None
    error: str | None


class RequestList(Shape):
    """Requests, newest first. `next` goes on from here, null where all was seen.

    A search looks at so many requests at a time: `data` may be short, or empty, and
    `next` not null. `searched_to` is how far back it came.
    """

    data: tuple[RequestRow, ...]
    next: str | None
    searched_to: str | None


class AttemptRow(Shape):
    """One call to one model, as a bar of the waterfall.

    `started_ms` counts from the request's arrival; `is_placed` tells whether it was written
    down (older ledgers put calls one after the other).
    """

    seq: int
    model: str
    provider: str
    purpose: str
    payer: str
    outcome: str
    accepted: bool | None
    confidence: float | None
    reason: str
    started_ms: float
    is_placed: bool
    took_ms: float
    ttft_ms: float | None
    usage: dict[str, int]
    tokens: int
    cost_nano_usd: int
    cost_usd: str
    estimated: bool
    lower_nano_usd: int
    upper_nano_usd: int
    price_source: str
    price_dated: str | None


class StoredText(Shape):
    """What was said, where the policy stores it; secrets and personal numbers are taken out."""

    model: str
    messages: list[dict[str, Any]] | None
    response: str | None
    score: float | None
    labeller: str


class RequestDetail(Shape):
    """One request opened. `skipped` names the tiers that could not serve it, and why."""

    request: RequestRow
    cache: dict[str, Any]
    skipped: tuple[dict[str, str], ...]
    attempts: tuple[AttemptRow, ...]
    headers: dict[str, str]
    explanation: tuple[str, ...]
    texts: tuple[StoredText, ...]
    texts_stored: bool


class Deployment(Shape):
    """One server of a model. `limit` is null where concurrency is not adapted."""

    name: str
    state: str
    is_down: bool
    in_flight: int
    limit: int | None
    expected_ms: float | None
    rests_s: float
    weight: float


class EngineState(Shape):
    """The local engine of a model; null where it does not say."""

    ready: bool
    running: int | None
    waiting: int | None
    max_batch: int
    kv_used: float | None
    completion_tokens: int | None
    busy_s: float | None


class ProviderState(Shape):
    """One model: of its last calls how they went, and how it stands in the process that answers."""

    model: str
    provider: str
    upstream_model: str | None
    breaker: str
    calls: int
    failed: int
    outcomes: dict[str, int]
    latency: Quantiles
    ttft: Quantiles
    limits: dict[str, int]
    deployments: tuple[Deployment, ...]
    engine: EngineState | None


class Providers(Shape):
    """Every model of the running policy. `calls_since` is when the oldest counted call began."""

    providers: tuple[ProviderState, ...]
    calls_since: str | None
    workers: int
