"""What a running gateway does for its ledger: add up, let go of old lines, send to PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gateway.money.errors import LedgerError
from gateway.money.ledger import Ledger
from gateway.money.location import is_postgres
from policies.schema import Storage

if TYPE_CHECKING:
    from gateway.money.postgres import Projection
    from gateway.money.rollup import Rollup

ADD_UP_EVERY_S = 60.0
SEND_EVERY_S = 0.5
LAST_WITHIN_S = 5.0
"""How long a stop waits for PostgreSQL to take what is left."""
_LONGEST_WAIT_S = 15.0
_log = logging.getLogger(__name__)


class Keeper(Protocol):
    """Work on a ledger that is done a piece at a time, in a thread."""

    every_s: float

    def keep(self) -> bool:
        """Do a piece; return whether there may be more. Raises LedgerError."""
        ...

    def look(self) -> None:
        """Take note of how things stand, whether or not the last piece was done."""
        ...

    def break_off(self) -> None:
        """End what a piece of work waits for; called from another thread."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class OwnSums:
    """Keeps the sums of a ledger in SQLite, and deletes lines that are older than `keep_s`."""

    every_s = ADD_UP_EVERY_S

    def __init__(self, rollup: Rollup, keep_s: float | None, wall: Callable[[], float]) -> None:
        self._rollup = rollup
        self._keep_s = keep_s
        self._wall = wall

    def keep(self) -> bool:
        """Add up a batch; when all is added, delete a batch."""
        if self._rollup.step():
            return True
        if self._keep_s is None:
            return False
        return self._rollup.prune(_micros(self._wall() - self._keep_s))

    def look(self) -> None:
        """Nothing to note."""

    def break_off(self) -> None:
        """Nothing is waited for."""

    def close(self) -> None:
        """Nothing is held."""


class Sending:
    """Sends a spool to PostgreSQL, and holds billable work back while too much waits in it."""

    every_s = SEND_EVERY_S

    def __init__(
        self, projection: Projection, storage: Storage, ledger: Ledger, wall: Callable[[], float]
    ) -> None:
        self._projection = projection
        self._storage = storage
        self._ledger = ledger
        self._wall = wall
        self._tidied_at = 0.0

    def keep(self) -> bool:
        """Send a batch; from time to time, delete a batch."""
        if self._projection.step():
            return True
        now = self._wall()
        if now < self._tidied_at + ADD_UP_EVERY_S:
            return False
        more = self._projection.prune_spool(_micros(now - self._storage.spool.keep))
        if self._storage.retention.entries is not None:
            old = _micros(now - self._storage.retention.entries)
            more = self._projection.prune_ledger(old) or more
        if not more:
            self._tidied_at = now
        return more

    def look(self) -> None:
        """See how much waits."""
        with suppress(LedgerError):
            most = self._storage.spool.max_entries
            self._ledger.hold_back(self._projection.waiting() >= most)

    def break_off(self) -> None:
        """Wait for PostgreSQL no longer."""
        self._projection.break_off()

    def close(self) -> None:
        """Disconnect."""
        self._projection.close()


@asynccontextmanager
async def bookkeeping(
    storage: Storage, ledger_url: str, spool: Path, ledger: Ledger, wall: Callable[[], float]
) -> AsyncIterator[None]:
    """Keep the books as long as the block is entered; what waits for PostgreSQL, to its end."""

    keepers: list[Keeper] = []

    def build() -> Keeper:
        keepers.append(_keeper(storage, ledger_url, spool, ledger, wall))
        return keepers[-1]

    ending = asyncio.Event()
    keeping = _keep_on(build, ending) if is_postgres(ledger_url) else _add_up(build, ending)
    task = asyncio.create_task(keeping)
    try:
        yield
    finally:
        ending.set()
        # What a hung server has not taken by then waits in the spool for the next start.
        while not (await asyncio.wait({task}, timeout=LAST_WITHIN_S))[0]:
            for keeper in keepers:
                keeper.break_off()
        await task


def _keeper(
    storage: Storage, ledger_url: str, spool: Path, ledger: Ledger, wall: Callable[[], float]
) -> Keeper:
    if is_postgres(ledger_url):
        from gateway.money.postgres import Projection

        return Sending(Projection(spool, ledger_url), storage, ledger, wall)
    from gateway.money.rollup import Rollup

    return OwnSums(Rollup(spool), storage.retention.entries, wall)


async def _add_up(build: Callable[[], Keeper], ending: asyncio.Event) -> None:
    """Begin after a while: whoever starts has better things to do, and nothing depends on it."""
    with suppress(TimeoutError):
        await asyncio.wait_for(ending.wait(), ADD_UP_EVERY_S)
    if not ending.is_set():
        await _keep_on(build, ending)


async def _keep_on(build: Callable[[], Keeper], ending: asyncio.Event) -> None:
    keeper = await asyncio.to_thread(build)
    wait_s = keeper.every_s
    is_well = True
    while True:
        is_last = ending.is_set()
        try:
            while await asyncio.to_thread(keeper.keep):
                await asyncio.to_thread(keeper.look)
        except LedgerError as exc:
            if is_well:
                _log.warning("%s; what is written meanwhile waits in its file", exc)
            is_well, wait_s = False, min(wait_s * 2, _LONGEST_WAIT_S)
        else:
            if not is_well:
                _log.warning("the ledger is up to date again")
            is_well, wait_s = True, keeper.every_s
        await asyncio.to_thread(keeper.look)
        if is_last:
            keeper.close()
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(ending.wait(), wait_s)


def _micros(seconds: float) -> int:
    return int(seconds * 1_000_000)
