from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing, contextmanager

import pytest

from gateway.money.ledger import (
    Ledger,
    LedgerError,
    LedgerRefused,
    UnwritableRecord,
    UptimeRecord,
    ledger_at,
)
from gateway.money.sqlite import SqliteStore
from gateway.money.usage import Usage
from tests.support.money import attempt, entry


def _all(path, sql="SELECT request_id FROM entry ORDER BY request_id"):
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(sql)]


def _ids(path):
    return [row["request_id"] for row in _all(path)]


@contextmanager
def _locked(path):
    """Hold the database as another program would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")


async def _until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - another thread changes it, without an event
            await asyncio.sleep(0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


class CountingStore(SqliteStore):
    """Counts its transactions."""

    commits = 0

    def commit(self, entries, attempts, uptimes=()):
        self.commits += 1
        super().commit(entries, attempts, uptimes)


class CrampedStore(SqliteStore):
    """Lives on a disk of `pages` pages."""

    pages = 2**30

    def _connect(self):
        connection = super()._connect()
        connection.execute(f"PRAGMA max_page_count = {self.pages}")
        return connection


class GatedStore(SqliteStore):
    """Commits only while its gate is open."""

    def __init__(self, path):
        super().__init__(path)
        self.gate = threading.Event()

    def commit(self, entries, attempts, uptimes=()):
        self.gate.wait(30)
        super().commit(entries, attempts, uptimes)


class UnopenableStore(SqliteStore):
    """Has a fault of its own at the start."""

    def open(self):
        raise ZeroDivisionError("a bug")


class BrokenStore(SqliteStore):
    """Has a fault of its own, once."""

    is_broken = True

    def commit(self, entries, attempts, uptimes=()):
        if self.is_broken:
            self.is_broken = False
            raise ZeroDivisionError("a bug")
        super().commit(entries, attempts, uptimes)


async def test_an_entry_is_in_the_file_once_its_write_is_done(path):
    async with Ledger(SqliteStore(path)) as ledger:
        await ledger.write(entry("a"), [attempt("a", 0), attempt("a", 1)])

        assert _ids(path) == ["a"]
        assert len(_all(path, "SELECT * FROM attempt")) == 2


async def test_every_field_is_kept(path):
    usage = Usage(1, 2, 3, 4, 5, 6, 7, 0.25, estimated=True, audio_output=8,
                  cache_write_1h=20, tier="flex")  # fmt: skip
    told = {"usage": usage, "cost_nano_usd": 11, "lower_nano_usd": 9, "upper_nano_usd": 13}
    async with Ledger(SqliteStore(path)) as ledger:
        await ledger.write(
            entry("a", stream=True, estimated=True, tags=("b", "ü"), error="timeout", **told),
            [attempt("a", confidence=0.41, reason="low", provider="openai", ttft_us=5, began_us=6,
                     price_source="policy", price_dated="2026-11-01", **told)],
        )  # fmt: skip
    buckets = {
        "input": 1, "cached_input": 2, "cache_write": 23, "output": 4, "reasoning": 5,
        "audio": 6, "audio_output": 8, "image": 7, "compute_us": 250_000, "estimated": 1,
        "cost_nano_usd": 11, "lower_nano_usd": 9, "upper_nano_usd": 13,
    }  # fmt: skip

    assert _all(path, "SELECT * FROM entry") == [
        buckets
        | {
            "request_id": "a",
            "started_at_us": 1_795_000_000_000_000,
            "state": "settled",
            "tenant": "platform",
            "key": "ci",
            "tags": '["b","ü"]',
            "route": "auto",
            "model": "mini",
            "requested_model": "auto",
            "cache": "miss",
            "path": "tiny:0.41:escalated,mini:0.93:accepted",
            "stream": 1,
            "status": 200,
            "saved_nano_usd": 9_000,
            "reference_model": "large",
            "latency_us": 250_000,
            "ttft_us": None,
            "error": "timeout",
        }
    ]
    assert _all(path, "SELECT * FROM attempt") == [
        buckets
        | {
            "request_id": "a",
            "seq": 0,
            "model": "mini",
            "provider": "openai",
            "purpose": "serve",
            "payer": "platform",
            "outcome": "accepted",
            "confidence": 0.41,
            "reason": "low",
            "latency_us": 240_000,
            "ttft_us": 5,
            "price_source": "policy",
            "price_dated": "2026-11-01",
            "cache_write_1h": 20,
            "tier": "flex",
            "began_us": 6,
        }
    ]


async def test_writes_of_one_turn_share_one_transaction(path):
    store = CountingStore(path)
    async with Ledger(store) as ledger:
        await asyncio.gather(*(ledger.write(entry(f"{n:03}")) for n in range(200)))

        assert store.commits == 1
    assert len(_ids(path)) == 200


async def test_a_repeated_entry_changes_nothing(path):
    async with Ledger(SqliteStore(path)) as ledger:
        await ledger.write(entry("a", cost_nano_usd=1), [attempt("a")])
        await ledger.write(entry("a", cost_nano_usd=2), [attempt("a")])
    rows = _all(path, "SELECT cost_nano_usd FROM entry")

    assert rows == [{"cost_nano_usd": 1}]
    assert len(_all(path, "SELECT * FROM attempt")) == 1


async def test_an_open_entry_is_closed_by_its_second_record(path):
    async with Ledger(SqliteStore(path)) as ledger:
        await ledger.write(entry("a", state="open", cost_nano_usd=0))
        await ledger.write(entry("a", cost_nano_usd=7))
        await ledger.write(entry("a", state="open", cost_nano_usd=0))

    assert _all(path, "SELECT state, cost_nano_usd FROM entry") == [
        {"state": "settled", "cost_nano_usd": 7}
    ]


async def test_an_entry_whose_waiter_was_cancelled_is_written_all_the_same(path):
    async with Ledger(SqliteStore(path)) as ledger:
        ledger.write(entry("a")).cancel()
        await ledger.write(entry("b"))

    assert _ids(path) == ["a", "b"]


async def test_closing_writes_what_waits_and_then_refuses(path):
    ledger = Ledger(SqliteStore(path))
    await ledger.start()
    waiting = [ledger.write(entry(f"{n}")) for n in range(5)]
    await ledger.aclose()
    await asyncio.gather(*waiting)

    assert len(_ids(path)) == 5
    assert not ledger.is_healthy
    with pytest.raises(LedgerError, match="closed"):
        await ledger.write(entry("late"))
    await ledger.aclose()


async def test_a_locked_ledger_says_so_and_loses_nothing(path):
    async with Ledger(SqliteStore(path, busy_s=0), probe_s=600) as ledger:
        with _locked(path):
            with pytest.raises(LedgerError, match="locked"):
                await ledger.write(entry("a"), [attempt("a")])

            assert not ledger.is_healthy
            assert "locked" in ledger.fault
            assert not await ledger.probe()
        assert await ledger.probe()
        assert ledger.is_healthy
        assert ledger.fault is None
        assert _ids(path) == ["a"]


async def test_a_ledger_finds_by_itself_that_it_can_write_again(path):
    async with Ledger(SqliteStore(path, busy_s=0), probe_s=0.001) as ledger:
        with _locked(path), pytest.raises(LedgerError):
            await ledger.write(entry("a"))
        await _until(lambda: ledger.is_healthy)

        assert _ids(path) == ["a"]


async def test_a_full_disk_fails_every_waiter_until_there_is_room(path):
    store = CrampedStore(path)
    store.pages = 1
    async with Ledger(store, probe_s=600) as ledger:
        writes = [ledger.write(entry(f"{n:04}", path="x" * 2_000)) for n in range(50)]
        failed = await asyncio.gather(*writes, return_exceptions=True)

        assert {type(fault) for fault in failed} == {LedgerError}
        assert "full" in str(failed[0])
        assert len({id(fault) for fault in failed}) == 50
        assert _ids(path) == []

        store.pages = 2**30
        assert await ledger.probe()
    assert len(_ids(path)) == 50


async def test_closing_a_ledger_that_cannot_write_says_what_is_lost(path):
    ledger = Ledger(SqliteStore(path, busy_s=0), probe_s=600)
    await ledger.start()
    with _locked(path):
        with pytest.raises(LedgerError):
            await ledger.write(entry("a"))
        with pytest.raises(LedgerError, match="1 requests are not in the ledger"):
            await ledger.aclose()


async def test_a_record_that_cannot_be_stored_fails_alone(path):
    async with Ledger(SqliteStore(path)) as ledger:
        good, bad, also_good = (
            ledger.write(entry("a")),
            ledger.write(entry("b", cost_nano_usd=2**63)),
            ledger.write(entry("c")),
        )
        await good
        await also_good
        with pytest.raises(UnwritableRecord):
            await bad

        assert ledger.is_healthy
    assert _ids(path) == ["a", "c"]


async def test_a_record_of_the_wrong_shape_fails_alone(path):
    async with Ledger(SqliteStore(path)) as ledger:
        with pytest.raises(UnwritableRecord):
            await ledger.write(entry("a", usage=None))
        await ledger.write(entry("b"))

    assert _ids(path) == ["b"]


async def test_text_that_is_not_unicode_is_mended_rather_than_lost(path):
    async with Ledger(SqliteStore(path)) as ledger:
        await ledger.write(
            entry("a", error="\ud800", tags=("\udfff",)), [attempt("a", reason="\ud800")]
        )

    assert _all(path, "SELECT error, tags FROM entry") == [{"error": "?", "tags": '["?"]'}]


async def test_a_ledger_moved_away_is_begun_anew(path):
    async with Ledger(SqliteStore(path)) as ledger:
        await ledger.write(entry("a"))
        path.rename(path.with_suffix(".old"))
        await ledger.write(entry("b"))

        assert _ids(path) == ["b"]


async def test_two_ledgers_share_one_file(path):
    async with Ledger(SqliteStore(path)) as one, Ledger(SqliteStore(path)) as two:
        writes = [
            ledger.write(entry(f"{name}{n}"))
            for n in range(50)
            for name, ledger in (("a", one), ("b", two))
        ]
        await asyncio.gather(*writes)

    assert len(_ids(path)) == 100


async def test_more_than_may_wait_is_refused_and_half_of_it_unhealthy(path):
    store = GatedStore(path)
    async with Ledger(store, max_waiting=4) as ledger:
        first = ledger.write(entry("first"))
        await _until(lambda: ledger.waiting == 0)
        waiting = [ledger.write(entry("a"))]

        assert ledger.is_healthy

        waiting += [ledger.write(entry(name)) for name in "bcd"]

        assert not ledger.is_healthy
        with pytest.raises(LedgerError, match="4 records wait"):
            await ledger.write(entry("e"))

        store.gate.set()
        await asyncio.gather(first, *waiting)
        assert ledger.is_healthy
    assert _ids(path) == ["a", "b", "c", "d", "first"]


async def test_a_fault_in_the_store_reaches_its_waiters_and_does_not_end_the_ledger(path):
    async with Ledger(BrokenStore(path), probe_s=600) as ledger:
        with pytest.raises(LedgerError, match="a bug"):
            await ledger.write(entry("a"))
        await ledger.write(entry("b"))

    assert _ids(path) == ["a", "b"]


async def test_a_fault_in_the_store_at_the_start_is_an_error_and_no_silence(path):
    with pytest.raises(LedgerError, match="a bug"):
        await Ledger(UnopenableStore(path)).start()


async def test_uptime_grows_and_keeps_its_beginning(path):
    async with Ledger(SqliteStore(path)) as ledger:
        for seen in (10, 30, 20):
            await ledger.write_uptime(UptimeRecord("run", "tiny", 5, seen, 400_000_000))

    assert _all(path, "SELECT started_at_us, seen_at_us FROM uptime") == [
        {"started_at_us": 5, "seen_at_us": 30}
    ]


@pytest.mark.parametrize(("option", "level"), [("", 1), ("?synchronous=full", 2)])
async def test_a_url_says_where_and_how_durable(path, option, level):
    store = SqliteStore(path, synchronous="full" if option else "normal")
    store.open()
    found = store._connection.execute("PRAGMA synchronous").fetchone()
    store.close()

    assert found == (level,)
    async with ledger_at(f"sqlite:///{path}{option}") as ledger:
        await ledger.write(entry("a"))
    assert _ids(path) == ["a"]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:secret@host/db",
        "sqlite://",
        "sqlite:///",
        "sqlite://host/file.db",
        "sqlite:///a.db?mode=memory",
        "sqlite:///a.db?synchronous=off",
        "frugal.db",
    ],
)
def test_other_urls_are_refused_without_telling_their_password(url):
    with pytest.raises(LedgerRefused, match="expected") as caught:
        ledger_at(url)

    assert "secret" not in str(caught.value)


async def test_a_path_that_cannot_be_opened_is_an_error_at_start(tmp_path):
    with pytest.raises(LedgerError, match="check the path"):
        await Ledger(SqliteStore(tmp_path / "none" / "ledger.db")).start()
    with pytest.raises(LedgerError, match="check the path"):
        await Ledger(SqliteStore(tmp_path)).start()
