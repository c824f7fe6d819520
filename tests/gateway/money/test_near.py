from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from gateway.money.near import (
    CHECKPOINT_EVERY,
    LOCKED_S,
    MOST_REST_S,
    SLOW_S,
    SLOW_SHARE,
    NearSqliteStore,
)
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
    ticks.now += LOCKED_S
    assert near.try_commit([entry("a")], [])
    assert ids(path) == ["a"]


class Disk(Ticks):
    """A clock by which each commit takes as long as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.takes_s = 0.0
        self._is_end = False

    def __call__(self) -> float:
        if self._is_end:
            self.now += self.takes_s
        self._is_end = not self._is_end
        return self.now


def rests_s(disk: Disk, near: NearSqliteStore, name: str) -> float:
    """Commit once, and return for how long the store then does no more."""
    assert near.try_commit([entry(name)], [])
    return near._rests_until - disk.now


def test_a_slow_commit_is_paid_for_by_a_rest_in_proportion(path: Path) -> None:
    disk = Disk()
    near = NearSqliteStore(path, clock=disk)
    disk.takes_s = 2 * SLOW_S

    assert rests_s(disk, near, "a") == pytest.approx(2 * SLOW_S / SLOW_SHARE)
    disk._is_end = False
    assert not near.try_commit([entry("b")], []), "it rests"


def test_rests_grow_while_the_disk_stays_slow_and_end_once_it_is_quick(path: Path) -> None:
    disk = Disk()
    near = NearSqliteStore(path, clock=disk)
    disk.takes_s = 2 * SLOW_S
    rests = []
    for number in range(8):
        rests.append(rests_s(disk, near, f"{number}"))
        disk.now += rests[-1]
    disk.takes_s = 0.0
    assert near.try_commit([entry("quick")], [])
    disk.takes_s = 2 * SLOW_S
    again = rests_s(disk, near, "slow")

    assert rests[1] == pytest.approx(2 * rests[0])
    assert rests[-1] == pytest.approx(MOST_REST_S)
    assert again == pytest.approx(rests[0])


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
