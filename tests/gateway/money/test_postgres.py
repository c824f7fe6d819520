"""The projection into PostgreSQL: all of it arrives, once, whatever happens on the way."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from gateway.money.databases import postgres_engine
from gateway.money.errors import LedgerError, LedgerRefused
from gateway.money.ledger import UptimeRecord
from gateway.money.migrate import migrate_postgres
from gateway.money.postgres import Projection
from gateway.money.reports import WAYS, cost_report, request_rows
from gateway.money.schema import metadata
from gateway.money.sqlite import SqliteStore
from gateway.money.usage import Usage
from tests.support.money import attempt, entry
from tests.support.postgres_server import PostgresServer

HOUR_US = 3_600_000_000
START_US = 495_000 * HOUR_US
NOW = datetime.fromtimestamp((START_US + 50 * HOUR_US) / 1e6, UTC)


@pytest.fixture(scope="module")
def server():
    with PostgresServer() as running:
        yield running


@pytest.fixture
def url(server):
    return server.new_database()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "spool.db"


def _write(path, first=0, count=30):
    store = SqliteStore(path)
    store.open()
    for number in range(first, first + count):
        name = f"r{number:04}"
        store.commit(
            [
                entry(
                    name,
                    started_at_us=START_US + number * HOUR_US // 2,
                    cache=("miss", "exact")[number % 5 == 0],
                    tags=((), ("batch",))[number % 2],
                    path="a\0b",
                )
            ],
            [
                attempt(name, 0, model="tiny", outcome="rejected", usage=Usage(input=number)),
                attempt(name, 1, purpose="audit", payer="gateway", confidence=0.1),
            ],
            [UptimeRecord("run", "tiny", START_US, START_US + number * HOUR_US, 10**9)],
        )
    store.close()


def _send_all(path, url, at_once=8):
    projection = Projection(path, url, at_once=at_once)
    while projection.step():
        pass
    return projection


def _reports(url, since=None):
    return {by: cost_report(url, by=by, since=since, now=NOW) for by in WAYS}


def test_migrations_arrive_at_the_same_tables_there(url):
    engine = postgres_engine(url)
    migrate_postgres(engine, "here")
    migrate_postgres(engine, "here")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, metadata)
    engine.dispose()

    assert differences == []


@pytest.mark.parametrize("since", [None, "47h", "2825m"])
def test_its_reports_are_those_of_the_spool(path, url, since):
    _write(path)
    _send_all(path, url).close()
    here = f"sqlite:///{path}"

    assert _reports(url, since) == _reports(here, since)
    sent = request_rows(url, since=since, now=NOW)
    assert [row | {"path": "a\0b"} for row in sent] == request_rows(here, since=since, now=NOW)


def test_what_is_sent_again_changes_nothing(path, url, server):
    _write(path)
    _send_all(path, url).close()
    before = _reports(url)
    engine = postgres_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE spool SET upto = 0, upto_id = ''")
    engine.dispose()
    _send_all(path, url, at_once=7).close()

    assert _reports(url) == before


def test_two_spools_are_one_ledger(path, url, tmp_path):
    _write(path)
    _write(tmp_path / "other.db", first=100, count=5)
    for each in (path, tmp_path / "other.db"):
        _send_all(each, url).close()

    assert cost_report(url, now=NOW).total.requests == 35


def test_a_file_that_was_put_back_from_a_copy_is_sent_anew_and_added_once(path, url, tmp_path):
    _write(path, count=10)
    _send_all(path, url).close()
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    _write(path, first=10, count=10)
    _send_all(path, url).close()
    _write(copy, first=20, count=10)
    _send_all(copy, url).close()

    assert cost_report(url, by="route").total.requests == 30


def test_a_server_that_dies_amid_it_loses_nothing_and_doubles_nothing(path):
    with PostgresServer() as server:
        url = server.new_database()
        _write(path, count=40)
        projection = Projection(path, url, at_once=5)
        for _ in range(3):
            assert projection.step()
            server.kill()
            with pytest.raises(LedgerError):
                projection.step()
            assert projection.waiting() > 0
            server.start()
        _write(path, first=40, count=3)
        while projection.step():
            pass
        projection.close()

        assert projection.waiting() == 0
        assert _reports(url) == _reports(f"sqlite:///{path}")


def test_the_spool_lets_go_only_of_what_has_arrived(path, url):
    _write(path)
    projection = Projection(path, url, at_once=20)
    projection.step()
    while projection.prune_spool(START_US * 2):
        pass
    with closing(sqlite3.connect(path)) as connection:
        (left,) = connection.execute("SELECT count(*) FROM entry").fetchone()
    while projection.step():
        pass
    projection.close()

    assert left == 11
    assert cost_report(url, now=NOW).total.requests == 30


def test_old_lines_go_and_the_sums_stay(path, url):
    _write(path)
    projection = _send_all(path, url)
    before = _reports(url)
    while projection.prune_ledger(START_US + 10 * HOUR_US):
        pass
    projection.close()

    assert len(request_rows(url)) == 10
    assert _reports(url) == before


def test_a_newer_schema_there_is_refused(url, path):
    _write(path, count=1)
    projection = _send_all(path, url)
    engine = postgres_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    projection.close()
    later = Projection(path, url)
    with pytest.raises(LedgerRefused, match="newer"):
        later.step()
    later.close()


def test_a_url_that_says_nothing_and_a_server_that_is_not_there_are_told_without_passwords(path):
    with pytest.raises(LedgerRefused, match="expected postgresql://") as refused:
        postgres_engine("postgresql://u:secret@host:port/x")
    with pytest.raises(LedgerError) as away:
        cost_report("postgresql://u:secret@127.0.0.1:1/x")

    assert "secret" not in f"{refused.value} {away.value}"
