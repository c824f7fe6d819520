from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from gateway.money.errors import LedgerError, ReportError
from gateway.money.ledger import UptimeRecord
from gateway.money.reports import (
    Background,
    Group,
    Idle,
    cost_report,
    parse_since,
    request_rows,
)
from gateway.money.sqlite import SqliteStore
from gateway.money.usage import Usage
from tests.support.money import attempt, entry

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR_US = 3_600_000_000


def _us(moment):
    return int(moment.timestamp()) * 1_000_000


def _ago(**span):
    return _us(NOW - timedelta(**span))


ENTRIES = [
    entry(
        "escalated",
        started_at_us=_ago(hours=1),
        usage=Usage(input=20, output=10),
        cost_nano_usd=150,
        saved_nano_usd=-50,
    ),
    entry(
        "hit",
        started_at_us=_ago(hours=2),
        cache="exact",
        usage=Usage(),
        cost_nano_usd=0,
        saved_nano_usd=100,
        tenant="legal",
        key="web",
    ),
    entry(
        "local",
        started_at_us=_ago(days=1, hours=1),
        model="tiny",
        route="chat",
        usage=Usage(input=5, output=5, compute_s=60.0),
        cost_nano_usd=30,
        saved_nano_usd=70,
    ),
    entry(
        "gone",
        started_at_us=_ago(days=8),
        state="abandoned",
        usage=Usage(input=3, cached_input=4, output=1, reasoning=2, estimated=True),
        cost_nano_usd=9,
        saved_nano_usd=0,
        estimated=True,
        lower_nano_usd=4,
        upper_nano_usd=20,
    ),
    entry("failed", started_at_us=_ago(days=9), state="failed", model="", usage=Usage(),
          cost_nano_usd=0, saved_nano_usd=0),
]  # fmt: skip
ATTEMPTS = [
    attempt("escalated", 0, model="tiny", outcome="rejected_early", cost_nano_usd=50,
            usage=Usage(input=10, output=2, compute_s=30.0)),
    attempt("escalated", 1, cost_nano_usd=100, usage=Usage(input=10, output=8)),
    attempt("escalated", 2, model="large", purpose="audit", payer="gateway", cost_nano_usd=700,
            usage=Usage(input=10, output=9)),
    attempt("local", 0, model="tiny", cost_nano_usd=30,
            usage=Usage(input=5, output=5, compute_s=60.0)),
    attempt("gone", 0, outcome="abandoned", cost_nano_usd=9,
            usage=Usage(input=3, cached_input=4, output=1, reasoning=2, estimated=True)),
]  # fmt: skip


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("a folder? #1 %20") / "ledger.db"


@pytest.fixture(scope="module")
def url(path):
    store = SqliteStore(path)
    store.open()
    up = UptimeRecord("run", "tiny", _ago(hours=3), _ago(hours=1), 400_000_000)
    store.commit(ENTRIES, ATTEMPTS, [up])
    store.close()
    return f"sqlite:///{str(path).replace('%', '%25').replace('?', '%3F').replace('#', '%23')}"


def test_a_request_is_one_row_of_the_documented_shape(url):
    row = request_rows(url, now=NOW)[3]

    assert row == {
        "request_id": "gone",
        "state": "abandoned",
        "usage": {
            "input": 3,
            "cached_input": 4,
            "cache_write": 0,
            "output": 1,
            "reasoning": 2,
        },
        "cost_nano_usd": 9,
        "saved_nano_usd": 0,
        "estimated": True,
        "lower_nano_usd": 4,
        "upper_nano_usd": 20,
        "cache": "miss",
        "path": "tiny:0.41:escalated,mini:0.93:accepted",
        "tenant": "platform",
        "key": "ci",
        "route": "auto",
        "model": "mini",
    }


def test_requests_come_newest_first_within_their_time_and_number(url):
    def ids(**asked):
        return [row["request_id"] for row in request_rows(url, now=NOW, **asked)]

    assert ids() == ["escalated", "hit", "local", "gone", "failed"]
    assert ids(since="24h") == ["escalated", "hit"]
    assert ids(since="2026-11-12T12:00") == ["escalated", "hit", "local", "gone"]
    assert ids(limit=1) == ["escalated"]


def test_by_model_money_goes_to_who_was_called_and_requests_to_who_answered(url):
    report = cost_report(url, by="model", now=NOW)

    assert report.groups == (
        Group("", requests=1),
        Group("mini", 3, 28, 109, -50, 1, 0, 1, 100),
        Group("tiny", 1, 22, 80, 70, 0, 1, 0),
    )


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("route", ["auto", "chat"]),
        ("tenant", ["legal", "platform"]),
        ("key", ["ci", "web"]),
        ("day", ["2026-11-11", "2026-11-12", "2026-11-19", "2026-11-20"]),
    ],
)
def test_every_grouping_has_its_names_and_the_same_total(url, by, names):
    report = cost_report(url, by=by, now=NOW)

    assert [group.name for group in report.groups] == names
    assert report.total == Group("total", 5, 50, 189, 20, 1, 1, 1, 100)


def test_the_total_by_model_is_the_same_money(url):
    by_model, by_route = (cost_report(url, by=by, now=NOW).total for by in ("model", "route"))

    assert by_model == by_route


def test_background_work_is_a_line_of_its_own(url):
    assert cost_report(url, now=NOW).background == (Background("audit", 1, 19, 700),)
    assert cost_report(url, since="30m", now=NOW).background == ()


def test_idle_machine_time_is_priced_beside_the_requests(url):
    busy = 90_000_000
    rest = (2 * HOUR_US - busy) * 400_000_000 // HOUR_US

    assert cost_report(url, now=NOW).idle == (Idle("tiny", 2 * HOUR_US, busy, rest),)


def test_idle_time_is_cut_to_the_reports_time(url):
    [line] = cost_report(url, since="2h", now=NOW).idle

    assert (line.up_us, line.busy_us) == (HOUR_US, 30_000_000)


def test_an_empty_ledger_reports_nothing(tmp_path):
    store = SqliteStore(tmp_path / "ledger.db")
    store.open()
    store.close()
    url = f"sqlite:///{tmp_path}/ledger.db"

    assert request_rows(url) == []
    assert cost_report(url).total == Group("total")


def test_reading_changes_nothing_and_makes_no_file(url, path, tmp_path):
    before = path.read_bytes()
    cost_report(url)

    assert path.read_bytes() == before
    with pytest.raises(LedgerError, match="no such file"):
        request_rows(f"sqlite:///{tmp_path}/none.db")
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_can_be_read_while_it_is_written(url, path):
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert len(request_rows(url)) == 5
        writer.execute("ROLLBACK")


def test_a_file_that_is_no_ledger_is_refused(tmp_path):
    (tmp_path / "other.db").write_bytes(b"no database" * 100)
    with pytest.raises(LedgerError, match="cannot be read"):
        request_rows(f"sqlite:///{tmp_path}/other.db")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("30m", NOW - timedelta(minutes=30)),
        ("24h", NOW - timedelta(days=1)),
        ("7d", NOW - timedelta(days=7)),
        ("2w", NOW - timedelta(weeks=2)),
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T02:00+02:00", datetime(2026, 11, 1, tzinfo=UTC)),
        ("999999w", datetime(1970, 1, 1, tzinfo=UTC)),
    ],
)
def test_since_is_a_span_or_a_date(text, moment):
    assert parse_since(text, NOW) == moment


@pytest.mark.parametrize("text", ["", "soon", "-1h", "24", "24 hours", "2026-13-01"])
def test_any_other_since_is_refused(text):
    with pytest.raises(ReportError, match="expected a time"):
        parse_since(text, NOW)
