from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from gateway.money.near import CHECKPOINT_EVERY, REST_S, SLOW_S, NearSqliteStore
from gateway.money.sqlite import SqliteStore
from tests.support.money import attempt, entry


class Ticks:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.db"
    store = SqliteStore(path)
    store.open()
    store.close()
    return path


def ids(path: Path) -> list[str]:
    with sqlite3.connect(path) as connection:
        return [row[0] for row in connection.execute("SELECT request_id FROM entry")]


def test_what_is_committed_is_there_for_others(path: Path) -> None:
    near = NearSqliteStore(path, clock=Ticks())

    assert near.try_commit([entry("a")], [attempt("a")])
    assert ids(path) == ["a"]


def test_another_writers_lock_is_not_waited_for(path: Path) -> None:
    ticks = Ticks()
    near = NearSqliteStore(path, clock=ticks)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    assert not near.try_commit([entry("a")], [])
    other.execute("ROLLBACK")
    other.close()
    assert not near.try_commit([entry("a")], []), "it rests after a failure"
    ticks.now += REST_S
    assert near.try_commit([entry("a")], [])
    assert ids(path) == ["a"]


def test_after_a_slow_commit_the_loop_is_spared(path: Path) -> None:
    ticks = Ticks()
    moments = iter([100.0, 100.0 + 2 * SLOW_S, 101.0])
    near = NearSqliteStore(path, clock=lambda: next(moments, ticks.now + REST_S * 2))

    assert near.try_commit([entry("a")], [])
    assert not near.try_commit([entry("b")], [])
    assert near.try_commit([entry("b")], [])


def test_a_record_that_cannot_be_stored_leaves_nothing_behind(path: Path) -> None:
    near = NearSqliteStore(path)

    assert not near.try_commit([entry("a"), entry("b", latency_us=2**70)], [])
    assert ids(path) == []


def test_a_file_that_was_removed_is_not_written_to_any_more(path: Path) -> None:
    near = NearSqliteStore(path, clock=Ticks())
    assert near.try_commit([entry("a")], [])
    path.unlink()

    assert not near.try_commit([entry("b")], [])


def test_the_log_is_moved_into_the_database_from_time_to_time(path: Path) -> None:
    near = NearSqliteStore(path, clock=Ticks())
    for number in range(CHECKPOINT_EVERY):
        assert near.try_commit([entry(f"{number}")], [])

    assert near.needs_tidying
    near.tidy()
    assert not near.needs_tidying
    log = path.with_name(path.name + "-wal")
    size = log.stat().st_size
    assert near.try_commit([entry("next")], [])
    assert log.stat().st_size == size, "the log is begun anew, not grown"
