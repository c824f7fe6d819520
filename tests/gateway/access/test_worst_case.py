from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.keys import ANONYMOUS
from gateway.access.worst_case import WorstCase, expected_tokens, models_of
from gateway.money.estimate import estimate_usage
from gateway.money.price import Price, cost, to_nano
from gateway.money.prices import PriceBook
from gateway.money.usage import Usage
from gateway.request import parse_chat
from router.types import Capabilities
from tests.policies.support import load, routes

TOKENS = Price(input=Decimal("0.000001"), output=Decimal("0.000002"))
LONG = Price(
    input=Decimal("0.000001"),
    output=Decimal("0.000002"),
    tiers=((200_000, Price(input=Decimal("0.000003"), output=Decimal("0.000004"))),),
)
ROUTE = load(routes("  r: {model: mini}")).routes["r"]


def _request(content="hi", **members):
    body = {"model": "r", "messages": [{"role": "user", "content": content}], **members}
    return parse_chat(json.dumps(body).encode(), {}, "id")


def _worst(price, **known):
    return WorstCase(PriceBook({"mini": price}), {"mini": Capabilities(**known)})


@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200),
    st.integers(1, 5000),
    st.integers(1, 4),
    st.decimals(0, "0.0001", places=9),
    st.decimals(0, "0.0001", places=9),
)
def test_no_bill_within_the_bounds_passes_what_is_set_aside(text, most, choices, dear, cheap):
    request = _request(text, max_tokens=most, n=choices)
    price = Price(input=dear, cached_input=cheap, cache_write=dear, output=dear, reasoning=cheap)
    prompt = estimate_usage(request.body, "").upper.input
    bill = cost(Usage(input=prompt, output=most * choices), price)

    assert _worst(price).nano_usd(request, ROUTE, ["mini"]) >= to_nano(bill)


@pytest.mark.parametrize(
    ("asked", "known", "tokens"),
    [
        (100, {}, 100),
        (None, {"max_output": 50}, 50),
        (100, {"max_output": 50}, 50),
        (None, {"context": 70}, 70),
        (None, {}, 131_072),
    ],
)
def test_an_answer_is_bounded_by_whoever_states_the_least(asked, known, tokens):
    free_prompts = Price(output=Decimal("0.000002"))
    request = _request(**({"max_tokens": asked} if asked else {}))

    assert _worst(free_prompts, **known).nano_usd(request, ROUTE, ["mini"]) == tokens * 2000


def test_the_dearest_of_tiered_prices_counts():
    request = _request(max_tokens=1000)
    plain = _worst(TOKENS).nano_usd(request, ROUTE, ["mini"])

    assert _worst(LONG).nano_usd(request, ROUTE, ["mini"]) > 2 * plain - 1_000_000


def test_a_machine_of_ours_is_bounded_by_the_time_that_one_call_may_take():
    hourly = Price(machine_hour_usd=Decimal(36))
    nano = _worst(hourly).nano_usd(_request(), ROUTE, ["mini"])

    assert nano == ROUTE.timeouts.total * 10_000_000


def test_a_stream_that_may_be_hedged_may_cost_one_call_more():
    hedged = load(routes("  r: {model: mini, hedge: {after: 1s}}")).routes["r"]
    worst = _worst(TOKENS)
    whole, stream = _request(max_tokens=10), _request(max_tokens=10, stream=True)

    assert worst.nano_usd(stream, hedged, ["mini"]) == 2 * worst.nano_usd(stream, ROUTE, ["mini"])
    assert worst.nano_usd(whole, hedged, ["mini"]) == worst.nano_usd(whole, ROUTE, ["mini"])


def test_every_call_that_may_come_is_counted():
    text = """
  plain: {model: tiny, fallback: [large]}
  steps: {cascade: {tiers: [tiny, mini, large]}}
  agree: {cascade: {tiers: [tiny, large], confidence: {kind: agreement, with: mini}}}
  ruled: {model: tiny, rules: [{when: {stream: false}, model: large}]}
"""
    policy = load(routes(text))
    facts = _request().facts(ANONYMOUS)

    assert {name: models_of(route, facts) for name, route in policy.routes.items()} == {
        "plain": ["tiny", "large"],
        "steps": ["tiny", "mini", "large"],
        "agree": ["tiny", "large", "mini"],
        "ruled": ["large"],
    }


def test_an_images_bytes_are_not_taken_for_tokens():
    url = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}
    request = _request([url, {"type": "text", "text": "what is this?"}], max_tokens=10)
    tokens_in, tokens_out = expected_tokens(request, request.facts(ANONYMOUS))

    assert tokens_in < 2000
    assert tokens_out == 10


@given(st.sampled_from(["", "flex", "priority"]), st.integers(1, 5000))
def test_a_service_tier_that_is_asked_for_is_set_aside_at_its_own_price(tier, most):
    dear = {"flex": TOKENS.times(Decimal("0.5")), "priority": TOKENS.times(Decimal(2))}
    price = replace(TOKENS, services=dear)
    request = _request("words", max_tokens=most, **({"service_tier": tier} if tier else {}))
    prompt = estimate_usage(request.body, "").upper.input
    bill = to_nano(cost(Usage(input=prompt, output=most, tier=tier), price))

    assert _worst(price).nano_usd(request, ROUTE, ["mini"]) >= bill
    assert _worst(price).nano_usd(_request("words", max_tokens=most), ROUTE, ["mini"]) == (
        _worst(TOKENS).nano_usd(_request("words", max_tokens=most), ROUTE, ["mini"])
    )


def test_a_prefix_written_for_an_hour_is_set_aside_at_its_price():
    written = replace(TOKENS, cache_write_1h=Decimal("0.000002"))
    dear = replace(TOKENS, input=Decimal("0.000002"))
    request = _request(max_tokens=1)

    assert _worst(written).nano_usd(request, ROUTE, ["mini"]) == (
        _worst(dear).nano_usd(request, ROUTE, ["mini"])
    )
