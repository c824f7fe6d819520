"""Answers on disk for those who may ask again: what `idempotency-key` promises outlives a restart.

A SQLite file of its own beside the ledger, for its owner alone: the ledger
holds no words of anybody. Every call opens and closes it, in a thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cache.codec import Corrupt, Stored, dump, load
from cache.types import CachedReply

MAX_BYTES = 64 * 1024 * 1024
_TRIM_EVERY = 50
_BUSY_S = 1.0
_log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS reply (
    mark BLOB PRIMARY KEY, body BLOB NOT NULL, expires_at REAL NOT NULL, data BLOB NOT NULL
) STRICT
"""
_PUT = "INSERT OR REPLACE INTO reply VALUES (?, ?, ?, ?)"
_EXPIRE = "DELETE FROM reply WHERE expires_at <= ?"
_TRIM = """
DELETE FROM reply WHERE mark IN (
    SELECT mark FROM (
        SELECT mark, sum(length(data)) OVER (ORDER BY expires_at DESC, mark) AS total FROM reply
    ) WHERE total > ?
)
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer, the fingerprint of the body that it answers, and when it is forgotten."""

    body: bytes
    reply: CachedReply
    expires_at: float


class Shelf:
    """Keeps what is newest within `max_bytes`; a disk that fails is passed over."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._puts = 0

    def get(self, mark: bytes, *, at: float) -> Kept | None:
        """Return what is kept under a mark, unless it is forgotten by the moment `at`."""
        if not self._path.exists():
            return None
        try:
            with self._open() as connection:
                query = "SELECT body, data FROM reply WHERE mark = ? AND expires_at > ?"
                row = connection.execute(query, (mark, at)).fetchone()
            if row is None:
                return None
            stored = load(mark, row[1])
        except (sqlite3.Error, OSError, Corrupt) as exc:
            _log.warning("%s: an answer cannot be read again: %s", self._path, exc)
            return None
        return Kept(row[0], stored.reply, stored.expires_at)

    def put(self, mark: bytes, kept: Kept, *, at: float) -> None:
        """Keep an answer."""
        data = dump(mark, Stored(kept.reply, kept.expires_at, 0))
        try:
            with self._open() as connection, connection:
                connection.execute(_PUT, (mark, kept.body, kept.expires_at, data))
                if self._puts % _TRIM_EVERY == 0:
                    connection.execute(_EXPIRE, (at,))
                    connection.execute(_TRIM, (self._max_bytes,))
            self._puts += 1
        except (sqlite3.Error, OSError) as exc:
            _log.warning("%s: an answer will be forgotten at a restart: %s", self._path, exc)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        with contextlib.closing(sqlite3.connect(self._path, timeout=_BUSY_S)) as connection:
            connection.execute("PRAGMA journal_mode = wal")
            connection.execute("PRAGMA synchronous = normal")
            connection.execute(_SCHEMA)
            yield connection
