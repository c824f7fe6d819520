"""What deciders have learnt, beside the answers it is about, so that a restart loses little.

A row is one thing that was learnt: of a tenant's route, a kind and a name. It is of use to
the same embedder and calibration only, its *basis*; what others left behind is passed over
until it is the oldest. What a row holds is its decider's affair.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

MOST_A_ROUTE = 20_000
"""Rows of one tenant's route; beyond, those that were not written to for longest go."""

MOST = 200_000
"""Rows in all, seen to at every start."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS learnt (
    tenant TEXT NOT NULL,
    route TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    basis TEXT NOT NULL,
    state BLOB NOT NULL,
    written_at REAL NOT NULL,
    PRIMARY KEY (tenant, route, kind, name)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS learnt_written ON learnt (written_at);
"""
_log = logging.getLogger(__name__)


class Lesson(NamedTuple):
    """One thing that was learnt."""

    kind: str
    name: str
    state: bytes


class LearntTable:
    """The lessons in a store's file; used by the store's thread. May raise sqlite3.Error."""

    def __init__(self, file: sqlite3.Connection, embedder: str) -> None:
        self._file = file
        self._embedder = embedder
        file.executescript(_SCHEMA)
        with file:
            file.execute(
                "DELETE FROM learnt WHERE written_at < (SELECT written_at FROM learnt "
                "ORDER BY written_at DESC LIMIT 1 OFFSET ?)",
                (MOST - 1,),
            )

    def recall(self, tenant: str, route: str, basis: str) -> list[Lesson]:
        """Return what a tenant's route has learnt on a basis, what is oldest first."""
        rows = self._file.execute(
            "SELECT kind, name, state, basis FROM learnt WHERE tenant = ? AND route = ? "
            "ORDER BY written_at",
            (tenant, route),
        ).fetchall()
        own = self._basis(basis)
        found = [Lesson(*row[:3]) for row in rows if row[3] == own and isinstance(row[2], bytes)]
        if len(found) < len(rows):
            _log.warning(
                "route %s, tenant %s: passed over %d of %d things learnt: they are of another "
                "embedder or calibration, or damaged",
                route, tenant, len(rows) - len(found), len(rows),
            )  # fmt: skip
        return found

    def write(
        self, tenant: str, route: str, basis: str, lessons: Sequence[Lesson], now: float
    ) -> None:
        """Keep lessons in place of earlier ones of their kind and name."""
        own = self._basis(basis)
        rows = [(tenant, route, *lesson[:2], own, lesson.state, now) for lesson in lessons]
        with self._file as file:
            file.executemany("INSERT OR REPLACE INTO learnt VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            self._tidy(tenant, route)

    def _tidy(self, tenant: str, route: str) -> None:
        place = "tenant = ? AND route = ?"
        count = self._file.execute(f"SELECT count(*) FROM learnt WHERE {place}", (tenant, route))
        spare: int = count.fetchone()[0] - MOST_A_ROUTE
        if spare > 0:
            self._file.execute(
                f"DELETE FROM learnt WHERE {place} AND (kind, name) IN "
                f"(SELECT kind, name FROM learnt WHERE {place} ORDER BY written_at LIMIT ?)",
                (tenant, route, tenant, route, spare),
            )

    def _basis(self, basis: str) -> str:
        return blake2b(f"{self._embedder} {basis}".encode(), digest_size=12).hexdigest()
