"""What a token costs, and the one calculator: `Decimal` in, integer nano-dollars out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal

from gateway.money.usage import Usage

_ZERO = Decimal(0)
_NANO = Decimal(10**9)
_MICROS_PER_HOUR = Decimal(3_600_000_000)
_AMOUNTS = (
    "input", "cached_input", "cache_write", "cache_write_1h", "output", "reasoning", "audio",
    "audio_output", "image", "machine_hour_usd", "per_call",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per token by bucket, per machine-hour and per call, and who says so since when.

    `tiers` are whole prices that hold for every token of a request whose prompt
    is longer than their threshold, in ascending order. `services` are whole
    prices by service tier (flex, priority, batch …), each with tiers of its own.
    `is_unknown` marks a zero that the policy asked for in the absence of a price.
    """

    input: Decimal = _ZERO
    cached_input: Decimal = _ZERO
    cache_write: Decimal = _ZERO
    cache_write_1h: Decimal = _ZERO
    output: Decimal = _ZERO
    reasoning: Decimal = _ZERO
    audio: Decimal = _ZERO
    audio_output: Decimal = _ZERO
    image: Decimal = _ZERO
    machine_hour_usd: Decimal = _ZERO
    per_call: Decimal = _ZERO
    tiers: tuple[tuple[int, Price], ...] = ()
    services: Mapping[str, Price] = field(default_factory=dict)
    source: str = "policy"
    dated: date | None = None
    is_unknown: bool = False

    @property
    def is_hourly(self) -> bool:
        """Return whether the machine's time is what costs."""
        return bool(self.machine_hour_usd)

    def at(self, tokens_in: int) -> Price:
        """Return the tier that holds for a prompt of that many tokens."""
        for threshold, price in reversed(self.tiers):
            if tokens_in > threshold:
                return price
        return self

    def times(self, factor: Decimal) -> Price:
        """Return every amount, at any length and service, multiplied."""
        return replace(
            self,
            **{name: getattr(self, name) * factor for name in _AMOUNTS},
            tiers=tuple((threshold, price.times(factor)) for threshold, price in self.tiers),
            services={name: price.times(factor) for name, price in self.services.items()},
        )


def cost(usage: Usage, price: Price) -> Decimal:
    """Return the dollars that a call cost: exact, not yet rounded."""
    if price.services or price.tiers:
        price = _at_hand(usage, price)
    total = price.input * usage.input + price.output * usage.output
    if usage.cached_input:
        total += price.cached_input * usage.cached_input
    if usage.cache_write or usage.cache_write_1h:
        total += price.cache_write * usage.cache_write
        total += price.cache_write_1h * usage.cache_write_1h
    if usage.reasoning:
        total += price.reasoning * usage.reasoning
    if usage.audio or usage.audio_output or usage.image:
        total += price.audio * usage.audio + price.audio_output * usage.audio_output
        total += price.image * usage.image
    if usage.compute_s and price.machine_hour_usd:
        micros = round(usage.compute_s * 1_000_000)
        total += price.machine_hour_usd * micros / _MICROS_PER_HOUR
    if price.per_call and usage.total:
        total += price.per_call
    return total


def _at_hand(usage: Usage, price: Price) -> Price:
    """Return the price that holds for a call's service tier and the length of its prompt."""
    if usage.tier:
        price = price.services.get(usage.tier, price)
    return price.at(usage.prompt) if price.tiers else price


def to_nano(dollars: Decimal) -> int:
    """Round dollars to whole nano-dollars, half to even."""
    return int((dollars * _NANO).to_integral_value(ROUND_HALF_EVEN))


def shown_usd(nano: int) -> str:
    """Return nano-dollars as dollars with nine decimals."""
    sign = "-" if nano < 0 else ""
    dollars, rest = divmod(abs(nano), 10**9)
    return f"{sign}{dollars}.{rest:09d}"


def from_nano(nano: int) -> Decimal:
    """Return nano-dollars as dollars, exactly."""
    return Decimal(nano).scaleb(-9)
