"""The ledger: records go in, and come back durable.

One thread a process writes. Whatever arrived while it committed goes into its
next transaction (group commit), so many requests share the price of one, and
their waiters are woken by a single call into the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Protocol, Self

from gateway.money.errors import LedgerError, LedgerRefused, UnwritableRecord
from gateway.money.intents import Intent, IntentLog
from gateway.money.location import intents_beside, locate
from gateway.money.records import AttemptRecord, EntryRecord, UptimeRecord, cleaned
from gateway.money.recovery import Recovery

__all__ = [
    "AttemptRecord",
    "EntryRecord",
    "Intent",
    "Ledger",
    "LedgerError",
    "LedgerRefused",
    "LedgerStore",
    "NearStore",
    "UnwritableRecord",
    "UptimeRecord",
    "ledger_at",
]


_NEAR_BATCH = 64
"""Records committed within the loop's turn; more of them are the writer's thread's."""


class LedgerStore(Protocol):
    """Where records are kept: the extension point `ledger store`. Called from one thread only."""

    def open(self) -> None:
        """Make ready to commit, migrating what is there. Raises LedgerError."""
        ...

    def commit(
        self,
        entries: Sequence[EntryRecord],
        attempts: Sequence[AttemptRecord],
        uptimes: Sequence[UptimeRecord] = (),
    ) -> None:
        """Write all, durably, or nothing; a record that is there already changes nothing.

        An empty batch proves that writing works. Raises UnwritableRecord where
        a value is at fault, LedgerError where the store is.
        """
        ...

    def known(self, request_ids: Sequence[str]) -> set[str]:
        """Return which of these requests have an entry; from any thread. Raises LedgerError."""
        ...

    def close(self) -> None:
        """Let go of the database."""
        ...


class NearStore(Protocol):
    """Commits small batches at once, in the loop's own thread, where that is quick.

    Handing a batch to another thread and back costs more than the commit itself.
    """

    def try_commit(
        self,
        entries: Sequence[EntryRecord],
        attempts: Sequence[AttemptRecord],
        uptimes: Sequence[UptimeRecord] = (),
    ) -> bool:
        """Write all, durably, and return True; or nothing, without waiting, and return False."""
        ...

    @property
    def needs_tidying(self) -> bool:
        """Return whether `tidy` is due."""
        ...

    def tidy(self) -> None:
        """Do what takes long and can be put off; called in the writer's thread."""
        ...

    def close(self) -> None:
        """Let go of the database."""
        ...


class _Job:
    """Records that are durable together, and who waits for that."""

    __slots__ = ("attempts", "entries", "uptimes", "waiter")

    def __init__(
        self,
        waiter: asyncio.Future[None],
        entries: Sequence[EntryRecord] = (),
        attempts: Sequence[AttemptRecord] = (),
        uptimes: Sequence[UptimeRecord] = (),
    ) -> None:
        self.waiter = waiter
        self.entries = entries
        self.attempts = attempts
        self.uptimes = uptimes


class Ledger:
    """Takes records from one event loop and makes them durable.

    Records that could not be written are kept, tried again every `probe_s`, and
    written before anything else once that works. `max_waiting` bounds them and
    the queue together; from half of it on, and after a failure, `is_healthy` is
    False: work that cannot be recorded should not be started. `intents` is where
    calls are written down before they are made.
    """

    def __init__(
        self,
        store: LedgerStore,
        near: NearStore | None = None,
        *,
        intents: IntentLog | None = None,
        max_waiting: int = 16_384,
        max_batch: int = 512,
        probe_s: float = 1.0,
    ) -> None:
        self._store = store
        self._near = near
        self._intents = intents
        self._recovery = Recovery(intents.folder, store.known, self.write) if intents else None
        self._recovering: asyncio.Task[None] | None = None
        self._is_writing = False
        self._is_held_back = False
        self._max_waiting = max_waiting
        self._max_batch = max_batch
        self._probe_s = probe_s
        self._queue: deque[_Job] = deque()
        self._kept: list[_Job] = []
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._is_rung = False
        self._is_closing = False
        self._fault: LedgerError | None = None
        self._thread: Thread | None = None

    async def start(self) -> None:
        """Open the store and begin to write. Raises LedgerError."""
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = Thread(target=self._run, args=(opened,), name="ledger", daemon=True)
        self._thread.start()
        try:
            await opened
        except LedgerError:
            self._thread.join()
            self._thread = None
            raise
        if self._recovery is not None:
            await self._recovery.try_once()
            self._recovering = asyncio.create_task(self._recovery.keep_on())

    async def aclose(self) -> None:
        """Write what waits and stop. Raises LedgerError where records stay unwritten."""
        self._is_closing = True
        if self._thread is None:
            return
        if self._recovering is not None:
            self._recovering.cancel()
            await asyncio.wait((self._recovering,))
        self._bell.put(None)
        await self._ended
        self._thread.join()
        self._thread = None
        if self._near is not None:
            self._near.close()
        if self._intents is not None:
            self._intents.close()
        if self._kept:
            raise LedgerError(f"{len(self._kept)} requests are not in the ledger: {self._fault}")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def write(
        self, entry: EntryRecord, attempts: Sequence[AttemptRecord] = ()
    ) -> asyncio.Future[None]:
        """Record a request; the future is done once that is durable.

        The record is on its way from this call on, even if nobody awaits. The
        future fails with LedgerError.
        """
        return self._put(_Job(self._loop.create_future(), (entry,), attempts))

    def intend(self, intent: Intent) -> asyncio.Future[None] | None:
        """Write a call down before it is made; a future is returned where that takes time.

        The call may be made once the future, if any, is done. Raises LedgerError.
        """
        if self._intents is None:
            return None
        if self._thread is None or self._is_closing:
            raise LedgerError("the ledger is closed")
        return self._intents.note(intent)

    async def recover(self) -> int:
        """Record what dead processes had under way, and return how many. Raises LedgerError."""
        return await self._recovery.run() if self._recovery is not None else 0

    def write_uptime(self, up: UptimeRecord) -> asyncio.Future[None]:
        """Record that a machine of ours is up."""
        return self._put(_Job(self._loop.create_future(), uptimes=(up,)))

    async def probe(self) -> bool:
        """Commit once, now, and return whether the ledger is healthy."""
        with contextlib.suppress(LedgerError):
            await self._put(_Job(self._loop.create_future()))
        return self.is_healthy

    @property
    def is_healthy(self) -> bool:
        """Return whether billable work may be started."""
        return (
            self._fault is None
            and not self._is_closing
            and not self._is_held_back
            and self.waiting * 2 < self._max_waiting
        )

    def hold_back(self, is_held_back: bool) -> None:
        """Say whether billable work must wait for a reason beyond this ledger's own."""
        self._is_held_back = is_held_back

    @property
    def fault(self) -> str | None:
        """Return what went wrong with the last commit, or None when it went well."""
        return str(self._fault) if self._fault else None

    @property
    def waiting(self) -> int:
        """Return how many requests are not durable yet."""
        return len(self._queue) + len(self._kept)

    def _put(self, job: _Job) -> asyncio.Future[None]:
        if self._thread is None or self._is_closing:
            job.waiter.set_exception(LedgerError("the ledger is closed"))
        elif self.waiting >= self._max_waiting:
            job.waiter.set_exception(LedgerError(f"{self.waiting} records wait to be written"))
        else:
            self._queue.append(job)
            if not self._is_rung:
                self._is_rung = True
                # Two turns of the loop later, so that requests which come meanwhile share it.
                self._loop.call_soon(self._loop.call_soon, self._turn)
        return job.waiter

    def _turn(self) -> None:
        """Commit here what is little and quick; leave the rest to the writer's thread."""
        near = self._near
        if near is None or self._fault or self._kept or self._is_writing or self._is_closing:
            self._bell.put(None)
            return
        batch = self._take_few()
        if not near.try_commit(*_contents(batch)):
            self._queue.extendleft(reversed(batch))
            self._bell.put(None)
            return
        self._is_rung = False
        self._settle(batch)
        if self._queue or near.needs_tidying:
            self._is_rung = True
            self._bell.put(None)

    def _take_few(self) -> list[_Job]:
        batch: list[_Job] = []
        with contextlib.suppress(IndexError):
            while len(batch) < _NEAR_BATCH:
                batch.append(self._queue.popleft())
        return batch

    def _settle(self, batch: list[_Job]) -> None:
        intents = self._intents
        for job in batch:
            if intents is not None:
                for entry in job.entries:
                    intents.settled(entry.request_id)
            if not job.waiter.done():
                job.waiter.set_result(None)

    # What follows runs in the writer's thread.

    def _run(self, opened: asyncio.Future[None]) -> None:
        try:
            with _as_ledger_errors():
                self._store.open()
        except LedgerError as exc:
            self._call(_fail, opened, exc)
            return
        self._call(_finish, opened)
        try:
            self._serve()
        finally:
            self._store.close()
            self._call(_finish, self._ended)

    def _serve(self) -> None:
        """Commit until closed. The bell is silenced before the queue is looked at, never after."""
        is_closing = False
        while not is_closing:
            with contextlib.suppress(Empty):
                self._bell.get(timeout=self._probe_s if self._fault else None)
            self._is_rung = False
            is_closing = self._is_closing
            self._is_writing = True
            self._write(self._take())
            while self._queue:
                self._write(self._take())
            self._is_writing = False
            if self._near is not None and self._near.needs_tidying:
                self._near.tidy()

    def _take(self) -> list[_Job]:
        batch, self._kept = self._kept, []
        queue = self._queue
        while queue and len(batch) < self._max_batch:
            batch.append(queue.popleft())
        return batch

    def _write(self, batch: list[_Job]) -> None:
        if not batch and self._fault is None:
            return
        try:
            self._commit(batch)
        except UnwritableRecord:
            self._write_one_by_one(batch)
        except LedgerError as exc:
            self._keep(batch, exc)
        else:
            self._fault = None
            self._call(self._settle, batch)

    def _write_one_by_one(self, batch: list[_Job]) -> None:
        """Find the record at fault, so that it fails alone."""
        for index, job in enumerate(batch):
            try:
                self._commit_cleaned(job)
            except UnwritableRecord as exc:
                self._call(_fail, job.waiter, exc)
            except LedgerError as exc:
                self._keep(batch[index:], exc)
                return
            else:
                self._fault = None
                self._call(self._settle, [job])

    def _commit_cleaned(self, job: _Job) -> None:
        try:
            self._commit([job])
        except UnwritableRecord:
            job.entries = [cleaned(entry) for entry in job.entries]
            job.attempts = [cleaned(attempt) for attempt in job.attempts]
            self._commit([job])

    def _commit(self, batch: list[_Job]) -> None:
        with _as_ledger_errors():
            self._store.commit(*_contents(batch))

    def _keep(self, batch: list[_Job], fault: LedgerError) -> None:
        self._fault = fault
        self._kept = [job for job in batch if job.entries or job.uptimes]
        for job in batch:
            self._call(_fail, job.waiter, fault)

    def _call(self, act: Callable[..., None], *args: object) -> None:
        # A loop that is gone has nobody left to wake.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(act, *args)


def ledger_at(url: str) -> Ledger:
    """Return the ledger kept at `url`, not yet started. Raises LedgerRefused."""
    from gateway.money.near import NearSqliteStore
    from gateway.money.sqlite import SqliteStore

    place = locate(url)
    # Waiting for the disk at each commit would hold everybody up.
    near = NearSqliteStore(place.path) if place.synchronous == "normal" else None
    intents = IntentLog(intents_beside(place.path), waits_for_disk=place.synchronous == "full")
    store = SqliteStore(place.path, synchronous=place.synchronous)
    return Ledger(store, near, intents=intents)


@contextlib.contextmanager
def _as_ledger_errors() -> Iterator[None]:
    """Whatever a store raises, those who wait must hear of it, and the thread live on."""
    try:
        yield
    except LedgerError:
        raise
    except Exception as exc:
        raise LedgerError(f"the ledger's store failed: {exc!r}") from exc


def _contents(
    batch: Sequence[_Job],
) -> tuple[list[EntryRecord], list[AttemptRecord], list[UptimeRecord]]:
    return (
        [entry for job in batch for entry in job.entries],
        [attempt for job in batch for attempt in job.attempts],
        [up for job in batch for up in job.uptimes],
    )


def _finish(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _fail(waiter: asyncio.Future[None], fault: LedgerError) -> None:
    if not waiter.done():
        # One exception each: raising adds to its traceback.
        waiter.set_exception(type(fault)(*fault.args))
