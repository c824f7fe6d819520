"""What an operator may write, as frozen, checked values.

Units: every duration is a float in seconds, every price `Decimal` US dollars,
every size an integer in bytes. Unknown keys are refused; keys that belong to a
part not built yet are refused by name (see `policies.later`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, SecretStr, Tag, model_validator

from policies.alerts import Alerts
from policies.cascade import Cascade, Confidence
from policies.limits import DefaultLimits, Limits, Rates
from policies.resilience import (
    AdaptiveRules,
    BreakerRules,
    Deployment,
    HealthRules,
    HedgeRules,
    RetryRules,
)
from policies.scalars import (
    Bytes,
    Checkpoint,
    Duration,
    DurationOrZero,
    Factor,
    FilePath,
    LedgerUrl,
    Name,
    PostgresUrl,
    Probability,
    Real,
    RedisUrl,
    Secret,
    Share,
    Switch,
    Usd,
    VectorPlace,
    Whole,
)
from policies.section import Section
from policies.telemetry import Telemetry

Quantization = Literal[
    "none", "as-stored", "int8", "int4", "int4-g32", "int4-g64", "int4-g128", "nf4", "fp8"
]
"""How a local model's weights are held; `as-stored` keeps those of GPTQ, AWQ and their like."""


class Server(Section):
    """Where the gateway listens, and the bounds of what it reads.

    `reload`: the file is read again on SIGHUP, and with `watch` whenever it changes.
    A client has `head_within` for a request's headers, and then `body_within`. One that
    reads nothing of what it is sent for `send_within` is taken to have left.
    """

    host: str = "127.0.0.1"
    port: Whole = Field(4000, ge=0, le=65535)
    admin_host: str = "127.0.0.1"
    admin_port: Whole = Field(4001, ge=0, le=65535)
    workers: Whole = Field(1, ge=1, le=64)
    max_body: Bytes = 10 * 1024 * 1024
    head_within: Duration = 10.0
    body_within: Duration = 60.0
    send_within: Duration = 60.0
    drain: Duration = 30.0
    reload: Literal["signal", "watch"] = "signal"
    allowed_hosts: tuple[str, ...] = ()


class Key(Section):
    """One static key and who it stands for.

    With `background: off`, nothing is asked again behind its back, and nothing learnt from it.
    """

    name: Name
    key: Secret
    tenant: Name = "default"
    scopes: tuple[Name, ...] = Field((), max_length=64)
    tags: tuple[Name, ...] = Field((), max_length=64)
    limits: Limits | None = None
    background: bool = True


class Access(Section):
    """Who may call."""

    anonymous: Literal["never", "loopback"] = "never"
    keys: tuple[Key, ...] = ()


def _hashable(value: object) -> object:
    return frozenset(value.items()) if isinstance(value, dict) else value


class TokenPrices(Section):
    """Dollars per million tokens, by bucket."""

    input_per_mtok_usd: Usd | None = None
    cached_input_per_mtok_usd: Usd | None = None
    cache_write_per_mtok_usd: Usd | None = None
    cache_write_1h_per_mtok_usd: Usd | None = None
    output_per_mtok_usd: Usd | None = None
    reasoning_per_mtok_usd: Usd | None = None
    audio_per_mtok_usd: Usd | None = None
    audio_output_per_mtok_usd: Usd | None = None
    image_per_mtok_usd: Usd | None = None


class LongPrompt(TokenPrices):
    """Prices of every token of a request whose prompt is longer than this many tokens."""

    over_tokens: Whole = Field(gt=0)


class Price(TokenPrices):
    """Dollars per million tokens, per machine-hour, or a file that says so.

    `services` multiply every price where a service tier (flex, priority, batch)
    was billed; `discount` is the negotiated share off all of it, list prices
    included where nothing else is stated.
    """

    machine_hour_usd: Usd | None = None
    long_prompts: tuple[LongPrompt, ...] = Field((), max_length=8)
    services: dict[Name, Factor] = Field(default_factory=dict, max_length=16)
    discount: Share | None = None
    file: FilePath | None = None

    def __hash__(self) -> int:
        """Agree with equality: a provider is found again by its model, prices and all."""
        return hash(tuple((name, _hashable(value)) for name, value in self))


class Tls(Section):
    """How the upstream's certificate is checked; system authorities unless `ca_file` is given."""

    ca_file: FilePath | None = None


class Latency(Section):
    """Simulated pace of a recorded model."""

    first_token: DurationOrZero = 0.0
    tokens_per_second: Real | None = Field(None, gt=0)


def _price_form(value: object) -> str:
    return "word" if isinstance(value, str) else "prices"


class Model(Section):
    """One model: who serves it, what it can do, what it costs.

    `model` is the name the upstream knows (default: the key in `models`). The
    capabilities are inherited from the price table where not declared. With
    `deployments` in place of `base_url` it is served by several servers:
    `balance` prefers the quickest of them, or goes by their weights alone.
    `reasoning: false` says that all it writes is shown: an answer whose usage nobody
    reported is then bounded by its text, not by the longest there may be.
    `prompt_cache` lets the gateway use the provider's own cache of prompts.
    `health` asks each from time to time, `adaptive_concurrency` bounds what each gets at once.
    A local one guesses up to `guesses` tokens ahead, by a smaller `draft` checkpoint where
    one is named. With a folder of LoRA `adapters`, `model` names the one that is meant, and
    models that differ in nothing else share an engine.
    """

    provider: str
    model: str | None = None
    base_url: str | None = None
    deployments: tuple[Deployment, ...] = Field((), max_length=32)
    balance: Literal["latency", "weight"] = "latency"
    health: HealthRules | None = None
    adaptive_concurrency: AdaptiveRules | None = None
    api_key: Secret | None = None
    tls: Tls = Tls()
    price: (
        Annotated[
            Annotated[Price, Tag("prices")] | Annotated[Literal["unknown_is_free"], Tag("word")],
            Discriminator(_price_form),
        ]
        | None
    ) = None
    context: Whole | None = Field(None, gt=0)
    max_output: Whole | None = Field(None, gt=0)
    tools: bool | None = None
    vision: bool | None = None
    json_schema: bool | None = None
    logprobs: bool | None = None
    reasoning: bool | None = None
    limits: Rates = Rates()
    prompt_cache: Switch = "auto"
    # provider: local
    checkpoint: Checkpoint | None = None
    quantization: Quantization = "none"
    kv: Literal["model", "int8"] = "model"
    threads: Whole = Field(1, ge=1, le=256)
    max_batch: Whole = Field(8, ge=1, le=512)
    max_queue: Whole = Field(64, ge=1, le=65536)
    guesses: Whole | None = Field(None, ge=0, le=16)
    draft: Checkpoint | None = None
    adapters: FilePath | None = None
    long_context: bool = False
    # provider: recorded
    outcomes: FilePath | None = None
    latency: Latency = Latency()


class ExactCache(Section):
    """How long an exact answer may be replayed: fresh for `ttl`, then stale while it is renewed.

    In a corpus that tenants share, a tenant has `writes_per_minute` answers kept by a process.
    """

    ttl: Duration = 24 * 3600.0
    stale: DurationOrZero = 0.0
    max_entry: Bytes = 1024 * 1024
    writes_per_minute: Whole = Field(6000, ge=1, le=1_000_000)


class Verify(Section):
    """Who gives a second opinion on a close decision, before the answer is served.

    `cross_encoder` is a model of sentence-transformers, by name or folder.
    """

    cross_encoder: str = Field(min_length=1, max_length=1024)


class SemanticCache(Section):
    """When an answer to other words may serve: surely wrong at most `max_error` of the time.

    What cost less than `min_usd` is not kept. What is let go of first, beyond
    `max_entries`, is what saves least for its room.
    Answers about prices, hours, versions and the like are kept for `changing_ttl`, if it
    is given. `max_entries` and `writes_per_minute` hold for each tenant.
    `audit` is the share of such answers that is asked again in the background, to
    measure how many were wrong. `verify` looks at close decisions before they are served.
    `judge` is the model that is asked in the background whether a stored answer would
    have served. Both stop for the day once they have cost
    `background_usd_per_day`, which counts by route: for all processes
    that share a `storage.redis`, else for each. `jitter` is the
    longest time by which a hit is put off, drawn anew each time.
    """

    max_error: Probability = Field(0.01, gt=0, le=0.5)
    ttl: Duration = 6 * 3600.0
    max_entry: Bytes = 256 * 1024
    max_entries: Whole = Field(200_000, ge=1, le=10_000_000)
    changing_ttl: Duration | None = None
    writes_per_minute: Whole = Field(6000, ge=1, le=1_000_000)
    min_usd: Usd = Decimal(0)
    embedder: str = Field("all-MiniLM-L6-v2", min_length=1, max_length=256)
    audit: Probability = 0.02
    verify: Verify | None = None
    judge: Name | None = None
    background_usd_per_day: Usd | None = None
    jitter: DurationOrZero = 0.0


def _off(value: object) -> object:
    """Read `off` (which YAML 1.1 calls False) as absent."""
    return None if value is False or value == "off" else value


class Cache(Section):
    """The caches of a route; off unless named.

    Tenants keep their answers to themselves, unless the route shares them in a corpus,
    which `share` names.
    """

    exact: Annotated[
        ExactCache | None,
        BeforeValidator(_off, json_schema_input_type=ExactCache | Literal["off", False] | None),
    ] = None
    semantic: Annotated[
        SemanticCache | None,
        BeforeValidator(_off, json_schema_input_type=SemanticCache | Literal["off", False] | None),
    ] = None
    share: Annotated[
        Name | None,
        BeforeValidator(_off, json_schema_input_type=Name | Literal["off", False] | None),
    ] = None


class Timeouts(Section):
    """Deadlines of one attempt, in seconds."""

    connect: Duration = 5.0
    first_token: Duration = 60.0
    idle: Duration = 60.0
    total: Duration = 600.0


class When(Section):
    """Conditions of a rule; all that are given must hold."""

    tenant: str | None = None
    key: str | None = None
    tag: str | None = None
    model: str | None = None
    has_tools: bool | None = None
    has_images: bool | None = None
    json_schema: bool | None = None
    stream: bool | None = None
    input_tokens_over: Whole | None = Field(None, ge=0)
    input_tokens_under: Whole | None = Field(None, ge=0)
    max_tokens_over: Whole | None = Field(None, ge=0)
    header: dict[str, str] | None = None


class Rule(Section):
    """First match wins, before any learning."""

    when: When
    model: Name | None = None
    tiers: tuple[Name, ...] | None = Field(None, min_length=1, max_length=8)
    cache: Cache | None = None

    @model_validator(mode="after")
    def _decides_something(self) -> Rule:
        if self.model is None and self.tiers is None and self.cache is None:
            raise ValueError("a rule needs one of: model, tiers, cache")
        if self.model is not None and self.tiers is not None:
            raise ValueError("a rule takes either model or tiers, not both")
        return self


class Route(Section):
    """A public model name that clients send, and what answers it."""

    model: Name | None = None
    cascade: Cascade | None = None
    cache: Cache = Cache()
    timeouts: Timeouts = Timeouts()
    retries: RetryRules | None = None
    breaker: BreakerRules | None = None
    hedge: HedgeRules | None = None
    fallback: tuple[Name, ...] = Field((), max_length=16)
    limits: Limits = Limits()
    rules: tuple[Rule, ...] = Field((), max_length=256)

    @model_validator(mode="after")
    def _has_one_answerer(self) -> Route:
        if (self.model is None) == (self.cascade is None):
            raise ValueError("a route needs exactly one of: model, cascade")
        return self

    @property
    def tiers(self) -> tuple[str, ...]:
        """Return the models a request may be served by, cheapest first."""
        return self.cascade.tiers if self.cascade else (self.model or "",)

    @property
    def confidence(self) -> Confidence:
        """Return how drafts are judged; a rule may give tiers to a route that has no cascade."""
        return self.cascade.confidence if self.cascade else Confidence()

    @property
    def models(self) -> tuple[str, ...]:
        """Return every model this route may call, each once."""
        second = self.cascade.confidence.second if self.cascade else None
        ruled = [name for rule in self.rules for name in (rule.tiers or (rule.model,))]
        named = [*self.tiers, second, *ruled, *self.fallback]
        return tuple(dict.fromkeys(name for name in named if name))

    def exact_cache(self, rule: Rule | None = None) -> ExactCache | None:
        """Return the exact cache under a rule: as the rule says, else as the route does."""
        if rule and rule.cache and "exact" in rule.cache.model_fields_set:
            return rule.cache.exact
        return self.cache.exact

    def semantic_cache(self, rule: Rule | None = None) -> SemanticCache | None:
        """Return the semantic cache under a rule: as the rule says, else as the route does."""
        if rule and rule.cache and "semantic" in rule.cache.model_fields_set:
            return rule.cache.semantic
        return self.cache.semantic

    def corpus(self, rule: Rule | None = None) -> str | None:
        """Return the corpus that answers are shared in under a rule, None for each tenant's own."""
        if rule and rule.cache and "share" in rule.cache.model_fields_set:
            return rule.cache.share
        return self.cache.share

    @property
    def has_corpora(self) -> bool:
        """Return whether any request of this route may share answers in a corpus."""
        ruled = (rule.cache.share for rule in self.rules if rule.cache)
        return any(name is not None for name in (self.cache.share, *ruled))

    @property
    def keeps_answers(self) -> bool:
        """Return whether any request of this route may meet a cache."""
        caches = (self.cache, *(rule.cache for rule in self.rules if rule.cache))
        return any(cache.exact is not None or cache.semantic is not None for cache in caches)

    @property
    def semantic_caches(self) -> Iterator[SemanticCache]:
        """Yield the semantic caches that requests of this route may meet."""
        for cache in (self.cache, *(rule.cache for rule in self.rules if rule.cache)):
            if cache.semantic is not None:
                yield cache.semantic


class Spool(Section):
    """The SQLite file that stands before a ledger in PostgreSQL.

    Once `max_entries` wait in it, nothing billable is begun until some have
    arrived; what has arrived is kept for `keep`.
    """

    file: FilePath = Path("frugal-spool.db")
    max_entries: Annotated[Whole, Field(ge=1)] = 1_000_000
    keep: Duration = 86_400.0


class Privacy(Section):
    """What is kept of requests to learn from: numbers always, texts only where told to.

    `store_vectors` keeps the meaning of the question as a vector, from which words can partly
    be guessed; `store_texts` keeps the conversation and the drafts themselves.
    """

    store_texts: bool = False
    store_vectors: bool = True


class Retention(Section):
    """How long single requests are kept in the ledger; sums are kept for good."""

    entries: Annotated[Duration, Field(ge=3600)] | None = None


class Storage(Section):
    """Where state is kept; the defaults need nothing installed.

    `redis_within` is how long an answer of Redis is waited for: whoever is later is
    taken for away, and what the policy says of that comes true.
    """

    ledger: LedgerUrl = Field(default="sqlite:///frugal.db", repr=False)
    spool: Spool = Spool()
    retention: Retention = Retention()
    redis: RedisUrl | None = None
    redis_within: Duration = Field(0.02, ge=0.005, le=60)
    limits: PostgresUrl | None = Field(default=None, repr=False)
    semantic: FilePath | None = None
    semantic_index: VectorPlace = SecretStr("faiss")

    @model_validator(mode="after")
    def _keeps_limits_once(self) -> Storage:
        if self.redis is not None and self.limits is not None:
            raise ValueError(
                "expected redis or limits, found both; redis keeps the budgets, too: remove limits"
            )
        return self


_ROUTE_KEEPS_ANSWERS: Any = {
    "limits": True,
    "timeouts": True,
    "retries": True,
    "breaker": True,
    "hedge": True,
    "cache": True,
    "cascade": {
        "reference": True,
        "max_hold": True,
        "keepalive": True,
        "audit": True,
        "control": True,
    },
    "rules": {"__all__": {"cache": True}},
}
_MODEL_KEEPS_ANSWERS: Any = {
    **dict.fromkeys(
        (
            "api_key",
            "draft",
            "guesses",
            "latency",
            "limits",
            "max_batch",
            "max_queue",
            "price",
            "prompt_cache",
            "threads",
            "tls",
        ),
        True,
    ),
    **dict.fromkeys(("adaptive_concurrency", "balance", "health"), True),
    "deployments": {"__all__": {"api_key": True, "weight": True}},
}


class Policy(Section):
    """One whole policy file."""

    version: Literal[1]
    server: Server = Server()
    access: Access = Access()
    models: dict[Name, Model] = Field(min_length=1)
    routes: dict[Name, Route] = Field(default_factory=dict)
    limits: DefaultLimits = DefaultLimits()
    storage: Storage = Storage()
    privacy: Privacy = Privacy()
    alerts: Alerts | None = None
    telemetry: Telemetry = Telemetry()

    def route_for(self, name: str) -> Route | None:
        """Return the route of that name, or a bare one for a model asked for directly.

        A route may carry a model's name: it then says how that model is served.
        """
        if name in self.routes:
            return self.routes[name]
        return Route(model=name) if name in self.models else None

    def revision(self, name: str) -> str:
        """Return a digest of all that changes what a route or model answers; compute it once.

        Prices, secrets, deadlines and cache lifetimes leave it alone. Weights are
        known by their path: a checkpoint replaced in place keeps its revision.
        Settings at their defaults are left out, so that a release which adds one finds
        the answers of the release before.
        Raises KeyError for a name that is neither a route nor a model.
        """
        route = self.route_for(name)
        if route is None:
            raise KeyError(name)
        told: dict[str, Any] = {
            "route": route.model_dump(
                mode="json", exclude=_ROUTE_KEEPS_ANSWERS, exclude_defaults=True
            ),
            "models": {
                each: self.models[each].model_dump(
                    mode="json", exclude=_MODEL_KEEPS_ANSWERS, exclude_defaults=True
                )
                for each in route.models
            },
        }
        text = json.dumps(told, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
