"""What a token costs, and the one calculator: `Decimal` in, integer nano-dollars out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal

from gateway.money.usage import Usage

_ZERO = Decimal(0)
_NANO = Decimal(10**9)
_MICROS_PER_HOUR = Decimal(3_600_000_000)


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars per token by bucket, per machine-hour and per call, and who says so since when.

    `tiers` are whole prices that hold for every token of a request whose prompt
    is longer than their threshold, in ascending order. `is_unknown` marks a
    zero that the policy asked for in the absence of a price.
    """

    input: Decimal = _ZERO
    cached_input: Decimal = _ZERO
    cache_write: Decimal = _ZERO
    output: Decimal = _ZERO
    reasoning: Decimal = _ZERO
    audio: Decimal = _ZERO
    audio_output: Decimal = _ZERO
    image: Decimal = _ZERO
    machine_hour_usd: Decimal = _ZERO
    per_call: Decimal = _ZERO
    tiers: tuple[tuple[int, Price], ...] = ()
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


def cost(usage: Usage, price: Price) -> Decimal:
    """Return the dollars that a call cost: exact, not yet rounded."""
    if price.tiers:
        price = price.at(usage.input + usage.cached_input + usage.cache_write + usage.audio)
    total = price.input * usage.input + price.output * usage.output
    if usage.cached_input:
        total += price.cached_input * usage.cached_input
    if usage.cache_write:
        total += price.cache_write * usage.cache_write
    if usage.reasoning:
        total += price.reasoning * usage.reasoning
    if usage.audio:
        total += price.audio * usage.audio
    if usage.audio_output:
        total += price.audio_output * usage.audio_output
    if usage.image:
        total += price.image * usage.image
    if usage.compute_s and price.machine_hour_usd:
        micros = round(usage.compute_s * 1_000_000)
        total += price.machine_hour_usd * micros / _MICROS_PER_HOUR
    if price.per_call and usage.total:
        total += price.per_call
    return total


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
