"""A ledger in PostgreSQL gives the same reports as the spool that it came from."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import select

from gateway.access.keys import Caller
from gateway.learning.book import Book, OutcomeRow
from gateway.money import migrate
from gateway.money.databases import postgres_engine
from gateway.money.migrate import migrate_postgres
from gateway.money.postgres import Projection
from gateway.money.schema import rollup_by, rollup_latency
from gateway.money.sqlite import SqliteStore
from gateway.money.usage import Usage
from gateway.reporting.budgets import budgets
from gateway.reporting.detail import request_detail
from gateway.reporting.overview import overview
from gateway.reporting.quality import quality
from gateway.reporting.requests import Wanted, request_list
from gateway.reporting.spend import spend
from gateway.reporting.standing import last_calls
from gateway.reporting.window import window
from policies.loader import parse_policy
from tests.support.money import attempt, entry
from tests.support.policies import two_tiers
from tests.support.postgres_server import PostgresServer

NOW = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
NOW_US = int(NOW.timestamp()) * 1_000_000
POLICY = parse_policy(
    two_tiers("http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1",
              limits={"budget": {"usd": 1, "per": "month"}}),
    name="p", env={},
)  # fmt: skip


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    path = tmp_path_factory.mktemp("both") / "spool.db"
    store = SqliteStore(path)
    store.open()
    for number in range(60):
        name = f"r{number:02}"
        line = entry(
            name,
            started_at_us=NOW_US - number * 4_000_000_000,
            tenant=("web", "legal")[number % 2],
            cache=("miss", "exact", "semantic")[number % 3],
            state=("settled", "failed", "abandoned")[number % 7 % 3],
            tags=((), ("batch",), ("batch", 'a "b"'))[number % 3],
            latency_us=5 ** (number % 11),
            ttft_us=None if number % 4 else number,
            cost_nano_usd=10**7 * number,
        )
        calls = [
            attempt(name, 0, model="tiny", outcome="rejected", confidence=0.25, began_us=3),
            attempt(name, 1, cost_nano_usd=10**7 * number, usage=Usage(input=7, compute_s=0.5)),
            attempt(name, 2, purpose="audit", payer="gateway", cost_nano_usd=9),
        ]
        store.commit([line], calls)
    store.close()
    with PostgresServer() as server:
        there, here = server.new_database(), f"sqlite:///{path}"
        projection = Projection(path, there, at_once=25)
        while projection.step():
            pass
        projection.close()
        for url in (here, there):
            book = Book(url)
            book.add([_outcome(number) for number in range(80)])
            book.close()
        yield here, there


def _outcome(number):
    return OutcomeRow(
        f"r{number}", "small", NOW_US - number, 0, "auto", "web", "", "", "large", "",
        number % 2 == 0, number % 3 == 0, number / 80, 0.5,
        None if number % 7 == 0 else float(number > 30), "exact", "stop", 1, 1, 1, 1, "{}",
    )  # fmt: skip


def _asked(since="48h", until=None):
    return window(since, until, None, NOW)


@pytest.mark.parametrize("since", ["48h", "2700m", "3d", "2026-11-18T20:15"])
@pytest.mark.parametrize("until", [None, "5h", "317m"])
def test_overviews_agree(both, since, until):
    here, there = (overview(url, _asked(since, until), compare=True) for url in both)

    assert here == there
    assert here.now.requests > 0


@pytest.mark.parametrize("by", ["model", "route", "tenant", "key", "tag"])
def test_spending_agrees(both, by):
    here, there = (spend(url, by, _asked()) for url in both)

    assert here == there


@pytest.mark.parametrize(
    "wanted",
    [Wanted(), Wanted(tag='a "b"'), Wanted(tag="a"), Wanted(tenant="web", cache="exact"),
     Wanted(q="R07"), Wanted(q="tiny:0"), Wanted(state="failed", key="ci"), Wanted(q="100%")],
)  # fmt: skip
def test_requests_agree(both, wanted):
    here, there = (request_list(url, _asked("7d"), wanted, cursor=None, limit=20) for url in both)

    assert here == there


def test_pages_go_on_there_as_well(both):
    _, there = both
    first = request_list(there, _asked("7d"), Wanted(), cursor=None, limit=40)
    second = request_list(there, _asked("7d"), Wanted(), cursor=first.next, limit=40)

    assert [row.request_id for row in (*first.data, *second.data)] == [
        f"r{number:02}" for number in range(60)
    ]


def test_one_request_and_the_last_calls_agree(both):
    opened = [request_detail(url, "r04", stores_texts=False) for url in both]
    calls = [last_calls(url, _asked("7d")) for url in both]

    assert opened[0] == opened[1]
    assert calls[0] == calls[1]


def test_budgets_and_quality_agree(both):
    told = [
        budgets(url, POLICY, [Caller("ci", "web")], now_s=NOW.timestamp(), held=lambda _: None)
        for url in both
    ]
    good = [quality(url, _asked(), POLICY, [], lambda _: None, today="2026-11-21") for url in both]

    assert told[0] == told[1]
    assert told[0].budgets[0].forecast is not None
    assert good[0] == good[1]
    assert good[0].routes[0].models[0].scored == 68


def test_sums_are_filled_there_from_what_was_known(both):
    _, url = both
    before = _summed(url)
    config = Config()
    config.set_main_option("script_location", str(migrate._MIGRATIONS))
    engine = postgres_engine(url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0006")
    migrate_postgres(engine, "here")
    engine.dispose()

    assert _summed(url) == before


def _summed(url):
    engine = postgres_engine(url)
    with engine.connect() as connection:
        found = [
            sorted(map(tuple, connection.execute(select(table))))
            for table in (rollup_by, rollup_latency)
        ]
    engine.dispose()
    return found
