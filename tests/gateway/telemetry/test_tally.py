"""What a scrape adds up from the lines that the ledger got since the last one."""

from __future__ import annotations

import sqlite3

import pytest

from gateway.money.sqlite import SqliteStore
from gateway.money.usage import Usage
from gateway.telemetry import tally as module
from gateway.telemetry.series import OTHER, Histogram, Sums
from gateway.telemetry.tally import MOST_TENANTS, Tally
from tests.support.money import attempt, entry

BEGAN_S = 1_795_000_000
NOW_US = BEGAN_S * 1_000_000


@pytest.fixture
def store(tmp_path):
    store = SqliteStore(tmp_path / "ledger.db")
    store.open()
    yield store
    store.close()


@pytest.fixture
def tally(store, tmp_path):
    return Tally(f"sqlite:///{tmp_path / 'ledger.db'}", BEGAN_S)


def test_what_came_before_the_gateway_began_is_not_counted_and_nothing_twice(store, tally):
    store.commit([entry("old", started_at_us=NOW_US - 1)], [])
    store.commit([entry("a"), entry("b", cache="exact", model="")], [])
    tally.look()
    store.commit([entry("c", state="failed", model="")], [])
    tally.look()
    found = tally.look()

    assert found.requests.values == {
        ("auto", "mini", "miss", "settled"): 1,
        ("auto", "", "exact", "settled"): 1,
        ("auto", "", "miss", "failed"): 1,
    }
    assert found.tenant_requests.values == {("platform",): 3}
    assert found.durations.cumulative()["auto", "miss"][-1] == 1


def test_a_ledger_that_was_vacuumed_is_read_on_from_where_it_was(store, tally, tmp_path):
    store.commit([entry(f"r{number}") for number in range(9)], [])
    tally.look()
    store.close()
    with sqlite3.connect(tmp_path / "ledger.db") as other:
        other.execute("DELETE FROM entry WHERE request_id IN ('r1', 'r2')")
        other.commit()
        other.execute("VACUUM")
    other.close()
    again = SqliteStore(tmp_path / "ledger.db")
    again.open()
    again.commit([entry("new")], [])
    again.close()

    assert sum(tally.look().requests.values.values()) == 10


def test_many_lines_are_read_in_pieces(store, tally, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 3)
    monkeypatch.setattr(module, "STEPS", 2)
    store.commit([entry(f"r{number}") for number in range(8)], [])

    assert sum(tally.look().requests.values.values()) == 6
    assert sum(tally.look().requests.values.values()) == 8


def test_times_are_counted_in_their_classes_and_only_where_something_was_streamed(store, tally):
    store.commit(
        [
            entry("whole", latency_us=250_000, ttft_us=250_000),
            entry("stream", stream=True, latency_us=3_000_000, ttft_us=400_000),
        ],
        [
            attempt("whole", latency_us=240_000, ttft_us=240_000),
            attempt(
                "stream",
                usage=Usage(input=7, output=21, reasoning=5, cached_input=2),
                latency_us=2_900_000,
                ttft_us=400_000,
            ),
            attempt("stream", 1, outcome="error", model="large", latency_us=9, cost_nano_usd=0),
        ],
    )
    found = tally.look()

    whole = found.durations.cumulative()["auto", "miss"]
    assert whole[module.DURATIONS.index(0.1)] == 0
    assert whole[module.DURATIONS.index(0.25)] == 1  # a bound belongs to its class
    assert whole[module.DURATIONS.index(5.0)] == whole[-1] == 2
    assert found.durations.seconds.values["auto", "miss"] == pytest.approx(3.25)
    assert found.first.cumulative()["auto", "miss"][-1] == 1
    assert found.per_token.cumulative()["mini",][module.PER_TOKEN.index(0.1)] == 1
    assert found.per_token.seconds.values["mini",] == pytest.approx(0.1)
    assert found.call_durations.cumulative().keys() == {("mini",)}
    assert found.calls.values["large", "serve", "error"] == 1
    assert found.tokens.values["mini", "output"] == 71
    assert found.tokens.values["mini", "cached_input"] == 2


def test_of_ten_thousand_tenants_few_are_told_apart_and_nobody_is_lost(store, tmp_path):
    tally = Tally(f"sqlite:///{tmp_path / 'ledger.db'}", BEGAN_S, ["vip"])
    for first in range(0, 10_000, 2_500):
        numbers = range(first, first + 2_500)
        store.commit([entry(f"r{n}", tenant=f"tenant-{n}") for n in numbers], [])
        found = tally.look()
    store.commit([entry("last", tenant="vip")], [])
    found = tally.look()

    assert len(found.tenant_requests.values) == MOST_TENANTS + 1
    assert found.tenant_requests.values["vip",] == 1
    assert sum(found.tenant_requests.values.values()) == 10_001
    assert found.tenant_requests.values[OTHER,] == 10_001 - MOST_TENANTS
    assert found.tenant_nano_usd.values.keys() == found.tenant_requests.values.keys()


def test_a_line_once_told_apart_never_falls():
    sums, histogram = Sums(2), Histogram((1.0,), 2)
    for name in ("a", "b", "c", "a", "d"):
        sums.add((name,), 1)
        histogram.add((name,), 0, 1, 0.5)

    assert sums.values == {("a",): 2, ("b",): 1, (OTHER,): 2}
    assert histogram.cumulative() == {("a",): [2, 2], ("b",): [1, 1], (OTHER,): [2, 2]}
