"""The API, `frugal costs` and the lines of the ledger say the same, to the nano-dollar."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from gateway.cli.main import app
from gateway.money.rollup import Rollup
from gateway.money.sqlite import SqliteStore
from gateway.money.usage import Usage
from gateway.reporting.overview import overview
from gateway.reporting.spend import spend
from gateway.reporting.window import Window
from tests.support.money import attempt, entry

START = datetime(2026, 11, 1, tzinfo=UTC)
HOUR_US = 3_600_000_000
START_US = int(START.timestamp()) * 1_000_000

_LINE = st.fixed_dictionaries(
    {
        "at": st.integers(0, 80 * HOUR_US),
        "tenant": st.sampled_from(["web", "legal", "ü <b>"]),
        "model": st.sampled_from(["mini", "large", ""]),
        "cache": st.sampled_from(["miss", "exact", "semantic", "bypass"]),
        "state": st.sampled_from(["settled", "failed", "abandoned"]),
        "tags": st.sampled_from([(), ("a",), ("a", "b")]),
        "calls": st.lists(st.integers(0, 10**13), max_size=3),
        "own": st.integers(0, 10**9),
    }
)


def _write(path, lines):
    store = SqliteStore(path)
    store.open()
    for number, line in enumerate(lines):
        name = f"r{number}"
        calls = [
            attempt(name, n, model=("tiny", "mini")[n % 2], cost_nano_usd=nano,
                    outcome=("rejected", "accepted")[n % 2], usage=Usage(input=n))
            for n, nano in enumerate(line["calls"])
        ]  # fmt: skip
        if line["own"]:
            calls.append(
                attempt(name, 9, purpose="audit", payer="gateway", cost_nano_usd=line["own"])
            )
        store.commit(
            [
                entry(
                    name,
                    started_at_us=START_US + line["at"],
                    cost_nano_usd=sum(line["calls"]),
                    **{key: line[key] for key in ("tenant", "model", "cache", "state", "tags")},
                )
            ],
            calls,
        )
    store.close()


def _raw(path, since_us, until_us):
    with closing(sqlite3.connect(path)) as connection:
        within = "started_at_us >= ? AND started_at_us < ?"
        rows = connection.execute(
            f"SELECT tenant, tags, cost_nano_usd, cache, state FROM entry WHERE {within}",
            (since_us, until_us),
        ).fetchall()
        called = connection.execute(
            "SELECT a.model, sum(a.cost_nano_usd) FROM attempt a JOIN entry USING (request_id) "
            f"WHERE payer <> 'gateway' AND {within} GROUP BY a.model",
            (since_us, until_us),
        ).fetchall()
    return rows, dict(called)


def _costs(path, by, since):
    asked = ["costs", "--ledger", f"sqlite:///{path}", "--by", by, "--since", since, "--json"]
    return json.loads(CliRunner().invoke(app, asked, catch_exceptions=False).stdout)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(_LINE, max_size=25),
    st.integers(0, 70 * HOUR_US),
    st.integers(1, 30 * HOUR_US),
    st.integers(0, 30),
)
def test_three_ways_of_asking_get_one_answer(tmp_path_factory, lines, begin, length, added):
    path = tmp_path_factory.mktemp("agree") / "ledger.db"
    _write(path, lines)
    url = f"sqlite:///{path}"
    asked = Window(START_US + begin, START_US + begin + length, "hour", is_open=False)
    rows, called = _raw(path, asked.since_us, asked.until_us)
    if added:
        Rollup(path, at_once=added).step()
    told = overview(url, asked, compare=False)
    tenants = spend(url, "tenant", asked)
    models = spend(url, "model", asked)
    by_tenant = Counter()
    for tenant, _, nano, _, _ in rows:
        by_tenant[tenant] += nano
    total = sum(by_tenant.values())

    assert told.now.spend_nano_usd == tenants.total.spend_nano_usd == total
    assert sum(p.spend_nano_usd for p in told.series) == total
    assert {g.name: g.spend_nano_usd for g in tenants.groups} == dict(by_tenant)
    assert {g.name: g.spend_nano_usd for g in models.groups if g.name in called} == called
    assert told.now.requests == len(rows)
    assert told.now.hits_semantic == sum(cache == "semantic" for *_, cache, _ in rows)
    assert told.now.errors == sum(state == "failed" for *_, state in rows)


@settings(max_examples=6, deadline=None)
@given(st.lists(_LINE, max_size=15), st.integers(0, 60), st.integers(0, 20))
def test_the_command_says_what_the_api_says(tmp_path_factory, lines, hours, added):
    path = tmp_path_factory.mktemp("agree") / "ledger.db"
    _write(path, lines)
    if added:
        Rollup(path, at_once=added).step()
    since = START + timedelta(hours=hours, minutes=7)
    since_us = int(since.timestamp()) * 1_000_000
    asked = Window(since_us, START_US + 100 * HOUR_US, "hour")
    for by in ("tenant", "model", "tag"):
        api, command = spend(f"sqlite:///{path}", by, asked), _costs(path, by, since.isoformat())

        assert {g.name: (g.requests, g.spend_nano_usd) for g in api.groups} == {
            g["name"]: (g["requests"], g["cost_nano_usd"]) for g in command["groups"]
        }
        assert api.total.spend_nano_usd == command["total"]["cost_nano_usd"]
        assert sum(line.spend_nano_usd for line in api.own) == sum(
            line["cost_nano_usd"] for line in command["background"]
        )
