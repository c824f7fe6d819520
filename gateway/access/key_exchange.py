"""Keys of several machines: each has its own copy, and PostgreSQL, with the ledger, what all have.

A machine that cannot reach PostgreSQL goes on with the keys that it knows; what
was made or revoked on it meanwhile reaches the others afterwards. What is kept
there are keyed hashes, as in the copies: the secret stays on the machines.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from gateway.access.key_copies import HolderRow, KeyCopy, KeyRow, changed
from gateway.access.key_store import (
    SECRET_VARIABLE,
    KeysApart,
    KeyStore,
    KeyStoreError,
    digest_of,
    read_secret,
)
from gateway.money.databases import BreakOff, postgres_engine
from gateway.money.errors import LedgerError
from gateway.money.location import is_postgres, shown_url
from gateway.money.migrate import migrate_postgres
from gateway.money.schema import key_hash, key_holder, key_sharing

if TYPE_CHECKING:
    from sqlalchemy import Connection

EXCHANGE_EVERY_S = 0.25
_LONGEST_WAIT_S = 5.0
_ONLY = 1
_CHECKED = b"of one secret"
_log = logging.getLogger(__name__)


class KeyExchange:
    """Brings one machine's copy and PostgreSQL together; used by one thread at a time."""

    def __init__(self, ledger_url: str, path: Path, env: Mapping[str, str]) -> None:
        self._url = ledger_url
        self._path = path
        self._env = env
        self._store = KeyStore(path, env)
        self._engine = postgres_engine(ledger_url)
        self._break_off = BreakOff(self._engine)
        self._has_tables = False
        self._seen: tuple[KeyCopy, int] | None = None
        self._at_work = Lock()
        self._is_closed = False

    def run(self) -> None:
        """Give what is new here, and take what is new there.

        Raises KeysApart where PostgreSQL cannot be reached, KeyStoreError for another secret.
        """
        with self._at_work:
            if not self._is_closed:
                self._exchange()

    def _exchange(self) -> None:
        try:
            self._make_tables()
            with self._engine.begin() as connection:
                self._run(connection)
        except DBAPIError as exc:
            why = str(exc.orig).partition("\n")[0]
            raise KeysApart(f"keys are not shared: {shown_url(self._url)}: {why}") from exc
        except LedgerError as exc:
            raise KeysApart(f"keys are not shared: {str(exc).partition(chr(10))[0]}") from exc

    def close(self) -> None:
        """Disconnect, also from a server that hangs; what is under way ends before it, or soon."""
        self._is_closed = True
        self._break_off()
        has_ended = self._at_work.acquire(timeout=_LONGEST_WAIT_S)
        self._engine.dispose()
        if has_ended:
            self._at_work.release()

    def _make_tables(self) -> None:
        if not self._has_tables:
            migrate_postgres(self._engine, shown_url(self._url))
            self._has_tables = True

    def _run(self, connection: Connection) -> None:
        mine = self._store.copy() if self._store.exists else KeyCopy()
        if self._seen is not None and self._seen == (mine, _version(connection)):
            return
        version, check = _locked(connection)
        theirs = _read(connection)
        if mine.holders or theirs.holders:
            self._check_secret(connection, check)
        both = mine.joined(theirs)
        news = changed(theirs, both)
        if news.holders or news.keys:
            version += 1
            _write(connection, news, version)
        if both != mine:
            self._store.init()
            self._store.become(both)
        self._seen = (both, version)

    def _check_secret(self, connection: Connection, known: bytes | None) -> None:
        """See that all hash with one secret: with another, no key would be known. Raises."""
        hint = (
            f"set {SECRET_VARIABLE} to the content of the .secret file where they were made first"
        )
        try:
            check = digest_of(_CHECKED, read_secret(self._path, self._env))
        except KeyStoreError as exc:
            raise KeyStoreError(f"the ledger's PostgreSQL has keys; {hint} ({exc})") from exc
        if known is None:
            connection.execute(update(key_sharing).values(secret_check=check))
        elif known != check:
            raise KeyStoreError(f"the keys in PostgreSQL were hashed with another secret; {hint}")


def share_keys(ledger_url: str, path: Path, env: Mapping[str, str]) -> None:
    """Bring a machine's keys and those of all others together, if the ledger is in PostgreSQL.

    Raises KeyStoreError.
    """
    if is_postgres(ledger_url):
        with contextlib.closing(KeyExchange(ledger_url, path, env)) as exchange:
            exchange.run()


@asynccontextmanager
async def exchanged_keys(
    ledger_url: str, path: Path, env: Mapping[str, str]
) -> AsyncIterator[None]:
    """Keep a machine's keys together with those of the others; one process a machine does so."""
    exchange = KeyExchange(ledger_url, path, env)
    troubles = await _try(exchange, "")
    task = asyncio.create_task(_keep_on(exchange, troubles))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await asyncio.to_thread(exchange.close)


async def _keep_on(exchange: KeyExchange, trouble: str) -> None:
    wait_s = EXCHANGE_EVERY_S
    while True:
        await asyncio.sleep(wait_s)
        trouble = await _try(exchange, trouble)
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S) if trouble else EXCHANGE_EVERY_S


async def _try(exchange: KeyExchange, before: str) -> str:
    """Return what went wrong, if anything did; said once, however often it is tried."""
    try:
        await asyncio.to_thread(exchange.run)
    except KeyStoreError as exc:
        if str(exc) != before:
            _log.error("%s", exc)
        return str(exc)
    return ""


def _version(connection: Connection) -> int | None:
    return connection.scalar(select(key_sharing.c.version))


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
