"""Entries and leases in Redis, which several processes share.

frugal:e:<partition>:<digest>    an entry, see `cache.codec`
frugal:l:<partition>:<digest>    the lease of who makes it now
frugal:epochs                    what was invalidated when
frugal:counts                    what each process has counted
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from enum import IntEnum
from functools import lru_cache

import msgspec

from cache.codec import HEAD_BYTES, Corrupt, Labels, Stored, dump, load, load_labels
from cache.epochs import MAX_SCOPES
from cache.fingerprint import CORPUS_MARK, PARTITION_BYTES, corpus_partition, partition
from cache.link import Link, Reply
from cache.scope import Scope, Tally
from cache.types import CachedReply, StoreFailed

EPOCHS = b"frugal:epochs"
NEWS = b"frugal:news"
_COUNTS = b"frugal:counts"
_ENTRY, _LEASE = b"frugal:e:", b"frugal:l:"
_PAGE = 100


class State(IntEnum):
    """How a key stands that was claimed."""

    KEPT = 1
    OURS = 2
    THEIRS = 3
    FULL = 4


class Claim(msgspec.Struct, frozen=True):
    """What a claim found: an entry, or the token of the lease that holds, and the epoch."""

    state: State
    stored: Stored | None
    token: bytes
    epoch: int


class SharedStore:
    """The entries of all processes that use one Redis. Every method raises StoreFailed."""

    def __init__(self, link: Link, *, wall: Callable[[], float] = time.time) -> None:
        self.link = link
        self.corrupt = 0
        self._wall = wall

    async def claim(self, key: bytes, process: bytes, lease_s: float, *, skip: bool) -> Claim:
        """Return the entry, else take the lease of making it, else say whose it is.

        With `skip` the entry is passed over. One that cannot be read is dropped.
        """
        found = await self.link.run(
            "claim", (_named(_ENTRY, key), _named(_LEASE, key), EPOCHS), process,
            _milliseconds(lease_s), b"1" if skip else b"0",
        )  # fmt: skip
        state, said, epoch = _claimed(found)
        if state is not State.KEPT:
            return Claim(state, None, said, epoch)
        if (stored := self._loaded(key, said)) is not None:
            return Claim(state, stored, b"", epoch)
        return await self.claim(key, process, lease_s, skip=True)

    async def get(self, key: bytes) -> CachedReply | None:
        """Return the entry as the one who kept it meant it, whatever was invalidated since."""
        data = await self.link.call(b"GET", _named(_ENTRY, key))
        stored = self._loaded(key, data) if isinstance(data, bytes) else None
        return stored.reply if stored is not None else None

    async def put(
        self, key: bytes, reply: CachedReply, ttl: float, *, stamp: int = 0, token: bytes = b""
    ) -> bool:
        """Keep an entry, unless another holds the lease; return whether it was kept.

        Without a `token` it does not take the place of an older entry.
        """
        kept = await self.link.run("keep", *self._kept(key, reply, ttl, stamp, token))
        return kept == 1

    def post(self, key: bytes, reply: CachedReply, ttl: float, stamp: int, token: bytes) -> bool:
        """Keep an entry and give its lease back, without waiting; return whether that was sent."""
        if not self.link.is_up:
            return False
        self.link.post_run("keep", *self._kept(key, reply, ttl, stamp, token))
        return True

    async def drop(self, key: bytes) -> bool:
        """Remove an entry; return whether there was one."""
        return await self.link.call(b"UNLINK", _named(_ENTRY, key)) == 1

    async def drop_where(self, scope: Scope, *, dry_run: bool = False) -> Tally:
        """Remove the entries of a scope; return what they were. A dry run only counts.

        Searches all of Redis, a few keys at a time; `invalidate` does not.
        """
        matches, tally = scope.matcher(), Tally()
        for pattern in _patterns(scope):
            async for names in self._pages(pattern):
                found = await self._labels(names)
                meant = {
                    name: labels.body_bytes
                    for name, labels in found.items()
                    if (key := _key(name)) is not None and matches(key, labels)
                }
                if meant and not dry_run:
                    await self.link.call(b"UNLINK", *meant)
                tally += Tally(len(meant), sum(meant.values()))
        return tally

    async def invalidate(self, scope: Scope) -> int:
        """Open an epoch: nothing of that scope made before it is served again, in any process."""
        found = await self.link.run(
            "invalidate", (EPOCHS,), scope.dump(), Scope().dump(), b"%d" % MAX_SCOPES, NEWS
        )
        return _number(found)

    async def epochs(self) -> tuple[int, Mapping[bytes, int]]:
        """Return the epoch, and which scope opened which."""
        found = await self.link.call(b"HGETALL", EPOCHS)
        told = {name: _number(at) for name, at in _pairs(_list(found))}
        return told.pop(b"now", 0), told

    async def holder(self, key: bytes) -> bytes | None:
        """Return the token of the lease, None where nobody holds it."""
        found = await self.link.call(b"GET", _named(_LEASE, key))
        return found if isinstance(found, bytes) else None

    def release(self, key: bytes, token: bytes) -> None:
        """Give a lease back without waiting for it."""
        self.link.post_run("release", (_named(_LEASE, key),), token)

    async def renew(self, leases: Mapping[bytes, bytes], lease_s: float) -> None:
        """Hold on to leases, given as tokens by key."""
        keys = [_named(_LEASE, key) for key in leases]
        await self.link.run("renew", keys, _milliseconds(lease_s), *leases.values())

    def report(self, process: bytes, counts: Mapping[str, int]) -> None:
        """Let the others know what a process has counted."""
        told = msgspec.json.encode((self._wall(), counts))
        self.link.post(b"HSET", _COUNTS, process, told)
        self.link.post(b"EXPIRE", _COUNTS, b"3600")

    async def reports(self, since: float) -> dict[bytes, dict[str, int]]:
        """Return the counts of each process that has reported since; forget the others."""
        found = await self.link.call(b"HGETALL", _COUNTS)
        told = {name: _report(data) for name, data in _pairs(_list(found))}
        for name, (at, _) in told.items():
            if at < since:
                self.link.post(b"HDEL", _COUNTS, name)
        return {name: counts for name, (at, counts) in told.items() if at >= since}

    def _kept(
        self, key: bytes, reply: CachedReply, ttl: float, stamp: int, token: bytes
    ) -> tuple[tuple[bytes, bytes], bytes, bytes, bytes]:
        data = dump(key, Stored(reply, self._wall() + ttl, stamp))
        return (_named(_ENTRY, key), _named(_LEASE, key)), token, _milliseconds(ttl), data

    def _loaded(self, key: bytes, data: bytes) -> Stored | None:
        try:
            return load(key, data)
        except Corrupt:
            self.corrupt += 1
            self.link.post(b"UNLINK", _named(_ENTRY, key))
            return None

    async def _pages(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        """Yield the names of entries a few at a time, so that others get their turn between."""
        cursor = b"0"
        seen: set[bytes] = set()  # of the last page: a table that grows shows a key twice
        while True:
            found = await self.link.call(b"SCAN", cursor, b"MATCH", pattern, b"COUNT",
                                         b"%d" % _PAGE)  # fmt: skip
            cursor, names = _scanned(found)
            if fresh := [name for name in dict.fromkeys(names) if name not in seen]:
                yield fresh
            seen = set(names)
            if cursor == b"0":
                return

    async def _labels(self, names: list[bytes]) -> dict[bytes, Labels]:
        """Return the labels of those that are entries."""
        heads = _list(await self.link.run("heads", names, b"%d" % (HEAD_BYTES - 1)))
        found: dict[bytes, Labels] = {}
        for name, head in zip(names, heads, strict=True):
            labels = _read(head)
            if labels is None and isinstance(head, bytes) and len(head) == HEAD_BYTES:
                labels = _read(await self.link.call(b"GET", name))  # many tags, a long head
            if labels is not None:
                found[name] = labels
        return found


@lru_cache(maxsize=1024)
def _named(kind: bytes, key: bytes) -> bytes:
    text = key.hex()
    return b"%b%b:%b" % (
        kind,
        text[: 2 * PARTITION_BYTES].encode(),
        text[2 * PARTITION_BYTES :].encode(),
    )


def _key(name: bytes) -> bytes | None:
    try:
        return bytes.fromhex(name.removeprefix(_ENTRY).replace(b":", b"").decode())
    except ValueError:
        return None


def _read(head: Reply) -> Labels | None:
    try:
        return load_labels(head) if isinstance(head, bytes) else None
    except Corrupt:
        return None


def _patterns(scope: Scope) -> Iterable[bytes]:
    """Return what the names of a scope's entries look like, in patterns that do not overlap."""
    if scope.key is not None:
        return (_named(_ENTRY, scope.key),)
    if scope.corpus is not None:
        return (b"%b%b:*" % (_ENTRY, corpus_partition(scope.corpus).hex().encode()),)
    if scope.tenant is None:
        return (b"%b*" % _ENTRY,)
    own, corpora = partition(scope.tenant), b"%b%b*" % (_ENTRY, CORPUS_MARK.hex().encode())
    if own.startswith(CORPUS_MARK):
        return (corpora,)
    return b"%b%b:*" % (_ENTRY, own.hex().encode()), corpora


def _milliseconds(seconds: float) -> bytes:
    return b"%d" % max(1, int(seconds * 1000))


def _claimed(found: Reply) -> tuple[State, bytes, int]:
    if not isinstance(found, list) or len(found) != 3:
        raise StoreFailed(f"expected the answer to a claim, found {found!r}")
    state, said, epoch = found
    return State(_number(state)), said if isinstance(said, bytes) else b"", _number(epoch)


def _scanned(found: Reply) -> tuple[bytes, list[bytes]]:
    if not isinstance(found, list) or not isinstance(found[1], list):
        raise StoreFailed(f"expected keys, found {found!r}")
    return (
        found[0] if isinstance(found[0], bytes) else b"0",
        [name for name in found[1] if isinstance(name, bytes)],
    )


def _list(found: Reply) -> list[Reply]:
    if not isinstance(found, list):
        raise StoreFailed(f"expected a hash, found {found!r}")
    return found


def _report(data: Reply) -> tuple[float, dict[str, int]]:
    try:
        at, counts = msgspec.json.decode(
            data if isinstance(data, bytes) else b"", type=tuple[float, dict[str, int]]
        )
    except (msgspec.MsgspecError, ValueError):
        return 0.0, {}
    return at, counts


def _pairs(found: list[Reply]) -> list[tuple[bytes, Reply]]:
    return [(name, value) for name, value in zip(found[::2], found[1::2], strict=False)
            if isinstance(name, bytes)]  # fmt: skip


def _number(found: Reply) -> int:
    try:
        return int(found) if isinstance(found, bytes | int) else 0
    except ValueError:
        return 0
