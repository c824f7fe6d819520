"""What all machines know of keys, in PostgreSQL: rows, behind a version that each change raises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from gateway.access.key_copies import HolderRow, KeyCopy, KeyRow, changed
from gateway.access.key_store import KeysApart, check_of, other_secret
from gateway.money.databases import BreakOff, postgres_engine
from gateway.money.errors import LedgerError
from gateway.money.location import shown_url
from gateway.money.migrate import migrate_postgres
from gateway.money.schema import key_hash, key_holder, key_sharing

if TYPE_CHECKING:
    from sqlalchemy import Connection

_ONLY = 1


class PostgresCarrier:
    """The database at `url`. Raises LedgerRefused for one that cannot be read."""

    name = "PostgreSQL"

    def __init__(self, url: str) -> None:
        self._url = url
        self._engine = postgres_engine(url)
        self._break_off = BreakOff(self._engine)
        self._has_tables = False

    def mark(self) -> object:
        """Return the version that stands there. Raises KeysApart."""
        with self._begun() as connection:
            return connection.scalar(select(key_sharing.c.version))

    def join(self, mine: KeyCopy, secret: Callable[[], bytes]) -> tuple[KeyCopy, object]:
        """Add what is new here; return what all know, and its version.

        Raises KeysApart, OtherSecret.
        """
        with self._begun() as connection:
            version, known = _locked(connection)
            theirs = _read(connection)
            if mine.holders or theirs.holders:
                self._check_secret(connection, known, secret)
            both = mine.joined(theirs)
            news = changed(theirs, both)
            if news.holders or news.keys:
                version += 1
                _write(connection, news, version)
        return both, version

    def break_off(self) -> None:
        """End what is waited for, also of a server that hangs."""
        self._break_off()

    def close(self) -> None:
        """Disconnect."""
        self._engine.dispose()

    @contextmanager
    def _begun(self) -> Iterator[Connection]:
        """Yield a transaction. Raises KeysApart."""
        try:
            if not self._has_tables:
                migrate_postgres(self._engine, shown_url(self._url))
                self._has_tables = True
            with self._engine.begin() as connection:
                yield connection
        except DBAPIError as exc:
            why = str(exc.orig).partition("\n")[0]
            raise KeysApart(f"keys are not shared: {shown_url(self._url)}: {why}") from exc
        except LedgerError as exc:
            raise KeysApart(f"keys are not shared: {str(exc).partition(chr(10))[0]}") from exc

    def _check_secret(
        self, connection: Connection, known: bytes | None, secret: Callable[[], bytes]
    ) -> None:
        """See that all hash with one secret: with another, no key would be known."""
        check = check_of(secret())
        if known is None:
            connection.execute(update(key_sharing).values(secret_check=check))
        elif known != check:
            raise other_secret(f"the keys in {self.name}")


def _locked(connection: Connection) -> tuple[int, bytes | None]:
    """Let no other machine write until this one is done; return what stands there."""
    row = {"id": _ONLY, "version": 0}
    connection.execute(insert(key_sharing).values(row).on_conflict_do_nothing())
    wanted = select(key_sharing.c.version, key_sharing.c.secret_check).with_for_update()
    version, check = connection.execute(wanted).one()
    return int(version), None if check is None else bytes(check)


def _read(connection: Connection) -> KeyCopy:
    holders = [HolderRow(*row) for row in connection.execute(select(key_holder))]
    keys = [KeyRow(bytes(row[0]), *row[1:]) for row in connection.execute(select(key_hash))]
    return KeyCopy({row.name: row for row in holders}, {row.digest: row for row in keys})


def _write(connection: Connection, news: KeyCopy, version: int) -> None:
    for row in news.holders.values():
        made = insert(key_holder).values(row._asdict())
        later = {name: made.excluded[name] for name in HolderRow._fields[1:]}
        connection.execute(made.on_conflict_do_update(index_elements=["name"], set_=later))
    for key in news.keys.values():
        kept = insert(key_hash).values(key._asdict())
        ends = {"expires_at": kept.excluded.expires_at}
        connection.execute(kept.on_conflict_do_update(index_elements=["digest"], set_=ends))
    connection.execute(update(key_sharing).values(version=version))
