"""The embedded ledger store: one SQLite file in WAL mode, shared by all processes of a machine.

A commit survives `kill -9` at `synchronous=NORMAL` (the write-ahead log reaches
the operating system), and a power cut, too, at FULL (it reaches the disk).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from gateway.money.errors import LedgerError, UnwritableRecord
from gateway.money.migrate import migrate_sqlite
from gateway.money.records import AttemptRecord, EntryRecord, UptimeRecord

Row = tuple[str | int | float | None, ...]
Synchronous = Literal["normal", "full"]

_AT_ONCE = 500  # fewer than SQLite takes in one statement
_LOG_BYTES = 64 * 1024 * 1024

_USAGE = (
    "input", "cached_input", "cache_write", "output", "reasoning",
    "audio", "audio_output", "image", "compute_us",
)  # fmt: skip
_ENTRY = (
    "request_id", "started_at_us", "state", "tenant", "key", "tags", "route", "model",
    "requested_model", "cache", "path", "stream", "status", *_USAGE,
    "cost_nano_usd", "saved_nano_usd", "reference_model", "estimated",
    "lower_nano_usd", "upper_nano_usd", "latency_us", "ttft_us", "error",
)  # fmt: skip
_ATTEMPT = (
    "request_id", "seq", "model", "provider", "purpose", "payer", "outcome", "confidence",
    "reason", *_USAGE, "cost_nano_usd", "estimated", "lower_nano_usd", "upper_nano_usd",
    "latency_us", "ttft_us", "price_source", "price_dated", "cache_write_1h", "tier",
    "began_us",
)  # fmt: skip
_UPTIME = ("run_id", "model", "started_at_us", "seen_at_us", "machine_hour_nano_usd")


def _insert(table: str, columns: Sequence[str], conflict: str) -> str:
    names = ", ".join(f'"{name}"' for name in columns)
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({names}) VALUES ({marks}) {conflict}"


def _replace(columns: Sequence[str]) -> str:
    return ", ".join(f'"{name}" = excluded."{name}"' for name in columns)


# What is settled stays as it is; what was only opened is closed by its second record.
_INSERT_ENTRY = _insert(
    "entry",
    _ENTRY,
    f"ON CONFLICT (request_id) DO UPDATE SET {_replace(_ENTRY[1:])} WHERE entry.state = 'open'",
)
_INSERT_ATTEMPT = _insert("attempt", _ATTEMPT, "ON CONFLICT DO NOTHING")
_INSERT_UPTIME = _insert(
    "uptime",
    _UPTIME,
    "ON CONFLICT (run_id, model) DO UPDATE SET seen_at_us = max(seen_at_us, excluded.seen_at_us)",
)
# Rewriting a row in place needs the disk as a record does.
_PROBE = "UPDATE alembic_version SET version_num = version_num"

_BAD_VALUE = (
    AttributeError,
    OverflowError,
    UnicodeEncodeError,
    TypeError,
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
)


class SqliteStore:
    """Writes batches of records, each in one transaction; belongs to one thread.

    `busy_s` is how long a commit waits for another process' lock.
    """

    def __init__(
        self, path: Path, *, busy_s: float = 2.0, synchronous: Synchronous = "normal"
    ) -> None:
        self._path = path
        self._busy_s = busy_s
        self._synchronous = synchronous
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    def open(self) -> None:
        """Migrate and connect. Raises LedgerError."""
        self._open(wait_s=60.0)

    def commit(
        self,
        entries: Sequence[EntryRecord],
        attempts: Sequence[AttemptRecord],
        uptimes: Sequence[UptimeRecord] = (),
    ) -> None:
        """Write all of it or nothing; an empty batch proves that writing works.

        Raises UnwritableRecord where a value is at fault, LedgerError where the
        database is; the next call connects anew.
        """
        try:
            self._commit(entries, attempts, uptimes)
        except _BAD_VALUE as exc:
            self._roll_back()
            raise UnwritableRecord(f"ledger {self._path}: cannot store a value: {exc}") from exc
        except (sqlite3.Error, OSError) as exc:
            self.close()
            raise LedgerError(
                f"ledger {self._path}: {exc}; check its disk, its rights and its other writers"
            ) from exc

    def known(self, request_ids: Sequence[str]) -> set[str]:
        """Return which of these requests have an entry; from any thread. Raises LedgerError."""
        try:
            with contextlib.closing(sqlite3.connect(self._path, timeout=self._busy_s)) as own:
                return set(_known(own, request_ids))
        except (sqlite3.Error, OSError) as exc:
            raise LedgerError(f"ledger {self._path}: {exc}; check its disk and its rights") from exc

    def close(self) -> None:
        """Disconnect; what was not committed is not there."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _open(self, wait_s: float) -> None:
        migrate_sqlite(self._path, wait_s=wait_s)
        try:
            self._connection = self._connect()
            self._file = identity(self._path)
        except (sqlite3.Error, OSError) as exc:
            raise LedgerError(f"ledger {self._path}: cannot be opened: {exc}") from exc

    def _commit(
        self,
        entries: Sequence[EntryRecord],
        attempts: Sequence[AttemptRecord],
        uptimes: Sequence[UptimeRecord],
    ) -> None:
        connection = self._ready()
        connection.execute("BEGIN IMMEDIATE")
        insert(connection, entries, attempts, uptimes)
        if not (entries or attempts or uptimes):
            connection.execute(_PROBE)
        connection.execute("COMMIT")

    def _ready(self) -> sqlite3.Connection:
        """Return a connection to the file that the path names now, not to one since removed."""
        if self._connection is not None and identity(self._path) != self._file:
            self.close()
        if self._connection is None:
            self._open(wait_s=self._busy_s)
        assert self._connection is not None
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=self._busy_s, isolation_level=None)
        _use_wal(connection, time.monotonic() + self._busy_s)
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        # What a long reader made the log grow by is given back to the disk.
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        return connection

    def _roll_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")


def insert(
    connection: sqlite3.Connection,
    entries: Sequence[EntryRecord],
    attempts: Sequence[AttemptRecord],
    uptimes: Sequence[UptimeRecord],
) -> None:
    """Add records to a transaction; one that is there already changes nothing."""
    if entries:
        connection.executemany(_INSERT_ENTRY, map(_entry_row, entries))
    if attempts:
        connection.executemany(_INSERT_ATTEMPT, map(_attempt_row, attempts))
    if uptimes:
        connection.executemany(_INSERT_UPTIME, map(_uptime_row, uptimes))


def _known(connection: sqlite3.Connection, request_ids: Sequence[str]) -> Iterator[str]:
    for start in range(0, len(request_ids), _AT_ONCE):
        some = request_ids[start : start + _AT_ONCE]
        marks = ", ".join("?" * len(some))
        query = f"SELECT request_id FROM entry WHERE request_id IN ({marks}) AND state <> 'open'"
        for (request_id,) in connection.execute(query, list(some)):
            yield request_id


def identity(path: Path) -> tuple[int, int] | None:
    """Return what tells one file from another of the same name; None where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _use_wal(connection: sqlite3.Connection, deadline: float) -> None:
    """Switch to WAL; SQLite does not wait for its lock here, so ask until it is free."""
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = wal").fetchone()[0]
        except sqlite3.OperationalError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
            continue
        if mode != "wal":
            raise sqlite3.OperationalError(f"expected a disk that allows WAL mode, found {mode}")
        return


def _entry_row(entry: EntryRecord) -> Row:
    used = entry.usage
    return (
        entry.request_id,
        entry.started_at_us,
        entry.state,
        entry.tenant,
        entry.key,
        msgspec.json.encode(entry.tags).decode() if entry.tags else "[]",
        entry.route,
        entry.model,
        entry.requested_model,
        entry.cache,
        entry.path,
        1 if entry.stream else 0,
        entry.status,
        used.input,
        used.cached_input,
        used.cache_write + used.cache_write_1h,
        used.output,
        used.reasoning,
        used.audio,
        used.audio_output,
        used.image,
        round(used.compute_s * 1_000_000),
        entry.cost_nano_usd,
        entry.saved_nano_usd,
        entry.reference_model,
        1 if entry.estimated else 0,
        entry.lower_nano_usd,
        entry.upper_nano_usd,
        entry.latency_us,
        entry.ttft_us,
        entry.error,
    )


def _attempt_row(attempt: AttemptRecord) -> Row:
    used = attempt.usage
    return (
        attempt.request_id,
        attempt.seq,
        attempt.model,
        attempt.provider,
        attempt.purpose,
        attempt.payer,
        attempt.outcome,
        attempt.confidence,
        attempt.reason,
        used.input,
        used.cached_input,
        used.cache_write + used.cache_write_1h,
        used.output,
        used.reasoning,
        used.audio,
        used.audio_output,
        used.image,
        round(used.compute_s * 1_000_000),
        attempt.cost_nano_usd,
        1 if used.estimated else 0,
        attempt.lower_nano_usd,
        attempt.upper_nano_usd,
        attempt.latency_us,
        attempt.ttft_us,
        attempt.price_source,
        attempt.price_dated,
        used.cache_write_1h,
        used.tier,
        attempt.began_us,
    )


def _uptime_row(up: UptimeRecord) -> Row:
    return up.run_id, up.model, up.started_at_us, up.seen_at_us, up.machine_hour_nano_usd
