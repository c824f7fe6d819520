"""A budget holds whatever providers bill, also for calls that were cut off or never reported."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal

from hypothesis import event, given, settings
from hypothesis import strategies as st

from gateway.access.keys import ANONYMOUS
from gateway.access.meters import Claim, Purse, Taken
from gateway.access.stores.memory import MemoryLimits
from gateway.access.worst_case import WorstCase, longest_answer
from gateway.attempt import Tariff
from gateway.clock import Clock
from gateway.entry import Entry
from gateway.errors import ProviderProtocolError, ProviderTimeout, ProviderUnavailable
from gateway.money.price import Price, cost, to_nano
from gateway.money.prices import PriceBook
from gateway.money.usage import Usage
from gateway.request import parse_chat
from gateway.wire import Part
from policies.schema import Route
from router.types import Capabilities

PRICE = Price(input=Decimal("0.000001"), output=Decimal("0.00001"), cached_input=Decimal(0))
BOOK = PriceBook({"mini": PRICE, "plain": PRICE})
ABLE = {"mini": Capabilities(max_output=3000), "plain": Capabilities(max_output=3000)}
TARIFF = Tariff(
    BOOK, {name: longest_answer(able) for name, able in ABLE.items()}, plain=frozenset({"plain"})
)
WORST = WorstCase(BOOK, ABLE)
ROUTE = Route.model_validate({"model": "mini"})
CLOCK = Clock(wall=lambda: 1e9, tick=lambda: 1.0)
LIMIT = 60_000_000
PURSE = Purse(
    "key:a:total:", "key:a:total", ("key", "a"), "the budget of key 'a'", LIMIT, "refuse", True,
    0.0, float("inf"),
)  # fmt: skip
REPORTED, WHOLE, CUT, STALLED, LEFT, DOWN = ["reported", "whole", "cut", "stalled", "left", "down"]


@dataclass
class Call:
    """One request, and what its provider makes of it: `work` is the share of the most it may do."""

    model: str
    prompt: str
    most: int | None
    said: str
    end: str
    work: float


calls = st.builds(
    Call,
    st.sampled_from(["mini", "plain"]),
    st.text("a é", max_size=40),
    st.one_of(st.none(), st.integers(1, 4000)),
    st.text("bc ", max_size=300),
    st.sampled_from([REPORTED, WHOLE, CUT, STALLED, LEFT, DOWN]),
    st.floats(0, 1),
)


class Way:
    """One call's way from its reservation to its settlement."""

    def __init__(self, call: Call, store: MemoryLimits) -> None:
        body = {"model": call.model, "messages": [{"role": "user", "content": call.prompt}]}
        body |= {"max_tokens": call.most} if call.most else {}
        self.call = call
        self.entry = Entry(
            parse_chat(json.dumps(body).encode(), {}, "r"), ANONYMOUS, "auto", ROUTE, CLOCK
        )
        self.store = store
        self.reserved = WORST.nano_usd(self.entry.request, ROUTE, [call.model])
        self.claim = Claim((), (), ((PURSE, self.reserved),))
        self.is_in = isinstance(store.take_now(self.claim), Taken)

    def end(self) -> int:
        """Make the call, settle what the gateway knows of it, and return what it is billed."""
        attempt, billed = self.entry.attempt(self.call.model), self._billed()
        self.entry.serve(attempt)
        if self.call.end not in (STALLED, DOWN):
            used = billed if self.call.end == REPORTED else None
            attempt.see(Part(b"", self._said(), None, used))
        if self.call.end in (REPORTED, WHOLE):
            attempt.end()
        elif self.call.end == LEFT:
            self.entry.abandon()
        else:
            kinds = {CUT: ProviderProtocolError, STALLED: ProviderTimeout}
            attempt.fail(kinds.get(self.call.end, ProviderUnavailable)("it ended"))
        record, (line,) = self.entry.settle(TARIFF)
        bill = to_nano(cost(billed, PRICE))

        assert line.lower_nano_usd <= bill <= line.upper_nano_usd
        held = record.held_nano_usd(abandoned_at_most=True)
        assert held == line.upper_nano_usd <= self.reserved
        is_left = self.call.end == LEFT
        usual = record.held_nano_usd(abandoned_at_most=False)
        assert usual == (record.cost_nano_usd if is_left else held)
        self.store.settle(self.claim, tokens=0, nano_usd=held)
        return bill

    @property
    def limit(self) -> int:
        return longest_answer(ABLE[self.call.model], self.call.most)

    def _said(self) -> str:
        return self.call.said[: self.limit]

    def _billed(self) -> Usage:
        """Bill what was said at a token a word at least, and thoughts and what nobody has seen."""
        call = self.call
        if call.end == DOWN:
            return Usage()
        seen = min(self.limit, len(self._said().split()) + bool(self._said()))
        could_do_more = call.model == "mini" or call.end in (CUT, STALLED, LEFT)
        more = int((self.limit - seen) * call.work) if could_do_more else 0
        asked = round((len(call.prompt.encode()) + 20) * call.work) + bool(call.prompt.strip())
        return Usage(input=asked, output=seen, reasoning=more)


@settings(max_examples=200, deadline=None)
@given(st.lists(calls, max_size=20), st.integers(1, 4))
def test_bills_never_pass_the_budget_however_calls_end(all_calls, at_once):
    store = MemoryLimits(lambda: 0.0)
    _seeded(store)
    billed, under_way = 0, []
    for call in all_calls:
        way = Way(call, store)
        under_way += [way] if way.is_in else []
        event("let in" if way.is_in else "refused")
        if len(under_way) >= at_once:
            billed += under_way.pop(0).end()
        assert billed <= LIMIT
    billed += sum(way.end() for way in under_way)

    spent, held = store.used(PURSE)
    assert billed <= spent <= LIMIT
    assert held == 0


def _seeded(store: MemoryLimits) -> None:
    try:
        store.seed(PURSE, 0).send(None)
    except StopIteration:
        return
