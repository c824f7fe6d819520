"""How much of a prompt is known to be cached, and what asking each model then costs."""

from __future__ import annotations

from decimal import Decimal

import pytest

from gateway.access.keys import Caller
from gateway.affinity import Affinity
from gateway.clock import Clock
from gateway.entry import Entry
from gateway.money.price import Price
from gateway.money.prices import PriceBook
from gateway.money.usage import Usage
from gateway.request import parse_chat
from policies.loader import parse_policy
from tests.support.gateway_app import asking
from tests.support.policies import policy, remote

MILLION = Decimal("0.000001")
PROMPT = "word " * 1_000
CACHES_ITSELF = Price(
    input=Decimal(4), cached_input=Decimal(1), cache_write=Decimal(4), output=Decimal(8)
).times(MILLION)
WRITES_COST = Price(
    input=Decimal(4), cached_input=Decimal(1), cache_write=Decimal(5), output=Decimal(8)
).times(MILLION)
CHEAP = Price(input=Decimal(1), cached_input=Decimal(1), output=Decimal(2)).times(MILLION)


def affinity(large):
    models = {name: remote("http://127.0.0.1:1/v1") for name in ("small", "large")}
    text = policy(models, {"auto": {"cascade": {"tiers": ["small", "large"]}}})
    checked = parse_policy(text, name="policy.yaml", env={})
    return Affinity(checked, PriceBook({"small": CHEAP, "large": large}), Clock()), checked


def entry_of(checked, body):
    from msgspec.json import encode

    request = parse_chat(encode(body), {}, "req_1")
    return Entry(request, Caller("key", "tenant"), "auto", checked.routes["auto"], Clock())


def staked(large, usage, **members):
    known, checked = affinity(large)
    entry = entry_of(checked, asking(PROMPT, **members))
    attempt = entry.attempt("large")
    attempt.usage = usage
    known.note(attempt, entry)
    return known.stakes(entry)


@pytest.mark.parametrize(
    ("large", "usage", "tokens"),
    [
        (CACHES_ITSELF, Usage(input=200, cached_input=1_000), 1_200),
        (CACHES_ITSELF, None, 1_250),  # four bytes a token
        (CACHES_ITSELF, Usage(input=10**9), 5_060),  # never more than the bytes that were sent
        (WRITES_COST, Usage(input=200, cached_input=700, cache_write=300), 1_000),
    ],
)
def test_what_a_provider_caches_is_staked(large, usage, tokens):
    stake = staked(large, usage)["large"]

    assert stake.forfeit_usd == pytest.approx(tokens * 3e-6, rel=0.02)


@pytest.mark.parametrize("usage", [Usage(input=1_200), None])
def test_what_was_not_written_is_not_cached_where_writing_costs(usage):
    assert not staked(WRITES_COST, usage)


def test_models_whose_cache_saves_nothing_hold_nobody():
    assert not staked(CHEAP, Usage(input=1_200))


def test_answer_is_reckoned_as_long_as_the_earlier_ones_and_no_longer_than_asked():
    answered = {"role": "assistant", "content": "four" * 100}
    messages = [{"role": "user", "content": PROMPT}, answered, {"role": "user", "content": "?"}]
    usual = staked(CACHES_ITSELF, Usage(input=1_200), messages=messages)["small"]
    short = staked(CACHES_ITSELF, Usage(input=1_200), messages=messages, max_tokens=10)["small"]

    assert usual.usd - short.usd == pytest.approx(90 * 2e-6, rel=0.05)
