from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.providers.prefixes import CacheRates, Mark, PrefixMemory, best_ttl

RATES = CacheRates()
LEAST = 1000
chances = st.floats(0, 1)


def marks(*names, tokens=5000):
    kinds = {"t": "tools", "s": "system"}
    return [Mark(kinds.get(name[0], "turn"), name.encode(), tokens) for name in names]


def plan(memory, now, *names, tenant="a", tokens=5000):
    return memory.plan(tenant, marks(*names, tokens=tokens), now)


def memory_of(rates=RATES, **options):
    return PrefixMemory(rates, least_tokens=LEAST, **options)


# Whether it pays


@pytest.mark.parametrize(
    ("soon", "later", "ttl"),
    [
        (0.0, 0.0, None),
        (0.21, 0.21, None),
        (0.22, 0.22, "5m"),
        (0.0, 0.52, None),
        (0.0, 0.53, "1h"),
        (0.5, 0.6, "5m"),
        (0.3, 0.9, "1h"),
        (1.0, 1.0, "5m"),
    ],
)
def test_a_prefix_is_kept_from_its_break_even_on(soon, later, ttl):
    assert best_ttl(soon, later, RATES) == ttl


@given(chances, chances)
def test_what_is_kept_is_expected_to_cost_less_than_what_is_not(soon, more):
    later = max(soon, more)
    ttl = best_ttl(soon, later, RATES)
    expected = {
        None: 1.0,
        "5m": soon * RATES.read + (1 - soon) * RATES.write,
        "1h": later * RATES.read + (1 - later) * RATES.write_1h,
    }

    assert expected[ttl] == min(expected.values())


def test_a_cache_that_is_no_cheaper_to_read_is_never_used():
    assert best_ttl(1.0, 1.0, CacheRates(1.0, 1.0, 1.0)) is None


# What is learned


def test_nothing_is_written_for_a_first_prompt():
    assert plan(memory_of(), 0.0, "sys", "1") == [None, None]


def test_a_prefix_that_comes_again_soon_is_written_and_then_read():
    memory = memory_of()
    plan(memory, 0.0, "sys", "1")

    assert plan(memory, 60.0, "sys", "2")[0] == "5m"
    assert plan(memory, 120.0, "sys", "3")[0] == "5m"


def test_a_prefix_that_comes_again_after_an_hour_is_left_alone():
    memory = memory_of()
    for hour in range(9):
        kept = plan(memory, hour * 4000.0, "sys", str(hour))

        assert kept == [None, None]


def test_a_prefix_that_comes_every_half_hour_is_kept_for_an_hour():
    memory = memory_of()
    for count in range(9):
        kept = plan(memory, count * 1800.0, "sys", str(count))

    assert kept[0] == "1h"


def test_a_tenant_whose_prefixes_come_again_has_new_ones_written_at_once():
    memory = memory_of()
    for count in range(20):
        plan(memory, count * 100.0, f"sys{count // 4}", str(count))

    assert plan(memory, 2000.0, "sys-new", "x")[0] == "5m"
    assert plan(memory, 2000.0, "sys-new2", "x", tenant="b")[0] is None


def test_a_conversation_is_read_up_to_where_it_was_written():
    memory = memory_of()
    turns = []
    for count in range(8):
        turns.append(f"{count}")
        kept = plan(memory, count * 30.0, "sys", *turns)

    # The system prompt, the last turn that was written, and the whole prompt.
    assert kept == ["5m", *[None] * 6, "5m", "5m"]


def test_what_is_warm_is_read_even_where_it_would_not_be_written():
    memory = memory_of()
    plan(memory, 0.0, "sys", "1")
    plan(memory, 10.0, "sys", "2")
    for count in range(50):  # others of the tenant come once, so that new ones do not pay
        plan(memory, 11.0, f"s{count}", "x")

    assert plan(memory, 300.0, "sys", "3")[0] == "5m"


def test_short_prefixes_are_neither_kept_nor_remembered():
    memory = memory_of()
    for now in range(5):
        assert plan(memory, float(now), "sys", "1", tokens=LEAST - 1) == [None, None]

    assert len(memory) == 0


def test_memory_is_bounded():
    memory = memory_of(most=10)
    for count in range(100):
        plan(memory, float(count), f"s{count}", f"{count}")

    assert len(memory) <= 10


class Traffic(RuleBasedStateMachine):
    """Prompts of several tenants, at any distance in time."""

    def __init__(self):
        super().__init__()
        self.memory = PrefixMemory(RATES, least_tokens=LEAST, most=20)
        self.now = 0.0
        self.kept = []
        self.marks = []

    @rule(
        tenant=st.sampled_from("ab"),
        sections=st.lists(st.sampled_from(["tools", "system"]), unique=True),
        turns=st.integers(0, 8),
        conversation=st.integers(0, 3),
        after=st.sampled_from([0.1, 30.0, 400.0, 2000.0, 10_000.0]),
        sizes=st.integers(1, 3000),
    )
    def ask(self, tenant, sections, turns, conversation, after, sizes):
        self.now += after
        kinds = [*sorted(sections, reverse=True), *["turn"] * (turns + 1)]
        self.marks = [
            Mark(kind, f"{tenant}{conversation}{kind}{place}".encode(), sizes * (place + 1))
            for place, kind in enumerate(kinds)
        ]
        self.kept = self.memory.plan(tenant, self.marks, self.now)

    @invariant()
    def at_most_four_are_kept(self):
        assert sum(ttl is not None for ttl in self.kept) <= 4

    @invariant()
    def an_hour_stands_before_five_minutes(self):
        told = [ttl for ttl in self.kept if ttl is not None]
        assert told == sorted(told)  # "1h" before "5m"

    @invariant()
    def short_ones_are_not_kept(self):
        pairs = zip(self.marks, self.kept, strict=True)
        assert all(ttl is None or mark.tokens >= LEAST for mark, ttl in pairs)

    @invariant()
    def memory_is_bounded(self):
        assert len(self.memory) <= 20


TestTraffic = Traffic.TestCase
