"""One of several semantic caches that hold the same answers, by way of a log in Redis.

Every replica keeps all answers itself, so a lookup asks nobody and goes on while
Redis is away. What one puts or removes stands in Redis and in a numbered log there,
and the others take it from the log, some milliseconds later. Whoever has missed a
number compares all that it has with what Redis has. Invalidations open an epoch: an
answer made before one that means it is refused, wherever it turns up.

What is done while Redis is away is told once it is back. Until then the others may
serve an answer that was invalidated here.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import TypeVar

import msgspec

from cache.codec import Corrupt
from cache.epochs import MAX_SCOPES, Epochs
from cache.index.types import IndexAway
from cache.link import Link, Reply
from cache.scope import Scope
from cache.semantic.lookup import SemanticCache
from cache.semantic.mirror import Mirror
from cache.semantic.store import AnswerStore, Place, Record, seal_of
from cache.types import StoreFailed

MOST_EVENTS = 100_000
_MOST_WAITING = 100_000
_MOST_SCOPES_WAITING = 100
_AT_ONCE = 32
_COMPARED_AT_ONCE = 500
_LOOK_EVERY_S = 1.0
_LAST_WORDS_S = 1.0
_SEAL_BYTES = 8
_log = logging.getLogger(__name__)
T = TypeVar("T")


class Outbox:
    """What was changed here and is still to be told; filled by the store's thread."""

    def __init__(self) -> None:
        self.names: dict[bytes, bool] = {}
        self.scopes: dict[Scope, None] = {}
        self.swept: dict[bytes, bytes] = {}
        self.wake: Callable[[], None] = lambda: None

    def changed(self, name: bytes, is_there: bool) -> None:
        """Take note of an entry that was put or removed; the last word on it counts."""
        self.names.pop(name, None)
        self.names[name] = is_there
        if len(self.names) > _MOST_WAITING:
            del self.names[next(iter(self.names))]
        self.wake()

    def voided(self, scope: Scope, seals: Mapping[bytes, bytes]) -> None:
        """Take note of a scope that was invalidated, and of its entries that were known here."""
        if len(self.scopes) >= _MOST_SCOPES_WAITING:
            self.scopes = {Scope(): None}  # says more than it must, never less
        self.scopes[scope] = None
        for name, seal in seals.items():
            self.names.pop(name, None)
            if len(self.swept) < _MOST_WAITING:
                self.swept[name] = seal
        self.wake()


class Keys:
    """What the entries of one embedder are called in Redis."""

    def __init__(self, tag: bytes) -> None:
        base = b"frugal:{s:%b}:" % tag
        self.state, self.log, self.index = base + b"state", base + b"log", base + b"index"
        self.epochs, self.news = base + b"epochs", base + b"news"
        self._entry = base + b"e:"

    def entry(self, name: bytes) -> bytes:
        """Return the key of an entry."""
        return self._entry + name.hex().encode()


class Replica:
    """Keeps one cache in step with the others. An async context manager.

    `link` runs `cache.semantic.replica_scripts` and is entered by the caller, after
    this was made; `outbox` is the one that the cache's store tells.
    """

    def __init__(self, link: Link, cache: SemanticCache, outbox: Outbox, tag: bytes) -> None:
        self.compared = self.taken = self.lost = 0
        self._link = link
        self._cache = cache
        self._outbox = outbox
        self._keys = Keys(tag)
        self._epochs = Epochs()
        self._at: tuple[str, int] = ("", 0)
        self._stamp = 0
        self._fresh = secrets.token_hex(8).encode()
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        outbox.wake = lambda: _wake_safely(loop, self._wake)
        link.listen(self._keys.news, lambda _: self._wake.set())
        link.when_up(self._wake.set)

    async def __aenter__(self) -> Replica:
        self._at, self._stamp = await self._cache.with_store(_place)
        self._task = asyncio.create_task(self._keep_in_step())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with suppress(StoreFailed, TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._tell()

    async def step(self) -> None:
        """Tell what was changed here, and take in what others have changed. Raises StoreFailed."""
        async with self._turn:
            await self._tell()
            while await self._follow():
                pass

    async def _keep_in_step(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._wake.wait()
            self._wake.clear()
            try:
                if self._link.is_up:
                    await self.step()
            except StoreFailed as exc:
                _log.debug("the semantic cache goes on without the others: %s", exc)
            except Exception:
                # Whatever it was, a replica that nobody keeps in step would go stale for good.
                _log.exception("the semantic cache fell out of step; it is tried again")

    # What was changed here

    async def _tell(self) -> None:
        while self._outbox.scopes:
            scope = next(iter(self._outbox.scopes))
            await self._link.run(
                "invalidate", (self._keys.epochs,), scope.dump(), Scope().dump(),
                b"%d" % MAX_SCOPES, self._keys.news,
            )  # fmt: skip
            self._outbox.scopes.pop(scope, None)
        while swept := dict(islice(list(self._outbox.swept.items()), _COMPARED_AT_ONCE)):
            told = [word for pair in swept.items() for word in pair]
            await self._link.run("sweep", (self._keys.index, *self._entries(swept)), *told)
            for name in swept:
                self._outbox.swept.pop(name, None)
        for name, is_there in list(self._outbox.names.items()):
            await (self._add(name) if is_there else self._drop(name))
            if self._outbox.names.get(name) is is_there:
                del self._outbox.names[name]

    async def _add(self, name: bytes) -> None:
        records = await self._cache.with_store(_records, [name])
        for record in records:
            seal = seal_of(record.sealed)
            left_s = record.opened().expires_at - self._cache.now()
            if left_s > 0:
                await self._link.run(
                    "add",
                    (self._keys.state, self._keys.log, self._keys.index, self._keys.entry(name)),
                    *(self._fresh, b"%d" % MOST_EVENTS, self._keys.news, name, seal),
                    *(b"%d" % max(1, int(left_s * 1000)), seal + msgspec.msgpack.encode(record)),
                )

    async def _drop(self, name: bytes) -> None:
        await self._link.run(
            "drop",
            (self._keys.state, self._keys.log, self._keys.index, self._keys.entry(name)),
            *(self._fresh, b"%d" % MOST_EVENTS, self._keys.news, name),
        )

    # What others have changed

    async def _follow(self) -> bool:
        """Take in the next events; return whether there may be more."""
        log, position = self._at
        found = await self._link.run(
            "look", (self._keys.state, self._keys.log, self._keys.epochs),
            self._fresh, b"%d" % position, b"%d" % _COMPARED_AT_ONCE,
        )  # fmt: skip
        current, last, epoch, events = _looked(found)
        if epoch != self._epochs.now:
            await self._catch_up()
        if current != log or last < position or _misses_some(events, position, last):
            await self._compare(current, last, is_same=current == log and last >= position)
            return True
        if not events:
            return False
        await self._apply(events)
        await self._move_to(log, events[-1][0])
        return True

    async def _apply(self, events: Sequence[tuple[int, bytes, bytes]]) -> None:
        final = {name: seal for _, name, seal in events}
        await self._lose([name for name, seal in final.items() if not seal])
        await self._fetch({name: seal for name, seal in final.items() if seal})

    async def _fetch(self, seals: dict[bytes, bytes]) -> None:
        """Take over the entries that are not here as they are in Redis."""
        for part in _parts(list(seals), _COMPARED_AT_ONCE):
            here = await self._cache.with_store(_seals, part)
            wanted = [name for name in part if here.get(name) != seals[name]]
            for some in _parts(wanted, _AT_ONCE):
                found = await self._link.call(b"MGET", *self._entries(some))
                records = [_record(data) for data in found] if isinstance(found, list) else []
                sound = [record for record in records if record is not None]
                await self._cache.with_store(self._take, sound)

    def _take(self, store: AnswerStore, mirror: Mirror, records: Sequence[Record]) -> None:
        for record in records:
            with suppress(Corrupt):
                stored = record.opened()
                if len(record.codes) != mirror.width:
                    continue
                if not self._epochs.admits(stored.stamp, record.scope, stored.reply):
                    continue
                number, old = store.take(record)
                self.taken += 1
                with suppress(IndexAway):  # the mirror takes it in later
                    mirror.add_own(Place(number, record.scope, record.codes), old)

    async def _lose(self, names: Sequence[bytes]) -> None:
        for part in _parts(names, _COMPARED_AT_ONCE):
            self.lost += await self._cache.with_store(_lose, part)

    async def _catch_up(self) -> None:
        """Learn what others have invalidated, and forget it here."""
        found = await self._link.call(b"HGETALL", self._keys.epochs)
        told = _numbers(found)
        now = told.pop(b"now", 0)
        try:
            self._epochs.adopt(now, told)
            # What is here was made in an epoch that we knew, so it is older than any of these.
            scopes = [Scope.load(text) for text, at in told.items() if at > self._stamp]
        except ValueError as exc:
            raise StoreFailed(f"expected epochs of this version: {exc}") from exc

        self.lost += await self._cache.with_store(_lose_where, scopes, self._at, now)
        self._stamp = now

    # All of it

    async def _compare(self, log: str, last: int, *, is_same: bool) -> None:
        """Bring all that is here in step with what Redis has.

        What Redis has no more was removed, if it is the same log; if it is another,
        Redis has lost it or never had it, and is told.
        """
        self.compared += 1
        _log.info("the semantic cache compares itself with Redis, from event %d on", last)
        there = set(await self._names_there())
        for part in _parts(list(there), _COMPARED_AT_ONCE):
            last_byte = b"%d" % (_SEAL_BYTES - 1)
            heads = await self._link.run("heads", self._entries(part), last_byte)
            assert isinstance(heads, list), "the script returns a list"
            await self._fetch(
                {name: seal for name, seal in zip(part, heads, strict=True)
                 if isinstance(seal, bytes) and seal}
            )  # fmt: skip
        name = b""
        while names := await self._cache.with_store(_names, name, _COMPARED_AT_ONCE):
            name = names[-1]
            absent = [each for each in names if each not in there]
            if is_same:
                await self._lose([each for each in absent if each not in self._outbox.names])
            else:
                for each in absent:
                    self._outbox.names.setdefault(each, True)
        await self._move_to(log, last)
        await self._tell()

    async def _names_there(self) -> list[bytes]:
        cursor, names = b"0", dict[bytes, None]()
        while True:
            found = await self._link.call(b"ZSCAN", self._keys.index, cursor, b"COUNT", b"1000")
            if not isinstance(found, list) or not isinstance(found[1], list):
                raise StoreFailed(f"expected names, found {found!r}")
            names.update((name, None) for name in found[1][::2] if isinstance(name, bytes))
            cursor = found[0] if isinstance(found[0], bytes) else b"0"
            if cursor == b"0":
                return list(names)

    async def _move_to(self, log: str, position: int) -> None:
        self._at = log, position
        await self._cache.with_store(_note, self._at, self._stamp)

    def _entries(self, names: Iterable[bytes]) -> list[bytes]:
        return [self._keys.entry(name) for name in names]


# In the store's thread


def _place(store: AnswerStore, _: Mirror) -> tuple[tuple[str, int], int]:
    return store.followed, store.stamp


def _note(store: AnswerStore, _: Mirror, at: tuple[str, int], stamp: int) -> None:
    store.note(at, stamp)


def _records(store: AnswerStore, _: Mirror, names: Sequence[bytes]) -> list[Record]:
    return store.records(names)


def _seals(store: AnswerStore, _: Mirror, names: Sequence[bytes]) -> dict[bytes, bytes]:
    return store.seals(names)


def _names(store: AnswerStore, _: Mirror, after: bytes, most: int) -> list[bytes]:
    return store.names(after, most)


def _lose(store: AnswerStore, mirror: Mirror, names: Sequence[bytes]) -> int:
    gone = store.lose(names)
    mirror.forget(gone)
    return len(gone)


def _lose_where(
    store: AnswerStore, mirror: Mirror, scopes: Sequence[Scope], at: tuple[str, int], stamp: int
) -> int:
    """Forget scopes, and know their epoch from then on: in one go, so that no entry slips by."""
    gone = [each for scope in scopes for each in store.lose_where(scope)]
    mirror.forget(gone)
    store.note(at, stamp)
    return len(gone)


# Outside it


def _wake_safely(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with suppress(RuntimeError):  # the loop may be closed while the store's thread still works
        loop.call_soon_threadsafe(event.set)


def _parts(names: Sequence[bytes], most: int) -> Iterator[Sequence[bytes]]:
    return (names[first : first + most] for first in range(0, len(names), most))


def _looked(found: Reply) -> tuple[str, int, int, list[tuple[int, bytes, bytes]]]:
    """Return the log's name, its last number, the epoch and the events."""
    try:
        log, last, epoch, rows = msgspec.convert(found, tuple[bytes, bytes, bytes, list[_Row]])
        events = [(int(number.partition(b"-")[0]), each[1], each[3]) for number, each in rows]
        return log.decode(), int(last), int(epoch), events
    except (msgspec.ValidationError, ValueError, IndexError) as exc:
        raise StoreFailed(f"expected a log of this version: {exc}") from exc


_Row = tuple[bytes, list[bytes]]


def _misses_some(events: Sequence[tuple[int, bytes, bytes]], position: int, last: int) -> bool:
    """Return whether the log no longer holds what comes next."""
    return last > position and (not events or events[0][0] != position + 1)


def _numbers(found: Reply) -> dict[bytes, int]:
    if not isinstance(found, list):
        raise StoreFailed(f"expected a hash, found {found!r}")
    pairs = zip(found[::2], found[1::2], strict=False)
    return {
        name: int(value)
        for name, value in pairs
        if isinstance(name, bytes) and isinstance(value, bytes) and value.isdigit()
    }


def _record(data: Reply) -> Record | None:
    """Return an entry as it was written; None for one that is gone, or of another kind."""
    if not isinstance(data, bytes):
        return None
    try:
        return msgspec.msgpack.decode(data[_SEAL_BYTES:], type=Record)
    except (msgspec.MsgspecError, ValueError):
        return None
