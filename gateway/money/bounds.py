"""The most that tokens may cost, in whole numbers: the dearest of a model's prices.

Which bucket a token will be billed in, and at which tier, is known only
afterwards. Floats would do for a guess, not for a bound.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

from msgspec import Struct

from gateway.money.price import Price, to_nano

_PICO_IN_NANO = 1000


class Rates(Struct, frozen=True, array_like=True):
    """The dearest of a model's prices: pico-dollars per token, nano-dollars per second and call.

    `rich` holds for prompts that may be more than text, `spoken` for answers.
    """

    input: int
    rich: int
    output: int
    spoken: int
    second: float
    call: int

    def most_nano(
        self,
        tokens_in: int,
        tokens_out: int,
        busy_s: float,
        *,
        is_rich: bool = False,
        is_spoken: bool = False,
    ) -> int:
        """Return the most that a call may cost, in nano-dollars."""
        tokens = tokens_in * (self.rich if is_rich else self.input)
        tokens += tokens_out * (self.spoken if is_spoken else self.output)
        return -(-tokens // _PICO_IN_NANO) + self.call + round(self.second * busy_s)


def rates_of(price: Price, *, any_service: bool = False) -> Rates:
    """Return the bounds of a price, over all of its tiers and buckets, and of any service tier."""
    prices = [price, *price.services.values()] if any_service else [price]
    every = [each for p in prices for each in (p, *(tier for _, tier in p.tiers))]
    return Rates(
        input=max(_read(p) for p in every),
        rich=max(max(_read(p), pico(p.image, p.audio)) for p in every),
        output=max(pico(p.output, p.reasoning) for p in every),
        spoken=max(pico(p.output, p.reasoning, p.audio_output) for p in every),
        second=to_nano(price.machine_hour_usd) / 3600,
        call=max(to_nano(p.per_call) for p in every),
    )


def least_usd(tokens_in: int, tokens_out: int, price: Price) -> Decimal:
    """Return the least that so many tokens may cost, in dollars: at the cheapest of all prices.

    They may have been read from a cache, or served at a tier that nobody asked for.
    """
    every = [each for p in (price, *price.services.values()) for each in (p, *_long(p))]
    read = min(min(p.input, p.cached_input) for p in every)
    written = min(min(p.output, p.reasoning) for p in every)
    return read * tokens_in + written * tokens_out


def _long(price: Price) -> list[Price]:
    return [tier for _, tier in price.tiers]


def _read(price: Price) -> int:
    return pico(price.input, price.cached_input, price.cache_write, price.cache_write_1h)


def pico(*dollars: Decimal) -> int:
    """Return the largest of some prices in pico-dollars, rounded up."""
    return int((max(dollars) * 10**12).to_integral_value(ROUND_CEILING))
