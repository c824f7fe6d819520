"""What the ledger knows to be spent: where a budget stands when nobody else remembers."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from msgspec.structs import replace

from gateway.access.meters import Purse
from gateway.money.errors import LedgerError
from gateway.money.location import is_postgres, locate
from gateway.settings import ALONE, Team

Spending = Callable[[Purse], Awaitable[int]]
"""Tells how many nano-dollars of a purse are spent already. Raises LedgerError."""

_OF = {
    "key": "key = :name",
    "tenant": "tenant = :name",
    "route": "route = :name",
    "tag": "EXISTS (SELECT 1 FROM json_each(tags) WHERE value = :name)",
}
_OF_THERE = {**_OF, "tag": "CAST(tags AS jsonb) @> to_jsonb(CAST(:name AS text))"}
_FROM_EVER = 2**62
_HOUR_US = 3_600_000_000
_KEPT = "(SELECT coalesce(max(kept_since_us), 0) FROM spool)"
# As `EntryRecord.held_nano_usd` has it: what nobody reported may have cost its upper bound.
_ALL_LINES = (
    "SELECT coalesce(sum(CASE WHEN estimated = 1 AND (:strict = 1 OR state <> 'abandoned') "
    "THEN upper_nano_usd ELSE cost_nano_usd END), 0) FROM entry "
    "WHERE started_at_us >= :start AND started_at_us < :end AND "
)
_LINES = f"{_ALL_LINES} started_at_us >= {_KEPT} AND "
# Of lines that were let go, the hours in which they were are known; all of them count.
_SUMS = (
    "SELECT coalesce(sum(cost_nano_usd + unsure_nano_usd), 0) FROM rollup "
    "WHERE hour >= :first AND hour < :last "
    f"AND hour * {_HOUR_US} < {_KEPT} AND "
)
_AFTER = " AND rowid > coalesce((SELECT rowid FROM entry WHERE request_id = :upto_id), 0)"
_UPTO = "SELECT upto_id FROM spool WHERE id = :id"


async def nothing_spent(_: Purse) -> int:
    """Know of no spending."""
    return 0


class LedgerSpending:
    """Asks the ledger, in a thread of its own; a window that began after `since` is empty.

    Of several workers that each have their part of a budget, one answers for its
    part of what was spent before they began, and for all that it spent itself,
    or the worker that it replaces. A ledger in PostgreSQL is asked together
    with what waits in the spool before it. `abandoned_at_most` is said of lines; of
    hours whose lines were let go, requests whose clients left count with what was seen.
    """

    def __init__(
        self,
        url: str,
        *,
        since: float,
        team: Team = ALONE,
        spool_url: str | None = None,
        abandoned_at_most: bool = False,
    ) -> None:
        self._there = url if is_postgres(url) else None
        self._path = locate(spool_url or url).path
        self._since = since
        self._team = team
        self._strict = abandoned_at_most

    async def __call__(self, purse: Purse) -> int:
        """Return the nano-dollars spent in a purse's window. Raises LedgerError."""
        if purse.start >= self._since:
            return 0
        return await asyncio.to_thread(self._spent, purse)

    def _spent(self, purse: Purse) -> int:
        team = self._team
        if self._there is not None:
            return -(
                -spent_there(self._there, self._path, purse, strict=self._strict) // team.workers
            )
        if team.workers == 1:
            return spent_of(self._path, purse, strict=self._strict)
        earlier = replace(purse, end=min(purse.end, max(team.began, purse.start)))
        own = replace(purse, start=max(team.began, purse.start))
        before = spent_of(self._path, earlier, strict=self._strict)
        since = spent_of(self._path, own, token=team.token, strict=self._strict)
        return -(-before // team.workers) + since


def spent_of(path: Path, purse: Purse, *, token: str = "", strict: bool = False) -> int:
    """Return the nano-dollars that a ledger has for a purse. Raises LedgerError.

    With a `token`, only requests count whose ids end with it.
    """
    kind = purse.scope[0]
    told = {**_window(purse, strict=strict), "token": f"%{token}"}
    queries = [f"{_LINES}{_OF[kind]} AND request_id LIKE :token"]
    if not token:
        queries.append(_SUMS + _OF[kind])
    with _opened(path) as connection:
        return sum(int(connection.execute(query, told).fetchone()[0]) for query in queries)


def spent_there(url: str, spool: Path, purse: Purse, *, strict: bool = False) -> int:
    """Return what a ledger in PostgreSQL has for a purse, and what waits in a spool for it.

    Raises LedgerError.
    """
    from sqlalchemy import text

    from gateway.money.databases import made, reading

    kind, told = purse.scope[0], _window(purse, strict=strict)
    with _opened(spool) as here:
        named = here.execute("SELECT id FROM spool WHERE id LIKE 'spool-%'").fetchone()
    made(url)
    with reading(url) as there:
        upto_id = there.scalar(text(_UPTO), {"id": named[0] if named else ""})
        queries = (_LINES + _OF_THERE[kind], _SUMS + _OF_THERE[kind])
        found = sum(int(there.scalar(text(query), told) or 0) for query in queries)
    with _opened(spool) as here:
        waiting = here.execute(_ALL_LINES + _OF[kind] + _AFTER, {**told, "upto_id": upto_id or ""})
        return found + int(waiting.fetchone()[0])


def _window(purse: Purse, *, strict: bool) -> dict[str, str | int]:
    start = int(purse.start * 1_000_000)
    end = _FROM_EVER if purse.end == float("inf") else int(purse.end * 1_000_000)
    hours = {"first": start // _HOUR_US, "last": -(-end // _HOUR_US)}
    return {"name": purse.scope[1], "start": start, "end": end, "strict": int(strict), **hours}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a ledger in SQLite for reading. Raises LedgerError."""
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            yield connection
    except sqlite3.Error as exc:
        raise LedgerError(f"ledger {path}: the spending so far cannot be read: {exc}") from exc
