"""Bring a ledger's database to the schema of this version, under a lock.

Several processes may start at once: the first one in migrates, the others wait
and find it done. A database that is up to date costs one small read; SQLAlchemy
and Alembic are imported only where there is work for them.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from gateway.money.errors import LedgerError, LedgerRefused

HEAD = "0002"
KNOWN = frozenset({"0001", HEAD})
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
        if found == HEAD:
            return
        if found is not None and found not in KNOWN:
            raise LedgerRefused(
                f"ledger {path}: its schema {found!r} is newer than this version knows ({HEAD!r}); "
                "upgrade frugal-gateway, or name another file under storage.ledger"
            )
        _upgrade(path, wait_s)
    except sqlite3.Error as exc:
        raise LedgerError(f"ledger {path}: {exc}; check the path, its rights and its disk") from exc


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
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import URL, create_engine
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    options = {"timeout": wait_s, "isolation_level": None}
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    engine = create_engine(
        URL.create("sqlite", database=str(path)), poolclass=NullPool, connect_args=options
    )
    try:
        with engine.connect() as connection:
            # The driver's own transactions are off, so the schema changes as one, or not at all.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.exec_driver_sql("COMMIT")
    except DBAPIError as exc:
        raise LedgerError(f"ledger {path}: its schema could not be made: {exc.orig}") from exc
    finally:
        engine.dispose()
