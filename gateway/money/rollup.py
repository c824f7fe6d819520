"""Keep the sums of a ledger up to date, and let its old lines go.

Sums grow by whole batches of entries, in the order of their arrival; how far
they have come stands beside them and moves in the same transaction, so an entry
is added once whatever happens. Lines that were added may be deleted after a
while: no sum changes by that.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Table, case, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

from gateway.money.cells import HOUR_US, ROLLUPS, rowid
from gateway.money.databases import sqlite_engine
from gateway.money.errors import LedgerError
from gateway.money.schema import attempt, entry, rollup_by, rollup_latency, spool
from gateway.money.views import Cell, durations, latency_cells, view_cells, with_days

if TYPE_CHECKING:
    from sqlalchemy import Connection

OWN = "own"
"""The spool of a SQLite ledger's own sums."""
RETENTION = "retention"
"""The row that says since when all lines are kept."""
_ADDED_AT_ONCE = 4000
_DELETED_AT_ONCE = 200


class Rollup:
    """Adds up one SQLite ledger, a batch a step. Several processes may do so at once."""

    def __init__(self, path: Path, *, at_once: int = _ADDED_AT_ONCE) -> None:
        self._path = path
        self._engine = sqlite_engine(path)
        self._at_once = at_once

    def step(self) -> bool:
        """Add one batch; return whether there may be more. Raises LedgerError."""
        try:
            with self._engine.connect() as connection:
                return self._step(connection)
        except DBAPIError as exc:
            raise LedgerError(f"ledger {self._path}: cannot be added up: {exc.orig}") from exc

    def prune(self, before_us: int) -> bool:
        """Delete some lines of whole hours before a moment; return whether there may be more.

        Only what was added up is deleted. Raises LedgerError.
        """
        try:
            with self._engine.connect() as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                found = prune(connection, before_us, rowid < position(connection, OWN)[0])
                connection.exec_driver_sql("COMMIT")
                return found
        except DBAPIError as exc:
            raise LedgerError(f"ledger {self._path}: cannot be pruned: {exc.orig}") from exc

    def _step(self, connection: Connection) -> bool:
        upto, upto_id = position(connection, OWN)
        rows = arrived(connection, upto, self._at_once)
        if not rows:
            return False
        last, last_id = rows[-1]
        # What takes long is done before the lock is taken: writers are not held up.
        batch = (rowid > upto) & (rowid <= last)
        found = cells_of(connection, batch)
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        if position(connection, OWN) != (upto, upto_id):
            connection.exec_driver_sql("ROLLBACK")  # another process was quicker
            return True
        for table, cells in found:
            add(connection, table, cells)
        move(connection, OWN, last, last_id)
        connection.exec_driver_sql("COMMIT")
        return len(rows) == self._at_once


def position(connection: Connection, name: str) -> tuple[int, str]:
    """Return up to which row of a spool its entries were added, and that row's id.

    A `VACUUM` numbers rows anew, so the id is what counts.
    """
    found = connection.execute(select(spool.c.upto, spool.c.upto_id).where(spool.c.id == name))
    row = found.one_or_none()
    if row is None:
        return 0, ""
    number = connection.scalar(select(rowid).select_from(entry).where(entry.c.request_id == row[1]))
    return (row[0] if number is None else number), row[1]


def move(connection: Connection, name: str, upto: int, upto_id: str, seen_at_us: int = 0) -> None:
    """Say up to which row the entries of a spool were added."""
    row = {"id": name, "upto": upto, "upto_id": upto_id, "seen_at_us": seen_at_us}
    insert = _insert(connection, spool).values(**row, kept_since_us=0)
    connection.execute(insert.on_conflict_do_update(index_elements=["id"], set_=row))


def arrived(connection: Connection, upto: int, most: int) -> list[tuple[int, str]]:
    """Return the rows after `upto` that are final: none beyond one that is still open."""
    wanted = select(rowid, entry.c.request_id, entry.c.state).where(rowid > upto)
    rows: list[tuple[int, str]] = []
    for number, name, state in connection.execute(wanted.order_by(rowid).limit(most)):
        if state == "open":
            break
        rows.append((number, name))
    return rows


def add_up(connection: Connection, where: ColumnElement[bool]) -> None:
    """Add the chosen entries to the sums of the database that they are in."""
    for table, cells in cells_of(connection, where):
        add(connection, table, cells)


def cells_of(connection: Connection, where: ColumnElement[bool]) -> list[tuple[Table, list[Cell]]]:
    """Sum up the chosen entries as rows of each table of sums."""
    found = [(table, _rows(connection, make(where))) for table, make in ROLLUPS]
    found.append((rollup_by, with_days(_rows(connection, view_cells(where)))))
    took = latency_cells(connection.execute(durations(where)))
    found.append((rollup_latency, with_days(took)))
    return found


def add(connection: Connection, table: Table, cells: Sequence[Cell]) -> None:
    """Add cells to those of one table."""
    if not cells:
        return
    keys = [column.name for column in table.primary_key]
    insert = _insert(connection, table)
    sums = {
        column.name: column + insert.excluded[column.name]
        for column in table.c
        if column.name not in keys
    }
    statement = insert.on_conflict_do_update(index_elements=keys, set_=sums)
    connection.execute(statement, list(cells))


def prune(connection: Connection, before_us: int, added: ColumnElement[bool]) -> bool:
    """Delete some of the lines of whole hours before a moment; return whether there may be more.

    `added` tells which lines are part of the sums.
    """
    cut = before_us // HOUR_US * HOUR_US
    chosen = select(entry.c.request_id).where(entry.c.started_at_us < cut, added)
    ids = connection.scalars(chosen.limit(_DELETED_AT_ONCE)).all()
    if not ids:
        return False
    insert = _insert(connection, spool).values(
        id=RETENTION, upto=0, upto_id="", kept_since_us=cut, seen_at_us=0
    )
    kept = spool.c.kept_since_us
    later = {"kept_since_us": case((kept > cut, kept), else_=cut)}
    connection.execute(insert.on_conflict_do_update(index_elements=["id"], set_=later))
    connection.execute(delete(attempt).where(attempt.c.request_id.in_(ids)))
    connection.execute(delete(entry).where(entry.c.request_id.in_(ids)))
    return len(ids) == _DELETED_AT_ONCE


def kept_since_us(connection: Connection) -> int:
    """Return since when all lines are there, in microseconds; 0 where none was deleted."""
    return connection.scalar(select(func.max(spool.c.kept_since_us))) or 0


def spool_name(connection: Connection) -> str:
    """Return the name by which PostgreSQL knows this SQLite file, made at the first call."""
    wanted = select(spool.c.id).where(spool.c.id.like("spool-%"))
    if (name := connection.scalar(wanted)) is None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        if (name := connection.scalar(wanted)) is None:
            name = f"spool-{secrets.token_hex(8)}"
            move(connection, name, 0, "")
        connection.exec_driver_sql("COMMIT")
    return str(name)


def _insert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def _rows(connection: Connection, wanted: Any) -> list[Cell]:
    found = connection.execute(wanted)
    names = list(found.keys())
    cells = [dict(zip(names, row, strict=True)) for row in found]
    # PostgreSQL adds whole numbers up to decimals.
    is_whole = connection.dialect.name != "postgresql"
    return cells if is_whole else [_plain(cell) for cell in cells]


def _plain(cell: dict[str, Any]) -> dict[str, Any]:
    """Return a cell's sums as whole numbers."""
    return {
        name: value if isinstance(value, str | float) else int(value)
        for name, value in cell.items()
    }
