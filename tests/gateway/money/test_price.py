from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.money.price import Price, cost, from_nano, to_nano
from gateway.money.usage import Usage

BUCKETS = (
    "input",
    "cached_input",
    "cache_write",
    "output",
    "reasoning",
    "audio",
    "audio_output",
    "image",
)
counts = st.integers(0, 10**9)
per_mtok = st.decimals(0, 10_000, places=6)


def test_each_bucket_is_charged_at_its_own_price():
    prices = {bucket: Decimal(10) ** -n for n, bucket in enumerate(BUCKETS)}
    for bucket, amount in prices.items():
        assert cost(Usage(**{bucket: 3}), Price(**prices)) == 3 * amount


def test_nothing_used_costs_nothing():
    assert cost(Usage(), Price(input=Decimal(1), machine_hour_usd=Decimal(1))) == 0


@given(st.lists(counts, min_size=8, max_size=8), st.lists(per_mtok, min_size=8, max_size=8))
def test_cost_is_the_exact_sum_of_tokens_times_price(tokens, amounts):
    usage = Usage(**dict(zip(BUCKETS, tokens, strict=True)))
    price = Price(**{b: a.scaleb(-6) for b, a in zip(BUCKETS, amounts, strict=True)})
    exact = sum(n * Fraction(a) / 10**6 for n, a in zip(tokens, amounts, strict=True))

    assert Fraction(cost(usage, price)) == exact
    assert to_nano(cost(usage, price)) == round(exact * 10**9)


@given(st.integers(0, 10**12), st.decimals(0, 1000, places=4))
def test_machine_time_costs_its_share_of_the_hour_to_the_nano_dollar(micros, hourly):
    exact = Fraction(hourly) * micros / 3_600_000_000
    nano = to_nano(cost(Usage(compute_s=micros / 1e6), Price(machine_hour_usd=hourly)))

    assert abs(nano - exact * 10**9) <= Fraction(1, 2) + Fraction(1, 10**6)


def test_a_long_prompt_pays_the_higher_tier_for_every_token():
    long = Price(input=Decimal(5), output=Decimal(9))
    longer = Price(input=Decimal(7), output=Decimal(11))
    price = Price(input=Decimal(2), output=Decimal(3), tiers=((100, long), (200, longer)))

    assert cost(Usage(input=100, output=1), price) == 203
    assert cost(Usage(input=60, cached_input=41, output=1), price) == 309
    assert cost(Usage(input=201, output=1), price) == 1418


@pytest.mark.parametrize(
    ("dollars", "nano"),
    [("0", 0), ("0.0000000005", 0), ("0.0000000015", 2), ("1.0000000005", 1_000_000_000)],
)
def test_nano_dollars_are_rounded_half_to_even(dollars, nano):
    assert to_nano(Decimal(dollars)) == nano


@given(st.integers(-(10**15), 10**15))
def test_nano_dollars_survive_the_way_there_and_back(nano):
    assert to_nano(from_nano(nano)) == nano


def test_a_price_by_the_hour_says_so():
    assert Price(machine_hour_usd=Decimal("0.4")).is_hourly
    assert not Price(input=Decimal(1)).is_hourly
