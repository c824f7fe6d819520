"""What the ledger knows to be spent: where a budget stands when nobody else remembers."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

from msgspec.structs import replace

from gateway.access.meters import Purse
from gateway.money.errors import LedgerError
from gateway.money.location import locate
from gateway.settings import ALONE, Team

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

    Of several workers that each have their part of a budget, one answers for its
    part of what was spent before they began, and for all that it spent itself,
    or the worker that it replaces.
    """

    def __init__(self, url: str, *, since: float, team: Team = ALONE) -> None:
        self._path = locate(url).path
        self._since = since
        self._team = team

    async def __call__(self, purse: Purse) -> int:
        """Return the nano-dollars spent in a purse's window. Raises LedgerError."""
        if purse.start >= self._since:
            return 0
        return await asyncio.to_thread(self._spent, purse)

    def _spent(self, purse: Purse) -> int:
        team = self._team
        if team.workers == 1:
            return spent_of(self._path, purse)
        earlier = replace(purse, end=min(purse.end, max(team.began, purse.start)))
        own = replace(purse, start=max(team.began, purse.start))
        before = spent_of(self._path, earlier)
        return -(-before // team.workers) + spent_of(self._path, own, token=team.token)


def spent_of(path: Path, purse: Purse, *, token: str = "") -> int:
    """Return the nano-dollars that a ledger has for a purse. Raises LedgerError.

    With a `token`, only requests count whose ids end with it.
    """
    kind, name = purse.scope
    start = int(purse.start * 1_000_000)
    end = _FROM_EVER if purse.end == float("inf") else int(purse.end * 1_000_000)
    query = (
        "SELECT coalesce(sum(cost_nano_usd), 0) FROM entry "
        f"WHERE started_at_us >= ? AND started_at_us < ? AND {_OF[kind]} AND request_id LIKE ?"
    )
    try:
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            (found,) = connection.execute(query, (start, end, name, f"%{token}")).fetchone()
    except sqlite3.Error as exc:
        raise LedgerError(f"ledger {path}: the spending so far cannot be read: {exc}") from exc
    return int(found)
