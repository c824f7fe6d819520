"""How much may be asked and spent: rates, concurrency and budgets, as an operator writes them."""

from __future__ import annotations

from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field

from policies.scalars import Duration, Name, Probability, Usd, Whole
from policies.section import Section

Priority = Literal["high", "normal", "low"]
Period = Literal["hour", "day", "month", "total"]


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ValueError(
            f"expected a time zone such as UTC or Europe/Berlin, found {name!r}"
        ) from exc
    return name


class Budget(Section):
    """Dollars for each calendar hour, day or month of a time zone, or in total.

    At the limit: `refuse` the request; serve it from the `cheapest` tier alone
    (and count what that costs); or only `warn`.
    """

    usd: Usd
    per: Period = "month"
    at_limit: Literal["refuse", "cheapest", "warn"] = "refuse"
    time_zone: Annotated[str, AfterValidator(_time_zone)] = "UTC"


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, dict) else value


def _told_apart(budgets: tuple[Budget, ...]) -> tuple[Budget, ...]:
    if len({(each.per, each.time_zone, each.at_limit) for each in budgets}) < len(budgets):
        raise ValueError("expected budgets that differ in per, time_zone or at_limit")
    return budgets


Budgets = Annotated[
    tuple[Budget, ...],
    Field(max_length=8),
    BeforeValidator(
        _one_or_more, json_schema_input_type=Budget | Annotated[list[Budget], Field(max_length=8)]
    ),
    AfterValidator(_told_apart),
]


class Rates(Section):
    """Requests and tokens per minute (a burst holds at most one minute's worth), and at once."""

    requests_per_minute: Whole | None = Field(None, ge=1, le=10_000_000)
    tokens_per_minute: Whole | None = Field(None, ge=1, le=100_000_000_000)
    concurrent: Whole | None = Field(None, ge=1, le=1_000_000)


class Limits(Rates):
    """What one key, tenant or route may ask and spend.

    `priority` says who goes first in the queue and who is turned away first
    under overload; that of a key goes before that of its tenant, of the route
    and of all.
    """

    budget: Budgets = ()
    priority: Priority = "normal"

    def over(self, defaults: Limits) -> Limits:
        """Return these limits, with the defaults where nothing is written."""
        written = {name: getattr(self, name) for name in self.model_fields_set}
        inherited = {name: getattr(defaults, name) for name in Limits.model_fields}
        return Limits.model_construct(**(inherited | written))


class TagLimits(Section):
    """What all requests that carry a tag may spend."""

    budget: Budgets = ()


class QueueRules(Section):
    """How long a request waits for a rate or for room before it is refused, and how many may."""

    max_wait: Duration = 2.0
    max_waiting: Whole = Field(100, ge=1, le=100_000)


class ShedRules(Section):
    """The lag of the event loop at which requests of low priority are turned away.

    At twice as much those of normal priority are, at four times all.
    """

    lag: Duration = 0.25


class DefaultLimits(Limits):
    """The limits of every key that has none of its own, and those of tenants and tags.

    `without_redis` says what happens to rates while the shared store cannot be
    reached: all may pass (`open`), none (`closed`), or each process grants
    `local_share` of the limit. Budgets never open. With a `queue`, requests
    past a rate or a concurrency wait their turn; with `shed`, overload is met by priority.
    A request whose client left counts in budgets with what was seen of its answer
    (`counted`), or with the most that may be billed for it (`most`).
    """

    tenants: dict[Name, Limits] = Field(default_factory=dict)
    tags: dict[Name, TagLimits] = Field(default_factory=dict)
    queue: QueueRules | None = None
    shed: ShedRules | None = None
    without_redis: Literal["open", "closed", "local"] = "local"
    local_share: Probability = Field(0.25, gt=0)
    abandoned: Literal["counted", "most"] = "counted"
