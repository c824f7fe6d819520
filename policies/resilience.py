"""How much a sick upstream may hurt: breakers, retries, and several deployments of one model."""

from __future__ import annotations

from pydantic import Field, model_validator

from policies.scalars import Duration, Probability, Real, Secret, Whole
from policies.section import Section


class BreakerRules(Section):
    """When to stop asking a model, and when to ask it again.

    It opens once `failures` of at least `min_calls` calls within `window` have
    failed, or `consecutive` calls in a row; it lets one call through after
    `open_for`. With `slow`, a reply that begins later than that is a failure.
    """

    failures: Probability = Field(0.5, gt=0)
    window: Duration = 30.0
    min_calls: Whole = Field(20, ge=1)
    consecutive: Whole = Field(10, ge=1)
    open_for: Duration = 15.0
    slow: Duration | None = None


class RetryRules(Section):
    """How often one model is asked for one answer, and what retries may cost in all.

    `attempts` counts the first one. Over any ten seconds the retries of a
    process stay below `budget` of its requests and `per_second` beside them.
    A retry waits between nothing and `base`, doubled each time; an upstream
    that wants us to wait longer than `max_wait` is not asked again.
    """

    attempts: Whole = Field(2, ge=1, le=10)
    budget: Probability = 0.1
    per_second: Real = Field(1.0, ge=0, le=1000)
    base: Duration = 0.1
    max_wait: Duration = 5.0


class Deployment(Section):
    """One of several servers of a model; without a key of its own, the model's is sent."""

    base_url: str
    weight: Real = Field(1.0, gt=0, le=1000)
    api_key: Secret | None = None


class HealthRules(Section):
    """How a deployment is asked whether it is well: after so many `failures` it is left alone.

    `path` stands at the root of its server; without one it is what the provider's
    kind of server has for it.
    """

    interval: Duration = 10.0
    timeout: Duration = 2.0
    failures: Whole = Field(2, ge=1, le=100)
    path: str | None = Field(None, pattern=r"^/[!-~]*$", max_length=256)


class AdaptiveRules(Section):
    """How many calls a deployment gets at once: learned from its latency, within bounds.

    The limit shrinks while a first token takes more than `tolerance` times as
    long as usual.
    """

    min: Whole = Field(4, ge=1, le=1_000_000)
    start: Whole = Field(32, ge=1, le=1_000_000)
    max: Whole = Field(1024, ge=1, le=1_000_000)
    tolerance: Real = Field(1.5, ge=1, le=10)

    @model_validator(mode="after")
    def _is_in_order(self) -> AdaptiveRules:
        if self.min > self.max:
            raise ValueError("expected min to be at most max")
        return self


class HedgeRules(Section):
    """When to ask a model once more since its stream has not begun.

    `after` is best chosen so that nineteen of twenty streams have begun by
    then. Hedges are paid for like any attempt; over any ten seconds those of a
    process and its retries together stay below their budgets.
    """

    after: Duration
    budget: Probability = 0.05
    per_second: Real = Field(0.1, ge=0, le=1000)
