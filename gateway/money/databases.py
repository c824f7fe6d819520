"""Connections to a ledger's database, whichever it is: SQLite, or PostgreSQL through psycopg."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.event import listen
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from gateway.money.errors import LedgerError, LedgerRefused
from gateway.money.location import is_postgres, locate, shown_url
from gateway.money.migrate import migrate_postgres

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

_CONNECT_WITHIN_S = 5
_ANSWER_WITHIN_MS = 60_000
# A server that is cut off, and not only slow, acknowledges nothing: the system would go on
# waiting for it for a quarter of an hour, and for two hours where nothing was sent.
_ACKNOWLEDGED = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


def sqlite_engine(path: Path, *, read_only: bool = False, wait_s: float = 5.0) -> Engine:
    """Return an engine that opens the file anew for each connection.

    Its transactions begin where the statement `BEGIN` says so, and nowhere else.
    """
    query = {"mode": "ro" if read_only else "rw", "uri": "true"}
    uri = URL.create("sqlite", database=path.absolute().as_uri(), query=query)
    options = {"timeout": wait_s, "isolation_level": None}
    return create_engine(uri, poolclass=NullPool, connect_args=options)


def postgres_engine(url: str, *, keeps: bool = True) -> Engine:
    """Return an engine of one connection that is kept, and made anew when it broke.

    One that does not keep any opens as many as are asked for, each for its time.
    Raises LedgerRefused for a URL that cannot be read, or without psycopg.
    """
    check_postgres(url)
    options = {
        "connect_timeout": _CONNECT_WITHIN_S,
        **_ACKNOWLEDGED,
        "application_name": "frugal",
        "options": f"-c statement_timeout={_ANSWER_WITHIN_MS} -c timezone=UTC",
    }
    try:
        parsed = make_url(url).set(drivername="postgresql+psycopg")
    except (ArgumentError, ValueError) as exc:
        raise LedgerRefused(
            f"expected postgresql://user:password@host:5432/database, found {shown_url(url)}"
        ) from exc
    if not keeps:
        return create_engine(parsed, poolclass=NullPool, connect_args=options)
    return create_engine(
        parsed, pool_size=1, max_overflow=0, pool_pre_ping=True, connect_args=options
    )


class BreakOff:
    """Ends what an engine's connections wait for; a server that hangs would never answer.

    Called from another thread than theirs, which then meets a lost connection.
    """

    def __init__(self, engine: Engine) -> None:
        self._open: WeakSet[Any] = WeakSet()
        listen(engine, "connect", lambda made, _: self._open.add(made))

    def __call__(self) -> None:
        """Shut every connection's socket down."""
        from psycopg import Error

        for connection in list(self._open):
            # One that is closed has no socket.
            with (
                suppress(OSError, Error),
                socket.socket(fileno=os.dup(connection.fileno())) as line,
            ):
                line.shutdown(socket.SHUT_RDWR)


def check_postgres(url: str) -> None:
    """Raise LedgerRefused where PostgreSQL is wanted and psycopg is not installed."""
    if is_postgres(url) and find_spec("psycopg") is None:
        raise LedgerRefused(
            "a ledger in PostgreSQL needs psycopg: pip install 'frugal-gateway[postgres]'"
        )


def made(url: str) -> None:
    """Make sure that a ledger in PostgreSQL has its tables. Raises LedgerError."""
    engine = postgres_engine(url)
    try:
        migrate_postgres(engine, shown_url(url))
    finally:
        engine.dispose()


@contextmanager
def reading(url: str) -> Iterator[Connection]:
    """Open a ledger for reading, within one view of it. Raises LedgerError."""
    is_file = not is_postgres(url)
    path = locate(url).path if is_file else None
    if path is not None and not path.is_file():
        raise LedgerError(f"ledger {path}: no such file; is this the ledger that `serve` writes?")
    engine = _reader_of(url if path is None else str(path.absolute()), is_file=is_file)
    try:
        with engine.connect() as connection:
            if path is not None:
                connection.exec_driver_sql("BEGIN")
            else:
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            yield connection
            connection.rollback()
    except DBAPIError as exc:
        where = path or shown_url(url)
        why = str(exc.orig).partition("\n")[0]
        raise LedgerError(f"ledger {where}: cannot be read as a ledger: {why}") from exc


@lru_cache(maxsize=16)
def _reader_of(where: str, *, is_file: bool) -> Engine:
    """Return an engine that holds no connection, but the statements that were compiled for it.

    To write a report's statements anew would take longer than to carry them out.
    """
    return (
        sqlite_engine(Path(where), read_only=True)
        if is_file
        else postgres_engine(where, keeps=False)
    )
