"""What is about to be spent, written down before it is: a line a call, in files by the ledger.

`write(2)` into a file that only we append to survives `kill -9` as a commit of
the ledger does, for a tenth of its price. Nothing is written when a call is
settled: its entry in the ledger says so. A file goes once all of its requests
are settled. Its owner holds a lock on it (`flock`), which the system lets go of
when the process ends, however that comes: what is left in an unlocked file was
under way when its process died (`gateway.money.recovery`).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable
from pathlib import Path

import msgspec

from gateway.money.bounds import Rates
from gateway.money.errors import LedgerError
from gateway.money.records import AttemptRecord, Purpose

SUFFIX = ".log"
_SEGMENT_BYTES = 1024 * 1024
"""A file that has grown to this is left for a new one, or begun anew where nothing is open."""


class Intent(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One call that is about to be made: whose it is, and what bounds its bill.

    Tokens and `rates` bound it from above; `busy_s` does where the machine's
    time is what costs. `ended` holds the lines of the request's earlier calls as
    far as they are known by now. `own_account` is the purpose of a request that
    the gateway makes for its own sake. Later versions may append fields.
    """

    request_id: str
    seq: int
    at_us: int
    started_at_us: int
    tenant: str
    key: str
    route: str
    requested_model: str
    stream: bool
    reference_model: str
    model: str
    provider: str
    purpose: Purpose
    input_guess: int
    input_most: int
    output_most: int
    busy_s: float
    rates: Rates
    price_source: str
    price_dated: str | None
    is_rich: bool = False
    is_spoken: bool = False
    tags: tuple[str, ...] = ()
    own_account: Purpose | None = None
    ended: tuple[AttemptRecord, ...] = ()

    @property
    def upper_nano_usd(self) -> int:
        """Return the most that the call may cost."""
        return self.rates.most_nano(
            self.input_most,
            self.output_most,
            self.busy_s,
            is_rich=self.is_rich,
            is_spoken=self.is_spoken,
        )


class _Segment:
    """One file of intents, and how many of its requests are not settled."""

    __slots__ = ("fd", "open", "path", "size")

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.size = 0
        self.open = 0


class IntentLog:
    """Writes the intents of one process into `folder`; belongs to one event loop.

    With `waits_for_disk` an intent survives a power cut, too. `sync` is what
    makes a file durable then.
    """

    def __init__(
        self,
        folder: Path,
        *,
        waits_for_disk: bool = False,
        segment_bytes: int = _SEGMENT_BYTES,
        sync: Callable[[int], None] = os.fdatasync,
    ) -> None:
        self.folder = folder
        self._waits_for_disk = waits_for_disk
        self._segment_bytes = segment_bytes
        self._sync = sync
        self._current: _Segment | None = None
        self._of: dict[str, _Segment] = {}

    def note(self, intent: Intent) -> asyncio.Future[None] | None:
        """Write an intent; a future is returned where it must be awaited before the call.

        Raises LedgerError: then nothing is written, and the call must not be made.
        """
        line = msgspec.json.encode(intent) + b"\n"
        segment = self._of.get(intent.request_id)
        try:
            if segment is None:
                segment = self._room()
                _append(segment, line)
                segment.open += 1
                self._of[intent.request_id] = segment
            else:
                _append(segment, line)
            return self._synced(segment.fd) if self._waits_for_disk else None
        except OSError as exc:
            raise LedgerError(
                f"intents {self.folder}: {exc.strerror}; check the disk and its rights"
            ) from exc

    def settled(self, request_id: str) -> None:
        """Forget a request whose entry is durable."""
        segment = self._of.pop(request_id, None)
        if segment is not None:
            segment.open -= 1
            if not segment.open and segment is not self._current:
                _remove(segment)

    @property
    def open(self) -> int:
        """Return how many requests have intents and are not settled."""
        return len(self._of)

    def close(self) -> None:
        """Let go of the files; those with something open are left for recovery."""
        segments = {*self._of.values(), *([self._current] if self._current else [])}
        for segment in segments:
            (_close if segment.open else _remove)(segment)
        self._of.clear()
        self._current = None

    def _room(self) -> _Segment:
        """Return the file for another request."""
        segment = self._current
        if segment is None or segment.size >= self._segment_bytes:
            if segment is not None and not segment.open:
                os.ftruncate(segment.fd, 0)
                segment.size = 0
            else:
                segment = self._current = _begin(self.folder)
        return segment

    def _synced(self, fd: int) -> asyncio.Future[None]:
        # A copy of the descriptor: the file may be let go of meanwhile.
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(None, self._sync_copy, os.dup(fd))

    def _sync_copy(self, fd: int) -> None:
        try:
            self._sync(fd)
        except OSError as exc:
            raise LedgerError(f"intents {self.folder}: {exc.strerror}; check the disk") from exc
        finally:
            os.close(fd)


def _begin(folder: Path) -> _Segment:
    """Open a new file; others see it only once it is locked."""
    folder.mkdir(mode=0o700, exist_ok=True)
    name = f"{os.getpid()}-{secrets.token_hex(6)}"
    hidden = folder / f"{name}.new"
    fd = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path = folder / f"{name}{SUFFIX}"
        os.rename(hidden, path)
    except OSError:
        os.close(fd)
        raise
    return _Segment(path, fd)


def _append(segment: _Segment, line: bytes) -> None:
    """Write a line whole or not at all. Raises OSError."""
    written = os.write(segment.fd, line)
    if written != len(line):
        with contextlib.suppress(OSError):
            os.ftruncate(segment.fd, segment.size)
        raise OSError(28, "no space left on device")
    segment.size += written


def _remove(segment: _Segment) -> None:
    with contextlib.suppress(OSError):
        segment.path.unlink()
    _close(segment)


def _close(segment: _Segment) -> None:
    os.close(segment.fd)
