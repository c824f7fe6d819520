"""Bring a ledger's database to the schema of this version, under a lock.

Several processes may start at once: the first one in migrates, the others wait
and find it done. A database that is up to date costs one small read; SQLAlchemy
and Alembic are imported only where there is work for them.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.money.errors import LedgerError, LedgerRefused

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

HEAD = "0012"
KNOWN = frozenset(
    {"0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010", "0011", HEAD}
)
"""Every revision that a migration leads on from; anything else is newer than this version."""

_MIGRATIONS = Path(__file__).parent / "migrations"


def migrate_sqlite(path: Path, *, wait_s: float = 60.0) -> None:
    """Create or upgrade the ledger at `path`.

    `wait_s` is how long to wait for another process' lock. Raises LedgerRefused
    for a newer schema and for a database that is no ledger, LedgerError where
    it cannot be opened or written.
    """
    try:
        found = _revision(path, wait_s)
        if found != HEAD:
            _check(found, str(path))
            _upgrade(path, wait_s)
    except sqlite3.Error as exc:
        raise LedgerError(f"ledger {path}: {exc}; check the path, its rights and its disk") from exc


def migrate_postgres(engine: Engine, shown: str) -> None:
    """Create or upgrade the ledger in PostgreSQL; `shown` names it in errors.

    Raises LedgerRefused for a newer schema, LedgerError where it cannot be made.
    """
    from sqlalchemy import text
    from sqlalchemy.exc import DBAPIError

    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            has_table = text("SELECT to_regclass('alembic_version') IS NOT NULL")
            found = None
            if connection.scalar(has_table):
                found = connection.scalar(text("SELECT version_num FROM alembic_version"))
            if found != HEAD:
                _check(found, shown)
                _upgrade_on(connection)
    except DBAPIError as exc:
        raise LedgerError(f"ledger {shown}: {exc.orig}") from exc


_LOCK = 0x6672_7567_616C


def _check(found: str | None, where: str) -> None:
    if found is not None and found not in KNOWN:
        raise LedgerRefused(
            f"ledger {where}: its schema {found!r} is newer than this version knows ({HEAD!r}); "
            "upgrade frugal-gateway, or name another under storage.ledger"
        )


def _revision(path: Path, wait_s: float) -> str | None:
    connection = sqlite3.connect(path, timeout=wait_s)
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if "alembic_version" not in tables:
            if tables:
                raise LedgerRefused(
                    f"ledger {path}: this database holds something else; "
                    "name another file under storage.ledger"
                )
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(row[0]) if row else None
    finally:
        connection.close()


def _upgrade(path: Path, wait_s: float) -> None:
    from sqlalchemy import URL, create_engine
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    options = {"timeout": wait_s, "isolation_level": None}
    engine = create_engine(
        URL.create("sqlite", database=str(path)), poolclass=NullPool, connect_args=options
    )
    try:
        with engine.connect() as connection:
            # The driver's own transactions are off, so the schema changes as one, or not at all.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            _upgrade_on(connection)
            connection.exec_driver_sql("COMMIT")
    except DBAPIError as exc:
        raise LedgerError(f"ledger {path}: its schema could not be made: {exc.orig}") from exc
    finally:
        engine.dispose()


def _upgrade_on(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
