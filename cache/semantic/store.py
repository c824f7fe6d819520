"""Questions with their vectors and answers in one SQLite file.

Written by one thread of each process, in transactions: a crash loses what was
not committed and nothing else. Processes of one machine may share a file; each
follows what the others add by the rising number of the entries, and an entry
that another has dropped is no longer found when its answer is to be served.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from cache.codec import Corrupt, Stored, dump, load
from cache.fingerprint import partition
from cache.scope import Scope
from cache.semantic.decision_budget import ErrorBudget
from cache.semantic.decision_features import answer_key
from cache.types import CachedReply

_BUSY_MS = 2000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answer (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    embedder TEXT NOT NULL,
    scope BLOB NOT NULL,
    question TEXT NOT NULL,
    route TEXT NOT NULL,
    model TEXT NOT NULL,
    tags TEXT NOT NULL,
    codes BLOB NOT NULL,
    reply BLOB NOT NULL,
    answer_len INTEGER NOT NULL,
    answer_key TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    hits INTEGER NOT NULL DEFAULT 0,
    UNIQUE (embedder, scope, question)
);
CREATE INDEX IF NOT EXISTS answer_expires ON answer (expires_at);
CREATE INDEX IF NOT EXISTS answer_scope ON answer (scope);
CREATE TABLE IF NOT EXISTS identity (only_one INTEGER PRIMARY KEY, name TEXT NOT NULL);
INSERT OR IGNORE INTO identity VALUES (1, lower(hex(randomblob(8))));
CREATE TABLE IF NOT EXISTS budget (
    tenant TEXT NOT NULL,
    route TEXT NOT NULL,
    is_serving INTEGER NOT NULL,
    audited REAL NOT NULL,
    wrong REAL NOT NULL,
    stops INTEGER NOT NULL,
    PRIMARY KEY (tenant, route)
) WITHOUT ROWID;
"""
_RENEWED = (
    "scope, question, route, model, tags, reply, answer_len, answer_key, created_at, expires_at, "
    "hits"
)
_EDGE = "\x1f"  # stands before and after every tag


@dataclass(frozen=True, slots=True)
class Question:
    """An entry without its answer."""

    id: int
    question: str
    answer_len: int
    answer_key: str
    hits: int
    created_at: float
    expires_at: float


class Place(NamedTuple):
    """Where an entry stands in the index."""

    id: int
    scope: bytes
    codes: bytes


class Gone(NamedTuple):
    """An entry that was removed."""

    id: int
    scope: bytes


class AnswerStore:
    """The entries of one embedder's version; a context manager, used by one thread."""

    def __init__(self, path: Path | None, embedder: str) -> None:
        self._embedder = embedder
        self._file = _connected(path)
        self._file.executescript(_SCHEMA)

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def put(
        self,
        scope: bytes,
        question: str,
        codes: bytes,
        reply: CachedReply,
        *,
        answer: str,
        expires_at: float,
    ) -> tuple[int, int | None]:
        """Keep an answer; return its number, and that of the one it takes the place of.

        `answer` is the text of the reply.
        """
        body = dump(_key(scope, question), Stored(reply, expires_at, 0))
        tags = _EDGE.join(("", *reply.tags, ""))
        with self._file as file:
            old = file.execute(
                "DELETE FROM answer WHERE embedder = ? AND scope = ? AND question = ? RETURNING id",
                (self._embedder, scope, question),
            ).fetchone()
            new = file.execute(
                "INSERT INTO answer (embedder, scope, question, route, model, tags, codes, reply, "
                "answer_len, answer_key, created_at, expires_at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    self._embedder,
                    scope,
                    question,
                    reply.route,
                    reply.model,
                    tags,
                    codes,
                    body,
                    len(answer),
                    answer_key(answer),
                    reply.created_at,
                    expires_at,
                ),
            ).lastrowid
        assert new is not None, "an insert gives a number"
        return new, old[0] if old else None

    def questions(self, ids: Sequence[int], now: float) -> Mapping[int, Question]:
        """Return those entries that are still there and not yet too old, by number."""
        marks = ",".join("?" * len(ids))
        rows = self._file.execute(
            "SELECT id, question, answer_len, answer_key, hits, created_at, expires_at FROM answer "
            f"WHERE id IN ({marks}) AND +expires_at > ?",
            (*ids, now),
        )
        return {row[0]: Question(*row) for row in rows}

    def reply(self, number: int) -> CachedReply | None:
        """Return an answer; one that cannot be read whole is dropped."""
        row = self._file.execute(
            "SELECT scope, question, reply FROM answer WHERE id = ?", (number,)
        ).fetchone()
        if row is None:
            return None
        try:
            return load(_key(row[0], row[1]), row[2]).reply
        except Corrupt:
            self.drop([number])
            return None

    def count_hits(self, hits: Mapping[int, int]) -> None:
        """Add to how often entries were served."""
        with self._file as file:
            file.executemany(
                "UPDATE answer SET hits = hits + ? WHERE id = ?",
                [(count, number) for number, count in hits.items()],
            )

    def after(self, number: int, now: float, most: int = 5000) -> list[Place]:
        """Return the entries with higher numbers, in rising order."""
        # The signs keep SQLite from taking another index and sorting what it finds there.
        rows = self._file.execute(
            "SELECT id, scope, codes FROM answer WHERE id > ? AND +embedder = ? "
            "AND +expires_at > ? ORDER BY id LIMIT ?",
            (number, self._embedder, now, most),
        )
        return [Place(*row) for row in rows]

    def alias(self, scope: bytes, question: str, number: int) -> None:
        """Mark a question's answer as the same as that of another entry, if both are there."""
        with self._file as file:
            file.execute(
                "UPDATE answer SET answer_key = (SELECT answer_key FROM answer WHERE id = ?) "
                "WHERE embedder = ? AND scope = ? AND question = ? "
                "AND EXISTS (SELECT 1 FROM answer WHERE id = ?)",
                (number, self._embedder, scope, question, number),
            )

    def drop(self, ids: Sequence[int]) -> int:
        """Remove entries by number; return how many there were."""
        with self._file as file:
            done = [file.execute("DELETE FROM answer WHERE id = ?", (i,)).rowcount for i in ids]
        return sum(done)

    def drop_where(self, wanted: Scope, question: str | None = None) -> list[Gone]:
        """Remove the entries that somebody means, of any embedder; one question's where given."""
        return self._dropped(*_condition(wanted, question))

    def count_where(self, wanted: Scope, question: str | None = None) -> int:
        """Return how many entries `drop_where` would remove."""
        condition, values = _condition(wanted, question)
        query = f"SELECT count(*) FROM answer WHERE {condition}"
        count: int = self._file.execute(query, values).fetchone()[0]
        return count

    def drop_expired(self, now: float) -> list[Gone]:
        """Remove entries past their time, of any embedder."""
        return self._dropped("expires_at <= ?", (now,))

    def drop_beyond(self, tenant: str, most: int) -> list[Gone]:
        """Remove a tenant's least asked for entries, oldest first, beyond a bound."""
        first = partition(tenant)
        own = "embedder = ? AND scope >= ? AND scope < ?"
        values = (self._embedder, first, _following(first))
        query = f"SELECT count(*) FROM answer WHERE {own}"
        spare: int = self._file.execute(query, values).fetchone()[0] - most
        if spare <= 0:
            return []
        oldest = f"SELECT id FROM answer WHERE {own} ORDER BY hits, id LIMIT ?"
        return self._dropped(f"id IN ({oldest})", (*values, spare))

    def budget(self, tenant: str, route: str) -> ErrorBudget:
        """Return what the audits of a tenant's route came to."""
        row = self._file.execute(
            "SELECT is_serving, audited, wrong, stops FROM budget WHERE tenant = ? AND route = ?",
            (tenant, route),
        ).fetchone()
        return ErrorBudget(bool(row[0]), *row[1:]) if row else ErrorBudget()

    def put_budget(self, tenant: str, route: str, budget: ErrorBudget) -> None:
        """Keep what the audits of a tenant's route came to."""
        with self._file as file:
            file.execute(
                "INSERT OR REPLACE INTO budget VALUES (?, ?, ?, ?, ?, ?)",
                (tenant, route, budget.is_serving, budget.audited, budget.wrong, budget.stops),
            )

    def budgets(self) -> list[tuple[str, str, ErrorBudget]]:
        """Return tenant, route and budget of all that were audited."""
        rows = self._file.execute(
            "SELECT tenant, route, is_serving, audited, wrong, stops FROM budget ORDER BY 2, 1"
        )
        return [(row[0], row[1], ErrorBudget(bool(row[2]), *row[3:])) for row in rows]

    @property
    def identity(self) -> str:
        """Return a name that no other file has, nor this one for another embedder."""
        name: str = self._file.execute("SELECT name FROM identity").fetchone()[0]
        return f"{name}-{blake2b(self._embedder.encode(), digest_size=6).hexdigest()}"

    def changes_of_others(self) -> int:
        """Return a number that differs once another process has written."""
        version: int = self._file.execute("PRAGMA data_version").fetchone()[0]
        return version

    def stale(self, most: int) -> list[tuple[int, str]]:
        """Return numbers and questions of entries that another embedder's version made."""
        return self._file.execute(
            "SELECT id, question FROM answer WHERE embedder <> ? ORDER BY id DESC LIMIT ?",
            (self._embedder, most),
        ).fetchall()

    def renew(self, number: int, codes: bytes) -> None:
        """Take an entry over from another embedder, under a new number."""
        with self._file as file:
            file.execute(
                f"INSERT OR IGNORE INTO answer (embedder, codes, {_RENEWED}) "
                f"SELECT ?, ?, {_RENEWED} FROM answer WHERE id = ?",
                (self._embedder, codes, number),
            )
            file.execute("DELETE FROM answer WHERE id = ?", (number,))

    def __len__(self) -> int:
        query = "SELECT count(*) FROM answer WHERE embedder = ?"
        count: int = self._file.execute(query, (self._embedder,)).fetchone()[0]
        return count

    def _dropped(self, condition: str, values: Sequence[Any]) -> list[Gone]:
        with self._file as file:
            rows = file.execute(f"DELETE FROM answer WHERE {condition} RETURNING id, scope", values)
            return [Gone(*row) for row in rows.fetchall()]


def _connected(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        path.touch(mode=0o600)  # it holds what people asked
    file = sqlite3.connect(str(path) if path else ":memory:", check_same_thread=False)
    file.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    file.execute("PRAGMA journal_mode = WAL")
    # A power cut may lose the last answers, which is no harm to a cache; a crash loses none.
    file.execute("PRAGMA synchronous = NORMAL")
    return file


def _key(scope: bytes, question: str) -> bytes:
    """Return what an answer is sealed with, so that it is never read for another question."""
    return blake2b(scope + question.encode(), digest_size=32).digest()


def _following(prefix: bytes) -> bytes:
    """Return the first bytes after all that begin with `prefix`."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1]) if trimmed else b"\xff" * 64


def _condition(wanted: Scope, question: str | None) -> tuple[str, tuple[Any, ...]]:
    """Return the condition for SQL; only its values come from outside."""
    parts: list[tuple[str, Any]] = []
    if wanted.tenant is not None:
        parts.append(("substr(scope, 1, 8) = ?", partition(wanted.tenant)))
    if wanted.route is not None:
        parts.append(("route = ?", wanted.route))
    if wanted.model is not None:
        parts.append(("model = ?", wanted.model))
    if wanted.tag is not None:
        parts.append(("instr(tags, ?) > 0", f"{_EDGE}{wanted.tag}{_EDGE}"))
    if wanted.key is not None:
        parts.append(("scope = ?", wanted.key))
    if question is not None:
        parts.append(("question = ?", question))
    if wanted.before is not None:
        parts.append(("created_at < ?", wanted.before))
    return " AND ".join(text for text, _ in parts) or "1", tuple(value for _, value in parts)
