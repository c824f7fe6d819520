"""After a crash: what was under way becomes lines of the ledger, with bounds that hold its bill.

Only files are touched whose owner is dead, that is, whose lock is free. A
request that has its entry was settled before the crash. Any other is recorded
as `failed`, its calls as `interrupted`: by our own count, with a lower bound of
nothing and an upper bound of the worst case. Doing it twice changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gateway.money.errors import LedgerError
from gateway.money.intents import SUFFIX, Intent
from gateway.money.own_account import on_own_account
from gateway.money.records import INTERRUPTED, AttemptRecord, EntryRecord
from gateway.money.usage import Usage, total_usage

LOOK_EVERY_S = 10.0
"""How often to look for what other processes left when they died."""

_PICO_IN_NANO = 1000
_log = logging.getLogger(__name__)

Lines = tuple[EntryRecord, list[AttemptRecord]]
Known = Callable[[Sequence[str]], set[str]]
"""Tells which of some requests have an entry. Raises LedgerError."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A file whose owner is dead, locked by us, and what it holds."""

    path: Path
    intents: tuple[Intent, ...]

    def unsettled(self, known: Known) -> list[Lines]:
        """Return the lines of the requests that have none yet."""
        found = by_request(self.intents)
        settled = known(list(found)) if found else set()
        return [recovered(calls) for name, calls in found.items() if name not in settled]

    def remove(self) -> None:
        """Remove the file, once its lines are durable."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()


Write = Callable[[EntryRecord, Sequence[AttemptRecord]], Awaitable[None]]
"""Records a request; done once that is durable. Raises LedgerError."""


class Recovery:
    """Records what dead processes had under way, at the start and from time to time."""

    def __init__(self, folder: Path, known: Known, write: Write) -> None:
        self._folder = folder
        self._known = known
        self._write = write

    async def run(self) -> int:
        """Record what is left; return how many requests. Raises LedgerError.

        What is recorded is removed from its file only then, so nothing is lost on the way.
        """
        with ExitStack() as stack:
            left = await asyncio.to_thread(stack.enter_context, orphans(self._folder))
            return sum([await self._adopt(orphan) for orphan in left])

    async def try_once(self) -> None:
        """Record what is left, or say why not."""
        try:
            await self.run()
        except (LedgerError, OSError) as exc:
            _log.error("what dead processes left cannot be recorded yet: %s", exc)

    async def keep_on(self) -> None:
        """Look again and again."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.try_once()

    async def _adopt(self, orphan: Orphan) -> int:
        lines = await asyncio.to_thread(orphan.unsettled, self._known)
        for entry, attempts in lines:
            await self._write(entry, attempts)
        orphan.remove()
        if lines:
            _log.warning("%d requests of a process that died are in the ledger now", len(lines))
        return len(lines)


@contextmanager
def orphans(folder: Path) -> Iterator[list[Orphan]]:
    """Yield the files that dead processes left; nobody else gets them meanwhile."""
    held: list[int] = []
    found: list[Orphan] = []
    try:
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            if (fd := _taken(path)) is not None:
                held.append(fd)
                found.append(Orphan(path, tuple(_read(path, fd))))
        yield found
    finally:
        for fd in held:
            os.close(fd)


def by_request(intents: Iterable[Intent]) -> dict[str, list[Intent]]:
    """Return the intents of each request, in order."""
    found: dict[str, list[Intent]] = {}
    for intent in intents:
        found.setdefault(intent.request_id, []).append(intent)
    return found


def recovered(intents: Sequence[Intent]) -> Lines:
    """Return the lines of a request that was under way when its process died."""
    first, last = intents[0], intents[-1]
    lines = {intent.seq: _line(intent) for intent in intents}
    for intent in intents:
        lines.update((line.seq, line) for line in intent.ended)
    attempts = [lines[seq] for seq in sorted(lines)]
    record = EntryRecord(
        request_id=first.request_id,
        started_at_us=first.started_at_us,
        state="failed",
        tenant=first.tenant,
        key=first.key,
        tags=first.tags,
        route=first.route,
        model="",
        requested_model=first.requested_model,
        cache="miss",
        path=",".join(f"{line.model}:{line.outcome}" for line in attempts),
        stream=first.stream,
        status=500,
        usage=total_usage([line.usage for line in attempts]),
        cost_nano_usd=sum(line.cost_nano_usd for line in attempts),
        saved_nano_usd=0,
        reference_model=first.reference_model,
        estimated=True,
        lower_nano_usd=sum(line.lower_nano_usd for line in attempts),
        upper_nano_usd=sum(line.upper_nano_usd for line in attempts),
        latency_us=max(0, last.at_us - first.started_at_us),
        error=INTERRUPTED,
    )
    if first.own_account is not None:
        return on_own_account(record, attempts, first.own_account)
    return record, attempts


def _line(intent: Intent) -> AttemptRecord:
    """Return a call's line: the prompt is taken for billed, the answer is not known."""
    usage = Usage(input=intent.input_guess, estimated=True)
    upper = intent.upper_nano_usd
    guess = intent.input_guess * intent.rates.input // _PICO_IN_NANO
    return AttemptRecord(
        request_id=intent.request_id,
        seq=intent.seq,
        model=intent.model,
        provider=intent.provider,
        purpose=intent.purpose,
        payer=intent.tenant,
        outcome=INTERRUPTED,
        reason="its process died before the call was settled",
        usage=usage,
        cost_nano_usd=min(guess, upper),
        lower_nano_usd=0,
        upper_nano_usd=upper,
        latency_us=0,
        price_source=intent.price_source,
        price_dated=intent.price_dated,
    )


def _taken(path: Path) -> int | None:
    """Lock a file and return its descriptor; None where its owner lives, or another was quicker."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None


def _read(path: Path, fd: int) -> Iterator[Intent]:
    """Yield the intents of a file; a line that was cut off announced a call that was never made."""
    with os.fdopen(os.dup(fd), "rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                if line.endswith(b"\n"):
                    yield msgspec.json.decode(line, type=Intent)
            except (msgspec.DecodeError, UnicodeDecodeError):
                _log.error("%s, line %d: expected an intent; it is passed over", path, number)
