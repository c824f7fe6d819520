"""Sums that are kept: they change no report, whatever is added up or let go, and when."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.money.reports import WAYS, cost_report
from gateway.money.rollup import Rollup
from gateway.money.sqlite import SqliteStore
from gateway.money.usage import Usage
from tests.support.money import attempt, entry

HOUR_US = 3_600_000_000
START_US = 495_000 * HOUR_US
NOW = datetime.fromtimestamp((START_US + 50 * HOUR_US) / 1e6, UTC)


def _written(path, count=40):
    store = SqliteStore(path)
    store.open()
    for number in range(count):
        name = f"r{number:03}"
        store.commit(
            [
                entry(
                    name,
                    started_at_us=START_US + number * HOUR_US * 3 // 2,
                    tenant=("web", "legal")[number % 2],
                    model=("mini", "large")[number % 3 == 0],
                    cache=("miss", "exact")[number % 5 == 0],
                    cost_nano_usd=number,
                    tags=((), ("batch",), ("batch", "night"))[number % 3],
                )
            ],
            [
                attempt(name, 0, model="tiny", outcome="rejected", usage=Usage(input=number)),
                attempt(name, 1, purpose="audit", payer="gateway", cost_nano_usd=7),
            ],
        )
    store.close()
    return f"sqlite:///{path}"


def _reports(url, since=None):
    return {by: cost_report(url, by=by, since=since, now=NOW) for by in WAYS}


def _add_all(path, at_once=7):
    rollup = Rollup(path, at_once=at_once)
    while rollup.step():
        pass
    return rollup


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


@pytest.mark.parametrize("since", [None, "20h", "37h", "2026-06-20"])
def test_reports_are_the_same_before_amid_and_after_adding_up(path, since):
    url = _written(path)
    before = _reports(url, since)
    rollup = Rollup(path, at_once=12)
    amid = []
    while rollup.step():
        amid.append(_reports(url, since))
    after = _reports(url, since)

    assert len(amid) == 3
    assert [each for each in [*amid, after] if each != before] == []
    assert before["tag"].total == before["day"].total


def test_a_request_counts_in_the_group_of_each_of_its_tags(path):
    report = cost_report(_written(path), by="tag", now=NOW)

    assert [(group.name, group.requests) for group in report.groups] == [
        ("", 14), ("batch", 26), ("night", 13),
    ]  # fmt: skip
    assert report.total.requests == 40


def test_what_is_let_go_changes_no_sum(path):
    url = _written(path)
    before = _reports(url)
    rollup = _add_all(path)
    cut = START_US + 30 * HOUR_US + 1
    while rollup.prune(cut):
        pass
    with closing(sqlite3.connect(path)) as connection:
        left = connection.execute("SELECT count(*), min(started_at_us) FROM entry").fetchone()
        (calls,) = connection.execute("SELECT count(*) FROM attempt").fetchone()

    assert left == (20, START_US + 30 * HOUR_US)
    assert calls == 40
    assert _reports(url) == before


def test_a_report_from_within_an_hour_whose_lines_are_gone_takes_all_of_that_hour(path):
    url = _written(path)
    rollup = _add_all(path)
    whole = cost_report(url, by="day", since="40h", now=NOW).total
    rollup.prune(START_US + 30 * HOUR_US)

    assert cost_report(url, by="day", since="2390m", now=NOW).total == whole


def test_lines_that_were_not_added_are_never_let_go(path):
    _written(path)
    Rollup(path, at_once=10).step()
    rollup = Rollup(path)
    while rollup.prune(START_US * 2):
        pass
    with closing(sqlite3.connect(path)) as connection:
        (left,) = connection.execute("SELECT count(*) FROM entry").fetchone()

    assert left == 31  # the last one that was added marks how far they are


def test_a_request_that_is_still_open_waits_and_so_does_what_came_after(path):
    store = SqliteStore(path)
    store.open()
    store.commit([entry("a", state="open"), entry("b")], [])
    url = f"sqlite:///{path}"
    Rollup(path).step()
    store.commit([entry("a", cost_nano_usd=5)], [])
    before = cost_report(url, by="route").total
    Rollup(path).step()
    store.close()

    assert before.cost_nano_usd == 1_005
    assert cost_report(url, by="route").total == before


def test_rows_numbered_anew_are_not_added_twice(path):
    url = _written(path)
    before = _reports(url)
    rollup = _add_all(path)
    while rollup.prune(START_US + 30 * HOUR_US):
        pass
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM")
    _add_all(path)

    assert _reports(url) == before


@settings(max_examples=8)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from(["write", "add", "prune"])), max_size=12)
)
def test_whatever_happens_in_whatever_order_the_total_is_what_was_written(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("ledger") / "ledger.db"
    store = SqliteStore(path)
    store.open()
    rollup = Rollup(path, at_once=3)
    for number, (hours, act) in enumerate(steps):
        if act == "write":
            at = START_US + hours * HOUR_US
            store.commit([entry(f"{number}", started_at_us=at)], [attempt(f"{number}")])
        elif act == "add":
            rollup.step()
        else:
            rollup.prune(START_US + hours * HOUR_US)
    store.close()
    total = cost_report(f"sqlite:///{path}", by="route").total
    written = sum(act == "write" for _, act in steps)

    assert (total.requests, total.cost_nano_usd) == (written, written * 1_000)
    assert cost_report(f"sqlite:///{path}").total.cost_nano_usd == written * 1_000
