"""Small commits to SQLite within the event loop's own turn.

In WAL mode without waiting for the disk a commit is a few writes into the
kernel's page cache: some 30 microseconds, less than handing the work to another
thread and being woken by it. Whatever may take longer is not done here: another
writer's lock is not waited for, checkpoints are left to the writer's thread,
and after a commit that was slow, or failed, this store rests: as long as keeps
slow commits a small share of the loop's time, twice as long each time that the
next one is no better.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.money.records import AttemptRecord, EntryRecord, UptimeRecord
from gateway.money.sqlite import identity, insert

SLOW_S = 0.005
"""A commit that took longer shows a disk that should not be met in the loop."""
SLOW_SHARE = 0.02
"""Of the loop's time, what slow commits may take: 5 ms are followed by a rest of 250 ms."""
LOCKED_S = 0.05
"""The first rest after a commit that failed, mostly since another process was writing."""
MOST_REST_S = 5.0
CHECKPOINT_EVERY = 500
"""Commits between checkpoints: the log stays at a few megabytes."""


class NearSqliteStore:
    """Commits at once or not at all; belongs to the loop's thread, but for `tidy`.

    The file must have been migrated already. `clock` is monotonic seconds.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._path = path
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._rests_until = 0.0
        self._misses = 0
        self._commits = 0

    def try_commit(
        self,
        entries: Sequence[EntryRecord],
        attempts: Sequence[AttemptRecord],
        uptimes: Sequence[UptimeRecord] = (),
    ) -> bool:
        """Write all and return True; or nothing, and return False."""
        began = self._clock()
        if began < self._rests_until or not entries:
            return False
        try:
            connection = self._ready()
            connection.execute("BEGIN IMMEDIATE")
            insert(connection, entries, attempts, uptimes)
            connection.execute("COMMIT")
        except Exception:
            # Whatever it was, the writer's thread meets it too, and knows what to do about it.
            self.close()
            self._rest(self._clock(), LOCKED_S)
            return False
        self._commits += 1
        if (took := (ended := self._clock()) - began) > SLOW_S:
            self._rest(ended, took / SLOW_SHARE)
        else:
            self._misses = 0
        return True

    def _rest(self, now: float, first_s: float) -> None:
        """Leave commits to the writer's thread, the longer the more were slow or failed in a row.

        A busy machine makes one commit slow; a slow disk makes them all so.
        """
        self._rests_until = now + min(MOST_REST_S, first_s * 2.0 ** min(self._misses, 10))
        self._misses += 1

    @property
    def needs_tidying(self) -> bool:
        """Return whether the log has grown enough to be moved into the database."""
        return self._commits >= CHECKPOINT_EVERY

    def tidy(self) -> None:
        """Move the log into the database; called in the writer's thread."""
        self._commits = 0
        with contextlib.suppress(sqlite3.Error), contextlib.closing(self._connect()) as own:
            own.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def close(self) -> None:
        """Disconnect; what was not committed is not there."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _ready(self) -> sqlite3.Connection:
        if self._connection is None or identity(self._path) != self._file:
            self.close()
            self._file = identity(self._path)
            if self._file is None:
                raise sqlite3.OperationalError("the ledger's file is gone")
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=0.0, isolation_level=None)
        connection.execute("PRAGMA synchronous = normal")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        return connection
