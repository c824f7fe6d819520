"""Vectors in PostgreSQL with pgvector: the index outlives processes and leaves their memory alone.

One table holds the vectors of all who share a database: an owner, a scope, a number.
Owner and scope are conditions of every search, so nothing crosses from one to another;
small scopes are compared vector by vector, large ones go through an HNSW graph.

A server that is away or hung costs one call its deadline; the calls that follow fail
at once, until it is tried again.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Timer
from typing import Any, TypeVar

import numpy as np
import psycopg
from numpy.typing import NDArray

from cache.backoff import Backoff
from cache.index.codes import Codes, decoded
from cache.index.types import IndexAway, Near, Vectors

_CONNECT_S = 2
_ADDED_AT_ONCE = 1000
_SCANNED = 200  # neighbours that the graph looks at, so that few are lost to other scopes
T = TypeVar("T")


class PgVectors:
    """The vectors of one owner, scope by scope; used by one thread, and closed by it.

    `url` is what libpq takes. The extension must be there, or be ours to create.
    """

    def __init__(
        self,
        url: str,
        owner: str,
        width: int,
        *,
        deadline_s: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.width = width
        self.owner = owner
        self.failures = 0
        self._url = url
        self._table = f"frugal_vector_{int(width)}"
        self._deadline_s = deadline_s
        self._clock = clock
        self._backoff = Backoff(first_s=0.1, most_s=10.0)
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._up_since = 0.0
        self._not_before = 0.0
        self._trouble = "not connected yet"

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()

    def of(self, scope: bytes) -> PgVectorIndex:
        """Return the index of one scope."""
        return PgVectorIndex(self, scope)

    def numbers(self) -> NDArray[np.int64]:
        """Return every number of this owner, in rising order. Raises IndexAway."""
        rows = self.run("SELECT id FROM {table} WHERE owner = %s ORDER BY id", (self.owner,), 60.0)
        return np.array([row[0] for row in rows], np.int64)

    def run(
        self, sql: str, given: Sequence[object], within_s: float | None = None
    ) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows. Raises IndexAway."""

        def ask(connection: psycopg.Connection[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
            cursor = connection.execute(sql.format(table=self._table).encode(), given)
            return cursor.fetchall() if cursor.description else []

        return self._with_connection(ask, within_s)

    def add(self, rows: Sequence[tuple[bytes, int, str]]) -> None:
        """Add scope, number and vector; a number that is there already stays. Raises IndexAway."""
        sql = (
            f"INSERT INTO {self._table} (owner, scope, id, v) VALUES (%s, %s, %s, %s::vector) "
            "ON CONFLICT DO NOTHING"
        )

        def insert(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
            with connection.transaction(), connection.cursor() as cursor:
                cursor.executemany(sql.encode(), [(self.owner, *row) for row in rows])

        self._with_connection(insert, self._deadline_s + 0.01 * len(rows))

    def _with_connection(
        self,
        job: Callable[[psycopg.Connection[tuple[Any, ...]]], T],
        within_s: float | None = None,
    ) -> T:
        if self._clock() < self._not_before:
            raise IndexAway(f"PostgreSQL is left alone for a while: {self._trouble}")
        try:
            connection = self._connected()
            with _cut_off_after(connection, within_s or self._deadline_s):
                return job(connection)
        except psycopg.Error as exc:
            self._lose(exc)
            raise IndexAway(f"PostgreSQL cannot be asked: {self._trouble}") from None

    def _connected(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._connection is None:
            connection = psycopg.connect(
                self._url, autocommit=True, connect_timeout=_CONNECT_S,
                application_name="frugal-gateway",
            )  # fmt: skip
            try:
                with _cut_off_after(connection, 30.0):
                    self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection, self._up_since = connection, self._clock()
        return self._connection

    def _prepare(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        """Make what is not there yet; two who do so together must not trip over each other."""
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(hashtext('frugal_vector'))")
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            for statement in _SCHEMA:
                connection.execute(
                    statement.format(table=self._table, width=int(self.width)).encode()
                )
        connection.execute(f"SET hnsw.ef_search = {_SCANNED}".encode())
        with suppress(psycopg.errors.UndefinedObject, psycopg.errors.InvalidParameterValue):
            # From pgvector 0.8 on: go on looking where most of what was met is of other scopes.
            connection.execute("SET hnsw.iterative_scan = strict_order")

    def _lose(self, error: psycopg.Error) -> None:
        self.failures += 1
        lines = str(error).strip().splitlines() or [type(error).__name__]
        self._trouble = lines[0]
        now = self._clock()
        is_lost = self._connection is None or self._connection.broken or self._connection.closed
        if is_lost:
            up_for_s = now - self._up_since if self._connection is not None else 0.0
            self._not_before = now + self._backoff.wait_after(up_for_s)
            self._connection = None


_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS {table} (
    owner text NOT NULL,
    scope bytea NOT NULL,
    id bigint NOT NULL,
    v vector({width}) NOT NULL,
    PRIMARY KEY (owner, scope, id)
)""",
    "CREATE INDEX IF NOT EXISTS {table}_near ON {table} USING hnsw (v vector_ip_ops)",
)


class PgVectorIndex:
    """The vectors of one scope."""

    graph = None
    """There is none to keep: PostgreSQL does."""

    def __init__(self, vectors: PgVectors, scope: bytes) -> None:
        self._vectors = vectors
        self._scope = scope

    def __len__(self) -> int:
        ((count,),) = self._run("SELECT count(*) FROM {table} WHERE owner = %s AND scope = %s")
        return int(count)

    def add(self, ids: Sequence[int], vectors: Vectors) -> None:
        """Add one vector a number."""
        rows = np.atleast_2d(np.asarray(vectors, np.float32))
        for first in range(0, len(ids), _ADDED_AT_ONCE):
            some = slice(first, first + _ADDED_AT_ONCE)
            pairs = zip(ids[some], rows[some], strict=True)
            self._vectors.add([(self._scope, int(number), _text(row)) for number, row in pairs])

    def add_codes(self, ids: Sequence[int], codes: Codes) -> None:
        """Add vectors that are codes already."""
        self.add(ids, decoded(codes))

    def search(self, vector: Vectors, count: int) -> list[Near]:
        """Return up to `count` nearest, in falling similarity."""
        text = _text(np.asarray(vector, np.float32).ravel())
        rows = self._vectors.run(
            "SELECT id, -(v <#> %s::vector) FROM {table} WHERE owner = %s AND scope = %s "
            "ORDER BY v <#> %s::vector LIMIT %s",
            (text, self._vectors.owner, self._scope, text, count),
        )
        return [Near(int(number), float(near)) for number, near in rows]

    def drop(self, ids: Sequence[int]) -> int:
        """Remove vectors; return how many were there."""
        rows = self._run(
            "DELETE FROM {table} WHERE owner = %s AND scope = %s AND id = ANY(%s) RETURNING id",
            [int(number) for number in ids],
        )
        return len(rows)

    def _run(self, sql: str, *more: object) -> list[tuple[Any, ...]]:
        return self._vectors.run(sql, (self._vectors.owner, self._scope, *more))


def _text(row: NDArray[np.float32]) -> str:
    return "[" + ",".join(f"{number:.6g}" for number in row.tolist()) + "]"


@contextmanager
def _cut_off_after(
    connection: psycopg.Connection[tuple[Any, ...]], seconds: float
) -> Iterator[None]:
    """End the connection under whoever waits for it too long: the server may hang for good."""

    def cut() -> None:
        with (
            suppress(OSError, psycopg.Error),
            socket.socket(fileno=socket.dup(connection.fileno())) as wire,
        ):
            wire.shutdown(socket.SHUT_RDWR)

    timer = Timer(seconds, cut)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
