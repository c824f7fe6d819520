"""The keys of the store, as the hot path sees them: in memory, and never older than a second."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.access.key_changes import Changes, Mark
from gateway.access.key_store import (
    PREFIX,
    KeptKey,
    KeyStore,
    KeyStoreError,
    digest_of,
    read_secret,
)
from gateway.access.keys import Caller

LOOK_EVERY_S = 0.2
_PREFIX = PREFIX.encode()
_log = logging.getLogger(__name__)


class KnownKeys:
    """Who the store's keys stand for. `wall` is seconds since the epoch."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._secret = b""
        self._found: dict[bytes, tuple[Caller, float]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def find(self, key: bytes) -> Caller | None:
        """Return whom a key stands for; None where it is unknown, revoked or has expired."""
        if not self._found or not key.startswith(_PREFIX):
            return None
        found = self._found.get(digest_of(key, self._secret))
        return found[0] if found is not None and self._wall() < found[1] else None

    def callers(self) -> list[Caller]:
        """Return whom the keys stand for."""
        return [caller for caller, _ in list(self._found.values())]

    def use(self, keys: Iterable[KeptKey], secret: bytes) -> None:
        """Know these keys and no others."""
        now = self._wall()
        self._secret = secret
        self._found = {
            kept.digest: (_caller(kept), kept.expires_at or float("inf"))
            for kept in keys
            if kept.state(now) == "active"
        }


@asynccontextmanager
async def followed_keys(
    known: KnownKeys, path: Path, env: Mapping[str, str]
) -> AsyncIterator[KnownKeys]:
    """Keep `known` as the store at `path` is, from before the block is entered."""
    watch = _Watch(known, path, env)
    watch.look()
    task = asyncio.create_task(_follow(watch))
    try:
        yield known
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        watch.close()


async def _follow(watch: _Watch) -> None:
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        if watch.has_something_to_look_at:
            await asyncio.to_thread(watch.look)


class _Watch:
    """Looks whether the file has changed, which costs microseconds, and reads it when it has."""

    def __init__(self, known: KnownKeys, path: Path, env: Mapping[str, str]) -> None:
        self._known = known
        self._path = path
        self._env = env
        self._changes = Changes(path)
        self._seen: Mark | None = None
        self._trouble = ""

    @property
    def has_something_to_look_at(self) -> bool:
        """Return whether there is a file, or was one a moment ago."""
        return self._changes.has_something_to_look_at

    def look(self) -> None:
        """Follow the file; where it cannot be read, what was known stays known."""
        try:
            seen = self._changes.mark()
            if seen != self._seen:
                self._read(seen)
            self._trouble = ""
        except (KeyStoreError, sqlite3.Error, OSError, ValueError) as exc:
            if str(exc) != self._trouble:
                _log.error("the keys stay as they were: %s", exc)
            self._trouble = str(exc)

    def close(self) -> None:
        """Let go of the file."""
        self._changes.close()

    def _read(self, seen: Mark | None) -> None:
        if seen is None:
            self._known.use((), b"")
        else:
            secret = read_secret(self._path, self._env)
            store = KeyStore(self._path, self._env)
            store.check_secret()
            self._known.use(store.kept(), secret)
        self._seen = seen


def _caller(kept: KeptKey) -> Caller:
    holder = kept.holder
    return Caller(holder.name, holder.tenant, holder.tags, holder.scopes, holder.limits)
