from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.money.errors import UnknownPrice
from gateway.money.prices import Price, PriceBook
from gateway.money.warmth import Warm, WarmPrefixes, forfeit_usd, guess_prompt, warmth_after

LONG = Price(input=Decimal(6), cached_input=Decimal("0.6"))
PRICES = PriceBook(
    {
        "warm": Price(
            input=Decimal(3), cached_input=Decimal("0.3"), tiers=((200_000, LONG),)
        ).times(Decimal("0.000001")),
        "flat": Price(input=Decimal(1), cached_input=Decimal(1)),
        "odd": Price(input=Decimal(1), cached_input=Decimal(2)),
    }
)


def body(*texts):
    return {"messages": [{"role": "user", "content": text} for text in texts]}


def test_leaving_a_warm_prefix_forfeits_what_reading_it_anew_costs_more():
    assert forfeit_usd(20_000, "warm", PRICES, 1.0) == Decimal("0.054")
    assert forfeit_usd(20_000, "warm", PRICES, 0.5) == Decimal("0.027")
    assert forfeit_usd(300_000, "warm", PRICES, 1.0) == Decimal("1.62")


def test_nothing_is_forfeited_where_nothing_is_cheaper_or_warm():
    assert forfeit_usd(20_000, "flat", PRICES, 1.0) == 0
    assert forfeit_usd(20_000, "odd", PRICES, 1.0) == 0
    assert forfeit_usd(20_000, "warm", PRICES, 0.0) == 0
    with pytest.raises(UnknownPrice):
        forfeit_usd(1, "nobody", PRICES, 1.0)


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_a_forfeit_is_never_negative_and_never_more_than_the_whole(tokens, warmth):
    forfeited = forfeit_usd(tokens, "warm", PRICES, warmth)

    assert 0 <= forfeited <= forfeit_usd(tokens, "warm", PRICES, 1.0)


@pytest.mark.parametrize(
    ("seconds", "warmth"), [(0, 1.0), (300, 1.0), (450, 0.5), (600, 0.0), (9999, 0.0)]
)
def test_a_prefix_cools_off_between_five_and_ten_minutes(seconds, warmth):
    assert warmth_after(seconds) == warmth


def test_a_conversation_is_known_as_it_grows():
    memory = WarmPrefixes()
    memory.note("a", body("1", "2"), "here", 2000, 0.0)

    assert memory.where("a", body("1", "2", "3"), 10.0) == {"here": Warm(2000, 1.0)}
    assert memory.where("a", body("1", "3"), 10.0) == {}
    assert memory.where("b", body("1", "2", "3"), 10.0) == {}
    assert memory.where("a", body("1", "2", "3"), 600.0) == {}


def test_of_each_place_the_longest_prefix_is_told():
    memory = WarmPrefixes()
    memory.note("a", body("1"), "here", 1000, 0.0)
    memory.note("a", body("1", "2"), "there", 2000, 0.0)
    memory.note("a", body("1", "2", "3"), "here", 3000, 1.0)

    found = memory.where("a", body("1", "2", "3", "4"), 2.0)

    assert {place: warm.tokens for place, warm in found.items()} == {"here": 3000, "there": 2000}


def test_other_tools_are_another_conversation():
    memory = WarmPrefixes()
    memory.note("a", body("1"), "here", 1000, 0.0)

    assert memory.where("a", {**body("1"), "tools": [1]}, 1.0) == {}


def test_memory_is_bounded():
    memory = WarmPrefixes(most=10)
    for count in range(100):
        memory.note("a", body(str(count)), "here", 1000, float(count))

    assert len(memory) == 10
    assert memory.where("a", body("0"), 100.0) == {}


def test_only_prompts_long_enough_to_be_cached_have_a_length():
    assert guess_prompt(body("x" * 4000)) is None
    assert guess_prompt(body("x" * 4000, "y" * 400)) == 1100
    assert guess_prompt({"messages": [{"content": [{"type": "text", "text": "x" * 8000}]}]}) == 2000
    assert guess_prompt({}) is None
