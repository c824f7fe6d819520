"""Keys that were made with `frugal keys`: a SQLite file beside the ledger, and who they stand for.

A key is kept as a keyed hash, so the file alone tells nobody a key; the secret
of that hash stands in a file of its own, or in `FRUGAL_KEYS_SECRET` where
several machines share it. What a key may do belongs to its name; a rotation
gives the name another key and lets the old one live a little longer.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from gateway.access.key_copies import HolderRow, KeyCopy, KeyRow, changed
from gateway.money.location import locate
from policies.limits import Limits

PREFIX = "fg-"
SECRET_VARIABLE = "FRUGAL_KEYS_SECRET"
SECRET_HINT = f"set {SECRET_VARIABLE} to the content of the .secret file where they were made first"
_HINT = len(PREFIX) + 4
_SECRET_BYTES = 32
_CHECKED = b"of one secret"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS holder (
  name TEXT PRIMARY KEY, tenant TEXT NOT NULL, scopes TEXT NOT NULL, tags TEXT NOT NULL,
  limits TEXT, created_at REAL NOT NULL, revoked_at REAL
) STRICT;
CREATE TABLE IF NOT EXISTS api_key (
  digest BLOB PRIMARY KEY, name TEXT NOT NULL REFERENCES holder, hint TEXT NOT NULL,
  created_at REAL NOT NULL, expires_at REAL
) STRICT;
CREATE INDEX IF NOT EXISTS api_key_name ON api_key (name);
CREATE TABLE IF NOT EXISTS hashing (secret_check BLOB NOT NULL) STRICT;
"""
_HAS_CHECK = "SELECT 1 FROM sqlite_master WHERE name = 'hashing'"
# Of a store from before there were checks, nobody knows with which secret it was begun.
_FIRST_CHECK = """
INSERT INTO hashing SELECT ?
WHERE NOT EXISTS (SELECT 1 FROM hashing) AND NOT EXISTS (SELECT 1 FROM api_key)
"""
_ROWS = """
SELECT digest, hint, api_key.created_at, expires_at, holder.*
FROM api_key JOIN holder USING (name)
"""
_LIFE = """
SELECT expires_at - created_at FROM api_key WHERE name = ?
ORDER BY created_at DESC, rowid DESC LIMIT 1
"""


class KeyStoreError(Exception):
    """The store of keys cannot do what was asked; the message says what to change."""


class KeysApart(KeyStoreError):
    """The keys of this machine and those of others cannot be brought together at the moment."""


class OtherSecret(KeyStoreError):
    """Keys were hashed with another secret than this machine has: it would know none of them."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Whom a key stands for, and what that may do. Empty `scopes` means every route and model."""

    name: str
    tenant: str = "default"
    scopes: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class KeptKey:
    """One key as it is kept; moments are seconds since the epoch. The key itself is nowhere."""

    holder: Holder
    digest: bytes = field(repr=False)
    hint: str
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None

    def state(self, now: float) -> str:
        """Return `active`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


def keys_path(ledger_url: str) -> Path:
    """Return where the keys of a ledger's gateway are kept. Raises LedgerRefused."""
    return locate(ledger_url).path.with_suffix(".keys.db")


def digest_of(key: bytes, secret: bytes) -> bytes:
    """Return the keyed hash of a whole key."""
    return blake2b(key, key=secret, digest_size=32).digest()


def check_of(secret: bytes) -> bytes:
    """Return what tells two secrets apart, and neither of them."""
    return digest_of(_CHECKED, secret)


def other_secret(what: str) -> OtherSecret:
    """Return the error of keys that were hashed with another secret, which says what to change."""
    return OtherSecret(f"{what} were hashed with another secret; {SECRET_HINT}")


def read_secret(path: Path, env: Mapping[str, str]) -> bytes:
    """Return the secret of a store's hashes: the environment's, else that of the file beside it.

    Raises KeyStoreError.
    """
    said = env.get(SECRET_VARIABLE)
    where = SECRET_VARIABLE if said else str(_secret_path(path))
    try:
        secret = bytes.fromhex(said or _secret_path(path).read_text(encoding="ascii"))
    except (OSError, ValueError) as exc:
        raise KeyStoreError(
            f"{where}: expected {2 * _SECRET_BYTES} hexadecimal digits; "
            "run 'frugal keys init', or bring the file back"
        ) from exc
    if len(secret) != _SECRET_BYTES:
        raise KeyStoreError(f"{where}: expected {_SECRET_BYTES} bytes, found {len(secret)}")
    return secret


class KeyStore:
    """The file of keys. Each call is a transaction of its own; time is passed in."""

    def __init__(self, path: Path, env: Mapping[str, str]) -> None:
        self._path = path
        self._env = env

    @property
    def exists(self) -> bool:
        """Return whether keys have been set up."""
        return self._path.exists()

    def init(self) -> None:
        """Make the file and its secret, readable by their owner alone; leave what is there.

        Raises KeyStoreError, OtherSecret where its keys were hashed with another.
        """
        if self._env.get(SECRET_VARIABLE) is None:
            _create(_secret_path(self._path), secrets.token_bytes(_SECRET_BYTES).hex())
        check = check_of(read_secret(self._path, self._env))
        _create(self._path, "")
        with self._connected() as connection:
            connection.executescript(_SCHEMA)
            connection.execute(_FIRST_CHECK, (check,))
            self._check_secret(connection)

    def make(self, holder: Holder, *, now: float, expires_at: float | None = None) -> str:
        """Make a key for a new name and return it: nobody will ever see it again.

        Raises KeyStoreError where the name is taken.
        """
        limits = holder.limits.model_dump_json(exclude_unset=True) if holder.limits else None
        row = (
            holder.name, holder.tenant, json.dumps(sorted(holder.scopes)),
            json.dumps(sorted(holder.tags)), limits, now,
        )  # fmt: skip
        with self._connected() as connection:
            self._check_secret(connection)
            try:
                connection.execute("INSERT INTO holder VALUES (?, ?, ?, ?, ?, ?, NULL)", row)
            except sqlite3.IntegrityError as exc:
                raise KeyStoreError(
                    f"a key is named {holder.name!r} already; choose another name, or rotate it"
                ) from exc
            return self._add_key(connection, holder.name, now, expires_at)

    def rotate(self, name: str, *, now: float, grace_s: float = 0.0) -> str:
        """Give a name another key; the ones before it end after `grace_s`.

        Raises KeyStoreError for a name that is unknown or revoked.
        """
        with self._connected() as connection:
            self._check_secret(connection)
            self._require(connection, name)
            (lived,) = connection.execute(_LIFE, (name,)).fetchone()
            end = now + grace_s
            connection.execute(
                "UPDATE api_key SET expires_at = min(coalesce(expires_at, ?), ?) WHERE name = ?",
                (end, end, name),
            )
            return self._add_key(connection, name, now, None if lived is None else now + lived)

    def revoke(self, name: str, *, now: float) -> None:
        """End all keys of a name for good. Raises KeyStoreError for an unknown name."""
        with self._connected() as connection:
            self._require(connection, name)
            connection.execute("UPDATE holder SET revoked_at = ? WHERE name = ?", (now, name))

    def kept(self) -> Sequence[KeptKey]:
        """Return all keys there ever were, in the order of their making."""
        with self._connected() as connection:
            rows = connection.execute(f"{_ROWS} ORDER BY api_key.created_at, api_key.rowid")
            return [_kept(row) for row in rows]

    def check_secret(self) -> None:
        """Raise OtherSecret where the keys were hashed with another secret than there is now."""
        with self._connected() as connection:
            self._check_secret(connection)

    def copy(self) -> KeyCopy:
        """Return all rows. Raises KeyStoreError."""
        with self._connected() as connection:
            connection.execute("BEGIN")
            return _copy(connection)

    def become(self, shared: KeyCopy) -> None:
        """Take over what is shared; what was said here meanwhile stays. Raises KeyStoreError."""
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            self._check_secret(connection)
            before = _copy(connection)
            after = before.joined(shared)
            gone = [(digest,) for digest in before.keys.keys() - after.keys.keys()]
            connection.executemany("DELETE FROM api_key WHERE digest = ?", gone)
            news = changed(before, after)
            connection.executemany(_put("holder", HolderRow._fields), news.holders.values())
            connection.executemany(_put("api_key", KeyRow._fields), news.keys.values())

    def _add_key(
        self, connection: sqlite3.Connection, name: str, now: float, expires_at: float | None
    ) -> str:
        key = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        digest = digest_of(key.encode(), read_secret(self._path, self._env))
        row = (digest, name, key[:_HINT], now, expires_at)
        connection.execute("INSERT INTO api_key VALUES (?, ?, ?, ?, ?)", row)
        return key

    def _check_secret(self, connection: sqlite3.Connection) -> None:
        check = check_of(read_secret(self._path, self._env))
        if not connection.execute(_HAS_CHECK).fetchone():
            return
        known = connection.execute("SELECT secret_check FROM hashing").fetchone()
        if known is not None and known[0] != check:
            raise other_secret(f"the keys in {self._path}")

    def _require(self, connection: sqlite3.Connection, name: str) -> None:
        query = "SELECT revoked_at FROM holder WHERE name = ?"
        found = connection.execute(query, (name,)).fetchone()
        if found is None:
            raise KeyStoreError(f"no key is named {name!r}; 'frugal keys list' shows them")
        if found[0] is not None:
            raise KeyStoreError(f"the key {name!r} is revoked; make another under a new name")

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection whose work is kept unless it raises. Raises KeyStoreError."""
        if not self._path.exists():
            raise KeyStoreError(f"{self._path}: no keys yet; run 'frugal keys init' first")
        try:
            with contextlib.closing(sqlite3.connect(self._path, timeout=5)) as connection:
                connection.row_factory = sqlite3.Row
                with connection:
                    yield connection
        except sqlite3.Error as exc:
            raise KeyStoreError(f"{self._path}: {exc}; check the file and its rights") from exc


def _copy(connection: sqlite3.Connection) -> KeyCopy:
    holders = connection.execute(f"SELECT {', '.join(HolderRow._fields)} FROM holder")
    keys = connection.execute(f"SELECT {', '.join(KeyRow._fields)} FROM api_key")
    return KeyCopy(
        {row["name"]: HolderRow(*row) for row in holders},
        {row["digest"]: KeyRow(*row) for row in keys},
    )


def _put(table: str, names: Sequence[str]) -> str:
    """Return the statement that adds a row, or brings the one that is there up to date."""
    first, *rest = names
    values = ", ".join("?" * len(names))
    later = ", ".join(f"{name} = excluded.{name}" for name in rest)
    return (
        f"INSERT INTO {table} ({', '.join(names)}) VALUES ({values}) "
        f"ON CONFLICT ({first}) DO UPDATE SET {later}"
    )


def _kept(row: sqlite3.Row) -> KeptKey:
    holder = Holder(
        row["name"],
        row["tenant"],
        frozenset(json.loads(row["scopes"])),
        frozenset(json.loads(row["tags"])),
        Limits.model_validate_json(row["limits"]) if row["limits"] else None,
    )
    return KeptKey(holder, row["digest"], row["hint"], row[2], row["expires_at"], row["revoked_at"])


def _secret_path(path: Path) -> Path:
    return path.with_suffix(".secret")


def _create(path: Path, text: str) -> None:
    """Create a file for its owner alone; leave one that is there."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    except OSError as exc:
        raise KeyStoreError(f"{path}: cannot be made: {exc.strerror}") from exc
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(text)


def shown(kept: KeptKey, now: float) -> dict[str, Any]:
    """Return what may be told of a key."""
    holder = kept.holder
    return {
        "name": holder.name,
        "key": f"{kept.hint}…",
        "state": kept.state(now),
        "tenant": holder.tenant,
        "scopes": sorted(holder.scopes),
        "tags": sorted(holder.tags),
        "limits": (
            holder.limits.model_dump(mode="json", exclude_unset=True) if holder.limits else None
        ),
        "created_at": int(kept.created_at),
        "expires_at": None if kept.expires_at is None else int(kept.expires_at),
    }
