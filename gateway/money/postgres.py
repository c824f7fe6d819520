"""PostgreSQL as a projection of the spools: what they hold arrives there once, in batches.

A batch, its sums and how far its spool has come are one transaction there. So
it does not matter when a process dies, or whether the answer to a commit was
heard: what was sent already changes nothing when it is sent again.
"""

from __future__ import annotations

import time
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, text, true
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

from gateway.money.cells import rowid
from gateway.money.databases import BreakOff, postgres_engine, sqlite_engine
from gateway.money.errors import LedgerError
from gateway.money.location import shown_url
from gateway.money.migrate import migrate_postgres
from gateway.money.rollup import add_up, arrived, move, position, prune, spool_name
from gateway.money.schema import attempt, entry, spool, uptime

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

_SENT_AT_ONCE = 500


class Projection:
    """Sends what a spool holds to PostgreSQL. One thread at a time; it holds two connections.

    Several processes may share a spool: whoever comes first sends, the others find it done.
    """

    def __init__(self, spool_path: Path, url: str, *, at_once: int = _SENT_AT_ONCE) -> None:
        self._url = url
        self._at_once = at_once
        self._spool = sqlite_engine(spool_path)
        self._target = postgres_engine(url)
        self.break_off = BreakOff(self._target)
        self._is_ready = False
        self._up_since_us = 0

    def step(self) -> bool:
        """Send one batch; return whether there may be more. Raises LedgerError."""
        try:
            if not self._is_ready:
                migrate_postgres(self._target, shown_url(self._url))
                self._is_ready = True
            with self._spool.connect() as source:
                return self._send(source, spool_name(source))
        except DBAPIError as exc:
            raise self._away(exc) from exc

    def waiting(self) -> int:
        """Return how many entries PostgreSQL does not have yet, at most. Raises LedgerError."""
        try:
            with self._spool.connect() as source:
                upto, _ = position(source, spool_name(source))
                return max(0, _last(source) - upto)
        except DBAPIError as exc:
            raise LedgerError(f"the spool cannot be read: {exc.orig}") from exc

    def prune_spool(self, before_us: int) -> bool:
        """Delete some lines that PostgreSQL has; return whether there may be more.

        Raises LedgerError.
        """
        try:
            with self._spool.connect() as source:
                name = spool_name(source)
                source.exec_driver_sql("BEGIN IMMEDIATE")
                found = prune(source, before_us, rowid < position(source, name)[0])
                source.exec_driver_sql("COMMIT")
                return found
        except DBAPIError as exc:
            raise LedgerError(f"the spool cannot be pruned: {exc.orig}") from exc

    def prune_ledger(self, before_us: int) -> bool:
        """Delete some old lines from PostgreSQL; return whether there may be more.

        Raises LedgerError.
        """
        try:
            with self._target.begin() as target:
                return prune(target, before_us, true())
        except DBAPIError as exc:
            raise self._away(exc) from exc

    def close(self) -> None:
        """Disconnect."""
        self._target.dispose()

    def _away(self, exc: DBAPIError) -> LedgerError:
        why = str(exc.orig).partition("\n")[0]
        return LedgerError(f"ledger {shown_url(self._url)}: {why}")

    def _send(self, source: Connection, name: str) -> bool:
        with self._target.begin() as target:
            if not target.scalar(select(func.pg_try_advisory_xact_lock(_number_of(name)))):
                return False  # another process of this spool is at it
            upto = _known_there(source, target, name)
            batch = arrived(source, upto, self._at_once)
            self._send_uptimes(source, target)
            if batch is not None:
                _copy(source, target, upto, batch.last)
                now_us = time.time_ns() // 1000
                move(target, name, batch.last, batch.last_id, seen_at_us=now_us)
        if batch is None:
            return False
        source.exec_driver_sql("BEGIN IMMEDIATE")
        move(source, name, batch.last, batch.last_id)
        source.exec_driver_sql("COMMIT")
        return batch.is_full

    def _send_uptimes(self, source: Connection, target: Connection) -> None:
        wanted = select(uptime).where(uptime.c.seen_at_us > self._up_since_us)
        rows = _rows(source, wanted)
        if not rows:
            return
        insert = postgresql.insert(uptime)
        seen = func.greatest(uptime.c.seen_at_us, insert.excluded.seen_at_us)
        target.execute(
            insert.on_conflict_do_update(
                index_elements=["run_id", "model"], set_={"seen_at_us": seen}
            ),
            rows,
        )
        self._up_since_us = max(row["seen_at_us"] for row in rows)


def _known_there(source: Connection, target: Connection, name: str) -> int:
    """Return up to which row PostgreSQL has this spool; 0 where the file is not the one it knew."""
    wanted = select(spool.c.upto_id).where(spool.c.id == name)
    known = target.scalar(wanted)
    if not known:
        return 0
    return source.scalar(select(rowid).select_from(entry).where(entry.c.request_id == known)) or 0


def _copy(source: Connection, target: Connection, after: int, upto: int) -> None:
    """Send the rows of a batch, and add up those that were not there."""
    batch = (rowid > after) & (rowid <= upto)
    ids = _insert(target, entry, _rows(source, select(entry).where(batch)))
    if ids:
        of_batch = select(attempt).join(entry, entry.c.request_id == attempt.c.request_id)
        lines = [line for line in _rows(source, of_batch.where(batch)) if line["request_id"] in ids]
        if lines:
            _insert(target, attempt, lines)
        add_up(target, entry.c.request_id.in_(ids))


def _insert(target: Connection, table: Table, rows: list[dict[str, Any]]) -> set[str]:
    """Insert what is not there yet, and return whose it was."""
    statement = postgresql.insert(table).on_conflict_do_nothing().returning(table.c.request_id)
    return set(target.scalars(statement, rows))


def _rows(source: Connection, wanted: Any) -> list[dict[str, Any]]:
    return [_without_nul(row._asdict()) for row in source.execute(wanted)]


def _without_nul(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row that PostgreSQL can take: its texts hold no NUL."""
    for name, value in row.items():
        if isinstance(value, str) and "\0" in value:
            row[name] = value.replace("\0", "\ufffd")
    return row


def _last(source: Connection) -> int:
    return source.scalar(text("SELECT max(rowid) FROM entry")) or 0


def _number_of(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)
