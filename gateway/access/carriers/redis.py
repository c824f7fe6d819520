"""What all machines know of keys, in Redis: one document, sealed with the secret of the hashes.

Its first bytes are the seal, which is another for each other content: so they
tell cheaply whether there is news. Who can write to Redis and has no secret can
take the document away, which costs nothing since each machine brings it back,
but can give nobody a right.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from gateway.access.key_copies import HolderRow, KeyCopy, KeyRow
from gateway.access.key_store import KeysApart, KeyStoreError, digest_of, other_secret

NAME = b"frugal:keys:1"
WITHIN_S = 2.0
_SEAL_BYTES = 32
_TRIES = 20
_SEALING = b"of keys that machines share"
_SWAP = """
if redis.call('GETRANGE', KEYS[1], 0, string.len(ARGV[3]) - 1) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[3] .. ARGV[2])
return 1
"""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[list[HolderRow], list[KeyRow]]).decode


class RedisCarrier:
    """The server at `url`, whose answers are waited for so long.

    Raises KeyStoreError for a URL that cannot be read.
    """

    name = "Redis"

    def __init__(self, url: str, *, within_s: float = WITHIN_S) -> None:
        try:
            self._client = Redis.from_url(
                url, protocol=2, socket_timeout=within_s, socket_connect_timeout=within_s,
                retry=Retry(NoBackoff(), 0), client_name="frugal-keys",
            )  # fmt: skip
        except (TypeError, ValueError):
            # Not chained: what is wrong with a URL is told in terms of its parts, the secret too.
            raise KeyStoreError(
                "storage.redis: expected redis://user:password@host:6379/0, found another URL"
            ) from None

    def mark(self) -> object:
        """Return the seal of what stands there. Raises KeysApart."""
        with _reached():
            return self._client.getrange(NAME, 0, _SEAL_BYTES - 1)

    def join(self, mine: KeyCopy, secret: Callable[[], bytes]) -> tuple[KeyCopy, object]:
        """Add what is new here; return what all know, and its seal. Raises KeysApart, OtherSecret.

        What another machine has written meanwhile is read and joined, too.
        """
        for _ in range(_TRIES):
            theirs, seal = self._read(secret)
            both = mine.joined(theirs)
            if both == theirs:
                return both, seal
            text = _text(both)
            after = _seal(text, secret())
            with _reached():
                has_written: Any = self._client.eval(_SWAP, 1, NAME, seal, text, after)
            if has_written:
                return both, after
        raise KeysApart("keys are not shared: other machines change them all the time")

    def _read(self, secret: Callable[[], bytes]) -> tuple[KeyCopy, bytes]:
        with _reached():
            found: Any = self._client.get(NAME)
        if found is None:
            return KeyCopy(), b""
        seal, text = found[:_SEAL_BYTES], found[_SEAL_BYTES:]
        if not hmac.compare_digest(seal, _seal(text, secret())):
            raise other_secret(f"the keys in Redis ({NAME.decode()})")
        try:
            holders, keys = _decode(text)
        except msgspec.MsgspecError as exc:
            raise KeyStoreError(f"{NAME.decode()} in Redis is of another version: {exc}") from exc
        return KeyCopy({row.name: row for row in holders}, {row.digest: row for row in keys}), seal

    def break_off(self) -> None:
        """Leave what is waited for to its deadline, which is near."""

    def close(self) -> None:
        """Disconnect."""
        self._client.close()


@contextmanager
def _reached() -> Iterator[None]:
    """Raise KeysApart where Redis does not answer, or refuses."""
    try:
        yield
    except (RedisError, OSError) as exc:
        raise KeysApart(f"keys are not shared: Redis: {str(exc).partition(chr(10))[0]}") from exc


def _text(copy: KeyCopy) -> bytes:
    """Return the same bytes for the same rows, in whatever order they came."""
    return _encode((sorted(copy.holders.values()), sorted(copy.keys.values())))


def _seal(text: bytes, secret: bytes) -> bytes:
    return digest_of(text, digest_of(_SEALING, secret))
