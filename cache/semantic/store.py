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
from typing import Any, NamedTuple, Protocol

import msgspec

from cache.codec import Corrupt, Stored, dump, load
from cache.fingerprint import corpus_partition, partition, writer_mark
from cache.scope import Scope
from cache.semantic.decision_budget import ErrorBudget
from cache.semantic.decision_features import answer_key
from cache.semantic.eviction import Eviction
from cache.semantic.learnt import LearntTable
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
    name BLOB NOT NULL DEFAULT x'',
    UNIQUE (embedder, scope, question)
);
CREATE TABLE IF NOT EXISTS followed (
    embedder TEXT PRIMARY KEY,
    log TEXT NOT NULL,
    position INTEGER NOT NULL,
    epoch INTEGER NOT NULL
) WITHOUT ROWID;
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
    "hits, name, per_byte, priority"
)
_SEAL = slice(6, 14)
_SEAL_SQL = "substr(reply, 7, 8)"
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
    codes: bytes


class Place(NamedTuple):
    """Where an entry stands in the index."""

    id: int
    scope: bytes
    codes: bytes


class Gone(NamedTuple):
    """An entry that was removed."""

    id: int
    scope: bytes


class Record(msgspec.Struct, array_like=True, frozen=True):
    """An entry as it travels between replicas; its answer is sealed for this question."""

    scope: bytes
    question: str
    codes: bytes
    answer_len: int
    answer_key: str
    sealed: bytes

    @property
    def name(self) -> bytes:
        """Return what the entry is called by all replicas."""
        return entry_name(self.scope, self.question)

    def opened(self) -> Stored:
        """Return the answer, and the epoch it was made in. Raises Corrupt."""
        return load(_key(self.scope, self.question), self.sealed)


class Told(Protocol):
    """Hears of what changes in a store, in its thread."""

    def changed(self, name: bytes, is_there: bool) -> None:
        """Hear of an entry that was put or removed."""
        ...

    def voided(self, scope: Scope, seals: Mapping[bytes, bytes]) -> None:
        """Hear of a scope that was removed, and of which of its entries were here."""
        ...


class AnswerStore:
    """The entries of one embedder's version; a context manager, used by one thread.

    `stamp` is the epoch that new entries are made in: the last one whose invalidations
    are carried out here. `told` hears of what is put and removed on our own account, and
    not of what `take` and `lose` do for others.
    """

    def __init__(self, path: Path | None, embedder: str, told: Told | None = None) -> None:
        self._told = told
        self._embedder = embedder
        self._file = _connected(path)
        self._file.executescript(_SCHEMA)
        _add_names(self._file)
        self._eviction = Eviction(self._file, embedder)
        self.learnt = LearntTable(self._file, embedder)
        self.followed, self.stamp = self._place()

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
        body = dump(_key(scope, question), Stored(reply, expires_at, self.stamp))
        record = Record(scope, question, codes, len(answer), answer_key(answer), body)
        placed = self._put(record, reply, expires_at)
        self._tell([record.name], True)
        return placed

    def take(self, record: Record) -> tuple[int, int | None]:
        """Keep what another replica has put; return as `put` does. Raises Corrupt."""
        stored = record.opened()
        return self._put(record, stored.reply, stored.expires_at)

    def lose(self, names: Sequence[bytes]) -> list[Gone]:
        """Remove what another replica has removed."""
        marks = ",".join("?" * len(names))
        return self._dropped(f"embedder = ? AND name IN ({marks})", (self._embedder, *names))

    def lose_where(self, wanted: Scope) -> list[Gone]:
        """Remove what another replica was told to forget."""
        return self._dropped(*_condition(wanted, None))

    def records(self, names: Sequence[bytes]) -> list[Record]:
        """Return entries as they travel; those that are gone are left out."""
        marks = ",".join("?" * len(names))
        rows = self._file.execute(
            "SELECT scope, question, codes, answer_len, answer_key, reply FROM answer "
            f"WHERE embedder = ? AND name IN ({marks})",
            (self._embedder, *names),
        )
        return [Record(*row) for row in rows]

    def seals(self, names: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the seal of the entries that are here, by name."""
        marks = ",".join("?" * len(names))
        rows = self._file.execute(
            f"SELECT name, {_SEAL_SQL} FROM answer WHERE embedder = ? AND name IN ({marks})",
            (self._embedder, *names),
        )
        return dict(rows)

    def names(self, after: bytes, most: int) -> list[bytes]:
        """Return names beyond one, in rising order."""
        rows = self._file.execute(
            "SELECT name FROM answer WHERE embedder = ? AND name > ? ORDER BY name LIMIT ?",
            (self._embedder, after, most),
        )
        return [row[0] for row in rows]

    def note(self, followed: tuple[str, int], stamp: int) -> None:
        """Keep which log the entries are in step with, how far, and the epoch."""
        self.followed, self.stamp = followed, stamp
        with self._file as file:
            file.execute(
                "INSERT OR REPLACE INTO followed VALUES (?, ?, ?, ?)",
                (self._embedder, *followed, stamp),
            )

    def _place(self) -> tuple[tuple[str, int], int]:
        query = "SELECT log, position, epoch FROM followed WHERE embedder = ?"
        row = self._file.execute(query, (self._embedder,)).fetchone()
        return ((row[0], row[1]), row[2]) if row else (("", 0), 0)

    def _put(self, record: Record, reply: CachedReply, expires_at: float) -> tuple[int, int | None]:
        tags = _EDGE.join(("", *reply.tags, ""))
        with self._file as file:
            old = file.execute(
                "DELETE FROM answer WHERE embedder = ? AND scope = ? AND question = ? RETURNING id",
                (self._embedder, record.scope, record.question),
            ).fetchone()
            new = file.execute(
                "INSERT INTO answer (embedder, scope, question, route, model, tags, codes, reply, "
                "answer_len, answer_key, created_at, expires_at, name) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    self._embedder,
                    record.scope,
                    record.question,
                    reply.route,
                    reply.model,
                    tags,
                    record.codes,
                    record.sealed,
                    record.answer_len,
                    record.answer_key,
                    reply.created_at,
                    expires_at,
                    record.name,
                ),
            ).lastrowid
            assert new is not None, "an insert gives a number"
            size = len(record.sealed) + len(record.codes) + len(record.question)
            self._eviction.place(new, reply.worth, size)
        return new, old[0] if old else None

    def questions(self, ids: Sequence[int], now: float) -> Mapping[int, Question]:
        """Return those entries that are still there and not yet too old, by number."""
        marks = ",".join("?" * len(ids))
        rows = self._file.execute(
            "SELECT id, question, answer_len, answer_key, hits, created_at, expires_at, codes "
            f"FROM answer WHERE id IN ({marks}) AND +expires_at > ?",
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
        with self._file:
            self._eviction.count_hits(hits)

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
        marks = ",".join("?" * len(ids))
        return len(self._dropped_here(f"id IN ({marks})", ids))

    def drop_where(self, wanted: Scope, question: str | None = None) -> list[Gone]:
        """Remove the entries that somebody means, of any embedder; one question's where given."""
        removed = self._removed(*_condition(wanted, question))
        names = [name for _, name, _ in removed]
        if self._told is not None and question is None:
            self._told.voided(wanted, {name: seal for _, name, seal in removed})
        elif wanted.key is not None and question is not None:
            self._tell([entry_name(wanted.key, question)], False)  # others may have it
        else:
            self._tell(names, False)
        return [gone for gone, _, _ in removed]

    def count_where(self, wanted: Scope, question: str | None = None) -> int:
        """Return how many entries `drop_where` would remove."""
        condition, values = _condition(wanted, question)
        query = f"SELECT count(*) FROM answer WHERE {condition}"
        count: int = self._file.execute(query, values).fetchone()[0]
        return count

    def drop_expired(self, now: float) -> list[Gone]:
        """Remove entries past their time, of any embedder."""
        return self._dropped("expires_at <= ?", (now,))

    def drop_beyond(self, owner: bytes, most: int) -> list[Gone]:
        """Remove those of one owner's entries beyond a bound that save least for their room."""
        least = self._eviction.beyond(owner, most)
        return self._dropped_here(*least) if least is not None else []

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
        return [gone for gone, _, _ in self._removed(condition, values)]

    def _dropped_here(self, condition: str, values: Sequence[Any]) -> list[Gone]:
        """Remove entries on our own account."""
        removed = self._removed(condition, values)
        self._tell([name for _, name, _ in removed], False)
        return [gone for gone, _, _ in removed]

    def _removed(self, condition: str, values: Sequence[Any]) -> list[tuple[Gone, bytes, bytes]]:
        with self._file as file:
            rows = file.execute(
                f"DELETE FROM answer WHERE {condition} RETURNING id, scope, name, {_SEAL_SQL}",
                values,
            )
            return [(Gone(*row[:2]), row[2], row[3]) for row in rows.fetchall()]

    def _tell(self, names: Sequence[bytes], is_there: bool) -> None:
        if self._told is not None:
            for name in names:
                self._told.changed(name, is_there)


def _connected(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        path.touch(mode=0o600)  # it holds what people asked
    file = sqlite3.connect(str(path) if path else ":memory:", check_same_thread=False)
    file.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    file.execute("PRAGMA journal_mode = WAL")
    # A power cut may lose the last answers, which is no harm to a cache; a crash loses none.
    file.execute("PRAGMA synchronous = NORMAL")
    return file


def _add_names(file: sqlite3.Connection) -> None:
    """Name the entries of a file that was made before they had names."""
    columns = {row[1] for row in file.execute("PRAGMA table_info(answer)")}
    if "name" not in columns:
        file.execute("ALTER TABLE answer ADD COLUMN name BLOB NOT NULL DEFAULT x''")
    file.execute("CREATE INDEX IF NOT EXISTS answer_name ON answer (embedder, name)")
    unnamed = file.execute("SELECT id, scope, question FROM answer WHERE name = x''").fetchall()
    with file:
        file.executemany(
            "UPDATE answer SET name = ? WHERE id = ?",
            [(entry_name(scope, question), number) for number, scope, question in unnamed],
        )


def entry_name(scope: bytes, question: str) -> bytes:
    """Return what an entry is called by all who share it."""
    return blake2b(scope + question.encode(), digest_size=16, person=b"entry").digest()


def seal_of(sealed: bytes) -> bytes:
    """Return what tells one answer of an entry from a later one: a part of its digest."""
    return sealed[_SEAL]


def _key(scope: bytes, question: str) -> bytes:
    """Return what an answer is sealed with, so that it is never read for another question."""
    return blake2b(scope + question.encode(), digest_size=32).digest()


def _condition(wanted: Scope, question: str | None) -> tuple[str, tuple[Any, ...]]:
    """Return the condition for SQL; only its values come from outside."""
    parts: list[tuple[Any, ...]] = []
    if wanted.tenant is not None:
        mark = f"{_EDGE}{writer_mark(wanted.tenant)}{_EDGE}"
        own = "(substr(scope, 1, 8) = ? OR instr(tags, ?) > 0)"
        parts.append((own, partition(wanted.tenant), mark))
    if wanted.corpus is not None:
        parts.append(("substr(scope, 1, 8) = ?", corpus_partition(wanted.corpus)))
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
    condition = " AND ".join(text for text, *_ in parts) or "1"
    return condition, tuple(value for _, *values in parts for value in values)
