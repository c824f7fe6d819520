from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from gateway.money.intents import IntentLog
from gateway.money.ledger import ledger_at
from gateway.money.recovery import by_request, orphans, recovered
from gateway.money.usage import Usage
from tests.support.money import attempt, entry, intent

DIES = """
import os, signal, sys
from pathlib import Path
from gateway.money.intents import IntentLog
from tests.support.money import intent

log = IntentLog(Path(sys.argv[1]))
for name in sys.argv[2:]:
    log.note(intent(name))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


@pytest.fixture
def folder(path):
    return path.with_name("ledger.db-intents")


def _dies_with(folder, *names):
    assert subprocess.run([sys.executable, "-c", DIES, str(folder), *names]).returncode == -9


def _rows(path, table="entry"):
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2")]


def test_a_call_that_was_cut_off_costs_between_nothing_and_the_worst_case():
    record, (line,) = recovered([intent("a", input_most=1_000, output_most=200)])

    assert (record.state, record.error, record.estimated) == ("failed", "interrupted", True)
    assert (record.lower_nano_usd, record.upper_nano_usd) == (0, 1_000 * 1_000 + 200 * 2_000)
    assert (line.lower_nano_usd, line.upper_nano_usd) == (0, record.upper_nano_usd)
    assert 0 <= line.cost_nano_usd <= line.upper_nano_usd
    assert record.path == "mini:interrupted"


def test_what_is_known_of_earlier_calls_is_kept_exact():
    done = attempt("a", 0, model="tiny", outcome="rejected", cost_nano_usd=700,
                   lower_nano_usd=700, upper_nano_usd=700)  # fmt: skip
    calls = [intent("a", 0, model="tiny"), intent("a", 1, model="large", ended=(done,))]
    record, lines = recovered(calls)

    assert lines[0] == done
    assert lines[1].outcome == "interrupted"
    assert record.lower_nano_usd == 700
    assert record.upper_nano_usd == 700 + lines[1].upper_nano_usd
    assert record.path == "tiny:rejected,large:interrupted"


def test_what_the_gateway_did_for_its_own_sake_costs_no_tenant_anything():
    record, (line,) = recovered([intent("a", own_account="audit")])

    assert (record.tenant, record.cost_nano_usd, record.upper_nano_usd) == ("gateway", 0, 0)
    assert (line.payer, line.purpose) == ("gateway", "audit")
    assert line.upper_nano_usd > 0


async def test_a_start_records_what_a_dead_process_had_under_way(path, folder):
    _dies_with(folder, "a", "b")
    async with ledger_at(f"sqlite:///{path}"):
        pass

    assert [(row["request_id"], row["state"]) for row in _rows(path)] == [
        ("a", "failed"), ("b", "failed"),
    ]  # fmt: skip
    assert {row["outcome"] for row in _rows(path, "attempt")} == {"interrupted"}
    assert list(folder.glob("*")) == []


async def test_recovering_again_changes_nothing(path, folder):
    _dies_with(folder, "a")
    (left,) = folder.glob("*.log")
    copy = left.read_bytes()
    async with ledger_at(f"sqlite:///{path}"):
        pass
    before = _rows(path), _rows(path, "attempt")
    left.write_bytes(copy)  # as if we had died before it was removed
    async with ledger_at(f"sqlite:///{path}") as ledger:
        assert await ledger.recover() == 0

    assert (_rows(path), _rows(path, "attempt")) == before
    assert list(folder.glob("*")) == []


async def test_what_was_settled_before_the_crash_stays_as_it_is(path, folder):
    async with ledger_at(f"sqlite:///{path}") as ledger:
        await ledger.write(entry("a"), [attempt("a")])
    before = _rows(path), _rows(path, "attempt")
    _dies_with(folder, "a")
    async with ledger_at(f"sqlite:///{path}"):
        pass

    assert (_rows(path), _rows(path, "attempt")) == before


async def test_a_living_sibling_records_for_the_dead_and_not_for_the_living(path, folder):
    living = IntentLog(folder)
    living.note(intent("alive"))
    async with ledger_at(f"sqlite:///{path}") as ledger:
        _dies_with(folder, "dead")
        found = await asyncio.gather(ledger.recover(), ledger.recover())

    assert sum(found) == 1
    assert [row["request_id"] for row in _rows(path)] == ["dead"]
    living.close()


async def test_what_cannot_be_recorded_yet_is_kept(path, folder):
    async with ledger_at(f"sqlite:///{path}"):
        pass
    _dies_with(folder, "a")
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    async with ledger_at(f"sqlite:///{path}") as ledger:
        assert not ledger.is_healthy
        assert len(list(folder.glob("*.log"))) == 1
        lock.execute("ROLLBACK")
        lock.close()
        while not await ledger.probe():
            pass
        await ledger.recover()

    assert [row["request_id"] for row in _rows(path)] == ["a"]
    assert list(folder.glob("*")) == []


def test_a_line_that_was_cut_off_announced_no_call(folder):
    _dies_with(folder, "a")
    (left,) = folder.glob("*.log")
    left.write_bytes(left.read_bytes() + b'["b",0,')
    with orphans(folder) as found:
        assert [i.request_id for orphan in found for i in orphan.intents] == ["a"]


def test_a_line_that_says_nothing_is_passed_over(folder, caplog):
    _dies_with(folder, "a")
    (left,) = folder.glob("*.log")
    left.write_bytes(b"\0\0\0\n" + left.read_bytes())
    with orphans(folder) as found:
        assert [i.request_id for orphan in found for i in orphan.intents] == ["a"]
    assert "line 1: expected an intent" in caplog.text


async def test_an_intent_stays_open_until_its_entry_is_durable(path, folder):
    async with ledger_at(f"sqlite:///{path}") as ledger:
        ledger.intend(intent("a"))
        lock = sqlite3.connect(path, isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        with pytest.raises(Exception, match="locked"):
            await ledger.write(entry("a"), [attempt("a")])
        (left,) = folder.glob("*.log")
        assert left.stat().st_size > 0
        lock.execute("ROLLBACK")
        lock.close()

    assert list(folder.glob("*")) == []
    assert [(row["request_id"], row["state"]) for row in _rows(path)] == [("a", "settled")]


def test_requests_keep_the_order_of_their_calls():
    calls = [intent("b", 0), intent("a", 0), intent("b", 1)]

    assert {k: [i.seq for i in v] for k, v in by_request(calls).items()} == {"b": [0, 1], "a": [0]}
    assert recovered(calls[:1])[0].usage == Usage(input=100, estimated=True)
