"""Which answers go when there is no more room: those that save least for the bytes they take.

The rule is that of the exact cache's memory (GreedyDual-Size with frequency: Cherkasova,
1998, HPL-98-69): uses x worth / size, on top of what the last one to go had. So what was
once in demand does not stay for ever, and each owner's entries compete among themselves.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

_OVERHEAD = 400  # bytes of a row and its place in the index, beside question, vector and answer
_UNKNOWN = 1e-3  # dollars, for entries of a file that did not say yet what theirs cost
_SCHEMA = """
CREATE TABLE IF NOT EXISTS aged (owner BLOB PRIMARY KEY, age REAL NOT NULL) WITHOUT ROWID;
"""
_AGE = "COALESCE((SELECT age FROM aged WHERE owner = substr(scope, 1, 8)), 0.0)"
_OWN = "embedder = ? AND scope >= ? AND scope < ?"


class Eviction:
    """The order of a store's entries; writes within the store's transactions."""

    def __init__(self, file: sqlite3.Connection, embedder: str) -> None:
        self._file = file
        self._embedder = embedder
        file.executescript(_SCHEMA)
        _add_columns(file)

    def place(self, number: int, worth: float, size: int) -> None:
        """Give a new entry its place; `worth` is in dollars, `size` in bytes."""
        self._file.execute(
            f"UPDATE answer SET per_byte = ?, priority = ? + {_AGE} WHERE id = ?",
            (per_byte := worth / (size + _OVERHEAD), per_byte, number),
        )

    def count_hits(self, hits: Mapping[int, int]) -> None:
        """Add to how often entries were served, and move them up."""
        self._file.executemany(
            "UPDATE answer SET hits = hits + :count, "
            f"priority = (hits + :count + 1) * per_byte + {_AGE} WHERE id = :number",
            [{"number": number, "count": count} for number, count in hits.items()],
        )

    def beyond(self, owner: bytes, most: int) -> tuple[str, tuple[object, ...]] | None:
        """Return the condition, for SQL, of what an owner has to let go of; None for nothing.

        Whatever comes or is used from now on stands above that.
        """
        own = (self._embedder, owner, _following(owner))
        query = f"SELECT count(*) FROM answer WHERE {_OWN}"
        spare: int = self._file.execute(query, own).fetchone()[0] - most
        if spare <= 0:
            return None
        least = f"FROM answer WHERE {_OWN} ORDER BY priority, id LIMIT ?"
        with self._file as file:
            # What another embedder left behind may stand lower: time does not go back for it.
            file.execute(
                "INSERT INTO aged "
                f"SELECT ?, max(priority) FROM (SELECT priority {least}) WHERE true "
                "ON CONFLICT (owner) DO UPDATE SET age = max(age, excluded.age)",
                (owner, *own, spare),
            )
        return f"id IN (SELECT id {least})", (*own, spare)


def _add_columns(file: sqlite3.Connection) -> None:
    """Prepare a file that was made before entries were weighed so."""
    columns = {row[1] for row in file.execute("PRAGMA table_info(answer)")}
    if "priority" in columns:
        return
    with file:
        file.execute("ALTER TABLE answer ADD COLUMN per_byte REAL NOT NULL DEFAULT 0.0")
        file.execute("ALTER TABLE answer ADD COLUMN priority REAL NOT NULL DEFAULT 0.0")
        file.execute(
            "UPDATE answer SET per_byte = ? / (length(reply) + ?), "
            "priority = (hits + 1) * ? / (length(reply) + ?)",
            (_UNKNOWN, _OVERHEAD, _UNKNOWN, _OVERHEAD),
        )


def _following(prefix: bytes) -> bytes:
    """Return the first bytes after all that begin with `prefix`."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else b"\xff" * 64
