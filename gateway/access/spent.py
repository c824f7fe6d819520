"""What the ledger knows to be spent: where a budget stands when nobody else remembers."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.access.meters import Purse
from gateway.money.errors import LedgerError
from gateway.money.location import locate

Spending = Callable[[Purse], Awaitable[int]]
"""Tells how many nano-dollars of a purse are spent already. Raises LedgerError."""

_OF = {
    "key": "key = ?",
    "tenant": "tenant = ?",
    "route": "route = ?",
    "tag": "EXISTS (SELECT 1 FROM json_each(entry.tags) WHERE value = ?)",
}
_FROM_EVER = 2**62


async def nothing_spent(_: Purse) -> int:
    """Know of no spending."""
    return 0


class LedgerSpending:
    """Asks the ledger, in a thread of its own; a window that began after `since` is empty.

    `share` is the part of the spending that counts against this process.
    """

    def __init__(self, url: str, *, since: float, share: float = 1.0) -> None:
        self._path = locate(url).path
        self._since = since
        self._share = share

    async def __call__(self, purse: Purse) -> int:
        """Return the nano-dollars spent in a purse's window. Raises LedgerError."""
        if purse.start >= self._since:
            return 0
        spent = await asyncio.to_thread(spent_of, self._path, purse)
        return int(spent * self._share)


def spent_of(path: Path, purse: Purse) -> int:
    """Return the nano-dollars that a ledger has for a purse. Raises LedgerError."""
    kind, name = purse.scope
    start = int(purse.start * 1_000_000)
    end = _FROM_EVER if purse.end == float("inf") else int(purse.end * 1_000_000)
    query = (
        "SELECT coalesce(sum(cost_nano_usd), 0) FROM entry "
        f"WHERE started_at_us >= ? AND started_at_us < ? AND {_OF[kind]}"
    )
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            (found,) = connection.execute(query, (start, end, name)).fetchone()
    except sqlite3.Error as exc:
        raise LedgerError(f"ledger {path}: the spending so far cannot be read: {exc}") from exc
    return int(found)
