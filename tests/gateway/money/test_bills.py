"""Whole bills, added up by hand from the providers' price lists."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from gateway.money.price import cost, to_nano
from gateway.money.prices import resolve_prices
from gateway.money.usage import Usage
from policies.schema import Policy

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def price_of(model, at=NOW):
    policy = Policy.model_validate({"version": 1, "models": {"m": model}})
    return resolve_prices(policy, at).for_model("m")


def bill(usage, model, at=NOW):
    return to_nano(cost(usage, price_of(model, at)))


def remote(name, provider="openai", **price):
    return {"provider": provider, "model": name, **({"price": price} if price else {})}


WRITTEN = {"input_per_mtok_usd": "3", "output_per_mtok_usd": "15"}


@pytest.mark.parametrize(
    ("model", "usage", "nano"),
    [
        # 1000 · 1.25 + 3000 · 0.125 + 500 · 10 + 200 · 10 = 8 625 dollars a million million
        ("gpt-5", Usage(1000, 3000, 0, 500, 200), 8_625_000),
        # at half price: flex
        ("gpt-5", Usage(1000, 3000, 0, 500, 200, tier="flex"), 4_312_500),
        # and twice: priority
        ("gpt-5", Usage(1000, 3000, 0, 500, 200, tier="priority"), 17_250_000),
        ("gpt-5", Usage(1000, 3000, 0, 500, 200, tier="batch"), 4_312_500),
        # 271 000 tokens: 5 and 30 dollars; 273 000: every token at 10 and 45
        ("gpt-5.5", Usage(271_000, output=1000), 1_385_000_000),
        ("gpt-5.5", Usage(273_000, output=1000), 2_775_000_000),
        ("gpt-5.5", Usage(200_000, 73_000, output=1000), 2_118_000_000),
        ("gpt-5.5", Usage(273_000, output=1000, tier="flex"), 1_387_500_000),
        ("gpt-5.5", Usage(100_000, output=1000, tier="batch"), 265_000_000),
    ],
)
def test_openais_list_prices(model, usage, nano):
    assert bill(usage, remote(model)) == nano


@pytest.mark.parametrize(
    ("model", "usage", "nano"),
    [
        # 21 · 5 + 188 086 · 0.5 + 456 · 6.25 + 244 · 10 + 393 · 25
        ("claude-opus-5", Usage(21, 188_086, 456, 300, 93, cache_write_1h=244), 109_263_000),
        ("claude-opus-5", Usage(1000, output=100, tier="batch"), 3_750_000),
        # below and above 100 000 tokens of prompt, cached ones counted
        ("claude-haiku-5-5", Usage(1000, 99_000, output=100), 1_140_000),
        ("claude-haiku-5-5", Usage(1001, 99_000, output=100), 5_700_500),
    ],
)
def test_anthropics_list_prices(model, usage, nano):
    assert bill(usage, remote(model, "anthropic")) == nano


def test_a_price_changes_on_its_day():
    model = remote("claude-opus-4-6", "anthropic")
    long = Usage(300_000, output=1000)

    assert bill(long, model, datetime(2026, 3, 12, 23, 59, tzinfo=UTC)) == 3_037_500_000
    assert bill(long, model, datetime(2026, 3, 13, 0, 0, tzinfo=UTC)) == 1_525_000_000


def test_a_service_tier_nobody_prices_costs_the_standard_price():
    assert bill(Usage(1000, tier="scale"), remote("gpt-5")) == bill(Usage(1000), remote("gpt-5"))


def test_a_negotiated_discount_comes_off_the_list_price():
    whole = bill(Usage(1000, 3000, 0, 500, 200), remote("gpt-5"))

    assert bill(Usage(1000, 3000, 0, 500, 200), remote("gpt-5", discount=0.15)) == 7_331_250
    assert whole * 85 // 100 == 7_331_250
    assert price_of(remote("gpt-5", discount=0.15)).source.startswith("genai-prices")


def test_a_discount_comes_off_service_tiers_and_long_prompts_too():
    model = remote("gpt-5.5", discount="0.5")

    assert bill(Usage(273_000, output=1000), model) == 1_387_500_000
    assert bill(Usage(273_000, output=1000, tier="flex"), model) == 693_750_000


def test_a_written_price_has_its_own_long_prompts_services_and_discount():
    model = remote(
        "own",
        **WRITTEN,
        long_prompts=[
            {"over_tokens": 400_000, "input_per_mtok_usd": 9},
            {"over_tokens": 200_000, "input_per_mtok_usd": 6, "output_per_mtok_usd": "22.5"},
        ],
        services={"priority": 2, "batch": 0.5},
        discount=0.1,
    )

    assert bill(Usage(1000, output=100), model) == 4_050_000  # 0.9 · (3000 + 1500)
    assert bill(Usage(1000, output=100, tier="priority"), model) == 8_100_000
    assert bill(Usage(1000, output=100, tier="batch"), model) == 2_025_000
    assert bill(Usage(200_001, output=100), model) == to_nano(
        Decimal("0.9") * (200_001 * Decimal(6) + 100 * Decimal("22.5")) / 10**6
    )
    assert bill(Usage(400_001), model) == to_nano(Decimal("0.9") * 400_001 * 9 / 10**6)
    assert bill(Usage(400_001, tier="batch"), model) == to_nano(
        Decimal("0.45") * 400_001 * 9 / 10**6
    )


def test_a_written_price_of_anthropics_knows_its_cache():
    usage = Usage(1000, 10_000, 2000, 100, cache_write_1h=3000)

    # 1000 · 3 + 10 000 · 0.3 + 2000 · 3.75 + 3000 · 6 + 100 · 15
    assert bill(usage, remote("own", "anthropic", **WRITTEN)) == 33_000_000
    # elsewhere nobody promised a cheaper read: 16 000 · 3 + 1500
    assert bill(usage, remote("own", **WRITTEN)) == 49_500_000


def test_audio_and_images_have_their_own_prices():
    usage = Usage(1000, output=100, audio=200, image=300, audio_output=50)
    model = remote(
        "own",
        **WRITTEN,
        audio_per_mtok_usd=40,
        audio_output_per_mtok_usd=80,
        image_per_mtok_usd=8,
        cache_write_1h_per_mtok_usd=1,
    )

    # 3000 + 1500 + 8000 + 2400 + 4000
    assert bill(usage, model) == 18_900_000


def test_a_discount_on_a_price_nobody_knows_is_still_no_price():
    from gateway.money.errors import UnknownPrice

    with pytest.raises(UnknownPrice, match="own"):
        price_of(remote("own", discount=0.1))
