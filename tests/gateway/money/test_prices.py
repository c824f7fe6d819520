from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices import calc_price

from gateway.money.price import cost
from gateway.money.prices import PriceError, UnknownPrice, capabilities_of, resolve_prices
from gateway.money.usage import Usage
from policies.schema import Model, Policy

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MILLION = Usage(input=1_000_000)


def _policy(**models):
    return Policy.model_validate({"version": 1, "models": models})


def _price(model, at=NOW):
    return resolve_prices(_policy(m=model), at).for_model("m")


def test_the_policys_own_price_wins_and_its_gaps_follow_input_and_output():
    price = _price(
        {
            "provider": "openai",
            "model": "gpt-4o",
            "price": {"input_per_mtok_usd": "0.30", "output_per_mtok_usd": 0.6},
        }
    )

    assert price.input == price.cached_input == price.cache_write == Decimal("3E-7")
    assert price.output == price.reasoning == Decimal("6E-7")
    assert price.source == "policy"


def test_stated_cached_and_reasoning_prices_are_kept_even_when_zero():
    price = _price(
        {
            "provider": "openai",
            "price": {
                "input_per_mtok_usd": 2,
                "output_per_mtok_usd": 8,
                "cached_input_per_mtok_usd": 0,
                "cache_write_per_mtok_usd": 3,
                "reasoning_per_mtok_usd": 9,
            },
        }
    )

    assert price.cached_input == 0
    assert price.cache_write == Decimal("3E-6")
    assert price.reasoning == Decimal("9E-6")


def test_a_machine_hour_is_a_price():
    price = _price({"provider": "local", "price": {"machine_hour_usd": 0.40}})

    assert price.is_hourly
    assert cost(Usage(input=5, output=5, compute_s=9.0), price) == Decimal("0.001")


@pytest.mark.parametrize(
    "written", [{}, {"input_per_mtok_usd": 1}, {"output_per_mtok_usd": 1}, None]
)
def test_an_incomplete_price_is_unknown(written):
    with pytest.raises(UnknownPrice, match=r"models\.m: .*output_per_mtok_usd"):
        _price({"provider": "openai", "model": "own", "price": written})


def test_every_model_without_a_price_is_named_with_what_to_write():
    policy = _policy(
        one={"provider": "openai", "model": "no-such-model"},
        two={"provider": "local"},
        three={"provider": "openai", "model": "gpt-4o"},
    )
    with pytest.raises(UnknownPrice) as caught:
        resolve_prices(policy, NOW)

    message = str(caught.value)
    assert "models.one: the price of 'no-such-model'" in message
    assert "models.two" in message
    assert "machine_hour_usd" in message
    assert "models.three" not in message


def test_unknown_is_free_only_where_nobody_knows_a_price():
    free = _price({"provider": "local", "price": "unknown_is_free"})
    listed = _price({"provider": "openai", "model": "gpt-4o", "price": "unknown_is_free"})

    assert free.is_unknown
    assert cost(Usage(1, 2, 3, 4, 5, 6, 7, 8.0), free) == 0
    assert not listed.is_unknown
    assert cost(MILLION, listed) > 0


def test_list_prices_come_with_their_source_and_date():
    price = _price({"provider": "openai", "model": "gpt-5-mini"})

    assert price.source.startswith("genai-prices 0.")
    assert date(2026, 1, 1) < price.dated <= NOW.date()


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4o"),
        ("openai", "gpt-4o-mini-2024-07-18"),
        ("openai", "gpt-5-mini"),
        ("openai", "o3"),
        ("openai", "gpt-4o-audio-preview"),
        ("anthropic", "claude-sonnet-4-5"),
        ("google", "gemini-2.5-pro"),
    ],
)
@pytest.mark.parametrize("prompt", [1_000, 250_000])
def test_our_calculator_agrees_with_the_tables_own(provider, model, prompt):
    price = _price({"provider": provider, "model": model})
    usage = Usage(input=prompt, cached_input=4_000, output=700, reasoning=300)
    theirs = calc_price(
        TheirUsage(
            input_tokens=prompt + 4_000,
            cache_read_tokens=4_000,
            output_tokens=1_000,
        ),
        model,
        provider_id=provider,
        genai_request_timestamp=NOW,
    )

    assert cost(usage, price) == theirs.total_price


def test_audio_has_its_listed_price():
    price = _price({"provider": "openai", "model": "gpt-audio"})

    assert price.audio > price.input
    assert price.audio_output > price.output


def test_a_price_per_call_is_charged_once_for_a_call_that_used_anything():
    price = _price({"provider": "perplexity", "model": "sonar"})

    assert cost(Usage(), price) == 0
    assert cost(Usage(input=1), price) == price.input + Decimal("0.012")


def test_the_upstreams_address_names_the_seller():
    at_groq = {
        "provider": "openai",
        "base_url": "https://api.groq.com/openai/v1",
        "model": "openai/gpt-oss-120b",
    }

    assert _price(at_groq).input > 0
    with pytest.raises(UnknownPrice):
        _price({**at_groq, "model": "gpt-4o"})


def test_an_address_nobody_knows_leaves_provider_and_model_to_decide():
    at_home = {"provider": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "gpt-4o"}

    assert _price(at_home).input == _price({"provider": "openai", "model": "gpt-4o"}).input


def test_a_price_that_follows_the_clock_says_until_when_it_holds():
    model = {"provider": "deepseek", "model": "deepseek-chat"}
    policy = _policy(m=model)
    before = datetime(2025, 6, 1, 16, 0, tzinfo=UTC)
    book = resolve_prices(policy, before)

    assert before < book.valid_until <= before + timedelta(days=1)
    assert _price(model, before) != _price(model, book.valid_until)


def test_a_book_of_fixed_prices_holds_forever():
    policy = _policy(m={"provider": "local", "price": {"machine_hour_usd": 1}})

    assert resolve_prices(policy, NOW).valid_until is None


def test_asking_for_a_model_outside_the_policy_names_those_within():
    book = resolve_prices(_policy(m={"provider": "openai", "model": "gpt-4o"}), NOW)
    with pytest.raises(UnknownPrice, match=r"'other' \(priced: m\)"):
        book.for_model("other")


# Price files


def _file(tmp_path, document):
    path = tmp_path / "prices.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def _from_file(path, **price):
    return {"provider": "recorded", "model": "some", "price": {"file": str(path), **price}}


def test_a_price_file_is_read_as_decimals_with_its_source_and_date(tmp_path):
    path = _file(
        tmp_path,
        '{"source": "contract 17", "dated": "2026-11-01", "models": {"some": '
        '{"input_per_mtok_usd": 0.1, "output_per_mtok_usd": "0.70"}}}',
    )
    price = _price(_from_file(path))

    assert price.input == Decimal("1E-7")
    assert price.output == Decimal("7E-7")
    assert (price.source, price.dated) == ("contract 17", date(2026, 11, 1))


def test_the_short_form_of_a_price_file_is_read_too(tmp_path):
    row = {"input": 0.9, "output": 1.8, "source": "size class, 70B"}
    path = _file(tmp_path, {"models_usd_per_1M": {"some": row}, "_note": "anything"})
    price = _price(_from_file(path))

    assert (price.input, price.output) == (Decimal("9E-7"), Decimal("1.8E-6"))
    assert price.source == "prices.json"


def test_the_key_in_models_finds_a_price_where_the_upstreams_name_does_not(tmp_path):
    path = _file(tmp_path, {"models_usd_per_1M": {"m": {"input": 1, "output": 2}}})

    assert _price(_from_file(path)).input == Decimal("1E-6")


def test_what_the_policy_states_beside_a_file_wins(tmp_path):
    path = _file(tmp_path, {"models_usd_per_1M": {"some": {"input": 1, "output": 2}}})
    price = _price(_from_file(path, cached_input_per_mtok_usd="0.1"))

    assert price.cached_input == Decimal("1E-7")
    assert price.output == Decimal("2E-6")


def test_a_model_missing_in_a_file_is_told_the_nearest(tmp_path):
    path = _file(tmp_path, {"models_usd_per_1M": {"some-7b": {"input": 1, "output": 2}}})
    with pytest.raises(UnknownPrice, match="nearest: 'some-7b'"):
        _price({**_from_file(path), "model": "some-8b"})


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("{", "expected JSON"),
        ("[" * 100_000, "expected JSON"),
        ("[1]", "expected an object"),
        ("{}", "found none"),
        ('{"models": []}', "models: expected an object"),
        ('{"models": {"some": 3}}', "models.some: expected an object"),
        ('{"models": {"some": {"input_per_mtok": 3}}}', "unknown input_per_mtok"),
        ('{"models": {"some": {"input_per_mtok_usd": -1}}}', "expected dollars"),
        ('{"models": {"some": {"input_per_mtok_usd": true}}}', "expected dollars"),
        ('{"models": {"some": {"input_per_mtok_usd": "much"}}}', "expected dollars"),
        ('{"models": {"some": {"input_per_mtok_usd": 1e9}}}', "expected dollars"),
        ('{"models": {"some": {"input_per_mtok_usd": NaN}}}', "NaN is no price"),
        ('{"dated": "soon", "models": {"some": {"input_per_mtok_usd": 1}}}', "expected a date"),
    ],
)
def test_a_wrong_price_file_is_refused_with_the_place(tmp_path, document, said):
    path = _file(tmp_path, document)
    with pytest.raises(PriceError, match=said) as caught:
        _price(_from_file(path))

    assert str(path) in str(caught.value)


def test_a_price_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(PriceError, match="cannot be read"):
        _price(_from_file(tmp_path / "none.json"))


# Capabilities


def test_declared_capabilities_win_over_the_table():
    model = Model(provider="openai", model="gpt-4o", context=9, tools=False)
    found = capabilities_of(model)

    assert (found.context, found.tools, found.vision) == (9, False, None)


def test_the_context_window_is_inherited_from_the_table():
    assert capabilities_of(Model(provider="openai"), "gpt-4o").context == 128_000
    assert capabilities_of(Model(provider="local"), "gpt-4o").context is None
    assert capabilities_of(Model(provider="openai", model="own")).context is None
