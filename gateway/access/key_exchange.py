"""Keys of several machines: each has its own copy, and a carrier what all have.

The carrier is PostgreSQL where the ledger is kept there, else the Redis, else
the PostgreSQL, that machines share limits through. A machine that cannot reach
it goes on with the keys that it knows; what was made or revoked on it meanwhile
reaches the others afterwards. What is kept there are keyed hashes, as in the
copies: the secret stays on the machines.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Lock
from typing import Protocol

from gateway.access.key_changes import Changes, Mark
from gateway.access.key_copies import KeyCopy
from gateway.access.key_store import (
    SECRET_HINT,
    KeysApart,
    KeyStore,
    KeyStoreError,
    OtherSecret,
    read_secret,
)
from gateway.money.location import is_postgres

EXCHANGE_EVERY_S = 0.2
_RETRY_WITHIN_S = 0.5
"""How long after a carrier is back it is found to be, at most."""
_END_WITHIN_S = 5.0
_log = logging.getLogger(__name__)


class Carrier(Protocol):
    """Where keys are that all machines know. Its methods raise KeyStoreError."""

    @property
    def name(self) -> str:
        """Return what messages call it."""
        ...

    def mark(self) -> object:
        """Return what is another whenever something else stands there; cheap to ask for."""
        ...

    def join(self, mine: KeyCopy, secret: Callable[[], bytes]) -> tuple[KeyCopy, object]:
        """Add what is new here; return what all know now, and its mark."""
        ...

    def break_off(self) -> None:
        """End what another thread waits for here."""
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


def shared_at(ledger_url: str, redis: str | None, limits: str | None) -> str | None:
    """Return the URL that machines with this storage share keys at, None where they share none."""
    return ledger_url if is_postgres(ledger_url) else redis or limits


def carrier_at(url: str) -> Carrier:
    """Return the carrier at a URL. Raises KeyStoreError or LedgerRefused for one of no use."""
    if is_postgres(url):
        from gateway.access.carriers.postgres import PostgresCarrier

        return PostgresCarrier(url)
    from gateway.access.carriers.redis import RedisCarrier

    return RedisCarrier(url)


class KeyExchange:
    """Brings one machine's copy and a carrier together; used by one thread at a time."""

    def __init__(self, carrier: Carrier, path: Path, env: Mapping[str, str]) -> None:
        self._carrier = carrier
        self._path = path
        self._env = env
        self._store = KeyStore(path, env)
        self._changes = Changes(path)
        self._seen: tuple[Mark | None, object] | None = None
        self._at_work = Lock()
        self._is_closed = False

    def run(self) -> None:
        """Give what is new here, and take what is new there.

        Raises KeysApart where the carrier cannot be reached, OtherSecret for another secret.
        """
        with self._at_work:
            if not self._is_closed:
                self._exchange()

    def _exchange(self) -> None:
        seen = self._mark()
        if self._seen is not None and self._seen == (seen, self._carrier.mark()):
            return
        mine = self._store.copy() if self._store.exists else KeyCopy()
        both, mark = self._carrier.join(mine, self._secret)
        if both != mine:
            self._store.init()
            self._store.become(both)
        self._seen = seen, mark

    def _mark(self) -> Mark | None:
        try:
            return self._changes.mark()
        except (sqlite3.Error, OSError) as exc:
            raise KeyStoreError(f"{self._path}: {exc}; check the file and its rights") from exc

    def _secret(self) -> bytes:
        try:
            return read_secret(self._path, self._env)
        except KeyStoreError as exc:
            raise OtherSecret(f"{self._carrier.name} has keys; {SECRET_HINT} ({exc})") from exc

    def close(self) -> None:
        """Disconnect, also from a server that hangs; what is under way ends before it, or soon."""
        self._is_closed = True
        self._carrier.break_off()
        has_ended = self._at_work.acquire(timeout=_END_WITHIN_S)
        self._carrier.close()
        if has_ended:
            self._changes.close()
            self._at_work.release()


@contextlib.contextmanager
def store_of_all(
    path: Path,
    env: Mapping[str, str],
    url: str | None,
    *,
    tell: Callable[[str], None],
    makes: bool = True,
) -> Iterator[KeyStore]:
    """Yield a machine's store, brought together with what all know before and after.

    Where that has to wait, `tell` hears why, and it goes on; so it does at another secret
    where no key is made, for that would be known nowhere else. Raises KeyStoreError.
    """
    store = KeyStore(path, env)
    if url is None:
        yield store
        return
    with contextlib.closing(KeyExchange(carrier_at(url), path, env)) as exchange:
        _bring_together(exchange, tell, makes)
        yield store
        _bring_together(exchange, tell, makes)


def _bring_together(exchange: KeyExchange, tell: Callable[[str], None], makes: bool) -> None:
    try:
        exchange.run()
    except KeysApart as exc:
        tell(str(exc))
    except OtherSecret as exc:
        if makes:
            raise
        tell(str(exc))


@asynccontextmanager
async def exchanged_keys(url: str, path: Path, env: Mapping[str, str]) -> AsyncIterator[None]:
    """Keep a machine's keys together with those of the others; one process a machine does so."""
    exchange = KeyExchange(carrier_at(url), path, env)
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
    while True:
        await asyncio.sleep(_RETRY_WITHIN_S if trouble else EXCHANGE_EVERY_S)
        trouble = await _try(exchange, trouble)


async def _try(exchange: KeyExchange, before: str) -> str:
    """Return what went wrong, if anything did; said once, however often it is tried."""
    try:
        await asyncio.to_thread(exchange.run)
    except KeyStoreError as exc:
        if str(exc) != before:
            _log.error("%s", exc)
        return str(exc)
    return ""
