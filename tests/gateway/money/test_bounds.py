from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from gateway.money.bounds import least_usd, rates_of
from gateway.money.price import Price, cost, to_nano
from gateway.money.usage import Usage

dollars = st.decimals(0, "0.001", places=9)
tokens = st.integers(0, 1_000_000)


@st.composite
def prices(draw, *, tiers=True):
    names = ("input", "cached_input", "cache_write", "cache_write_1h", "output", "reasoning")
    own = {name: draw(dollars) for name in (*names, "per_call")}
    above = ((draw(tokens), draw(prices(tiers=False))),) if tiers and draw(st.booleans()) else ()
    return Price(**own, machine_hour_usd=draw(dollars) * 1000, tiers=above)


@st.composite
def usages(draw):
    names = ("input", "cached_input", "cache_write", "cache_write_1h", "output", "reasoning")
    counts = {name: draw(tokens) for name in names}
    return Usage(**counts, compute_s=draw(st.floats(0, 600)), tier=draw(tiers))


tiers = st.sampled_from(["", "flex", "priority"])


@given(prices(), st.decimals("0.5", 3, places=1), usages())
def test_no_split_of_the_tokens_costs_more_than_the_bound(price, factor, usage):
    price = replace(price, services={"priority": price.times(factor)})
    rates = rates_of(price, any_service=usage.tier == "priority")
    tokens_out = usage.output + usage.reasoning
    bound = rates.most_nano(usage.total - tokens_out, tokens_out, usage.compute_s)

    # The machine's time may be rounded by a nano-dollar.
    assert to_nano(cost(usage, price)) <= bound + 1


def test_pictures_and_speech_have_bounds_of_their_own():
    price = Price(input=Decimal("1e-6"), image=Decimal("5e-6"), output=Decimal("2e-6"),
                  audio_output=Decimal("9e-6"))  # fmt: skip
    rates = rates_of(price)

    assert rates.most_nano(10, 10, 0.0) == 10 * 1_000 + 10 * 2_000
    assert rates.most_nano(10, 10, 0.0, is_rich=True) == 10 * 5_000 + 10 * 2_000
    assert rates.most_nano(10, 10, 0.0, is_spoken=True) == 10 * 1_000 + 10 * 9_000


@given(prices(), st.decimals("0.5", 3, places=1), usages())
def test_no_split_of_the_tokens_costs_less_than_the_least(price, factor, usage):
    price = replace(price, services={"flex": price.times(factor)})
    tokens_out = usage.output + usage.reasoning
    # Reading from a cache, not writing to one, is what may be cheaper than reading afresh.
    price = replace(price, cache_write=price.input, cache_write_1h=price.input)
    tokens_in = usage.input + usage.cached_input

    assert least_usd(tokens_in, tokens_out, price) <= cost(usage, price)
