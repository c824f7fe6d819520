"""Keep the sums of a ledger up to date, and let its old lines go.

Sums grow by whole batches of entries, in the order of their arrival; how far
they have come stands beside them and moves in the same transaction, so an entry
is added once whatever happens. Lines that were added may be deleted after a
while: no sum changes by that.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, MetaData, Table, case, delete, func, select, true
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateTable

from gateway.money.cells import HOUR_US, ROLLUPS, Statement, rowid
from gateway.money.databases import sqlite_engine
from gateway.money.errors import LedgerError
from gateway.money.schema import attempt, entry, rollup_by, rollup_latency, spool
from gateway.money.views import kept_cells, kept_latencies

if TYPE_CHECKING:
    from sqlalchemy import Connection

OWN = "own"
"""The spool of a SQLite ledger's own sums."""
RETENTION = "retention"
"""The row that says since when all lines are kept."""
_ADDED_AT_ONCE = 4000
_DELETED_AT_ONCE = 200
_KEPT: tuple[tuple[Table, Statement], ...] = (
    *ROLLUPS,
    (rollup_by, kept_cells),
    (rollup_latency, kept_latencies),
)
_STAGED = tuple(
    table.to_metadata(MetaData(), schema="temp", name=f"staged_{table.name}") for table, _ in _KEPT
)


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows up to `last`, whose id is `last_id`; one that is full may not be the last one."""

    last: int
    last_id: str
    is_full: bool


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
        batch = arrived(connection, upto, self._at_once)
        if batch is None:
            return False
        # What takes long is done before the lock is taken: writers are not held up.
        staged = _stage(connection, (rowid > upto) & (rowid <= batch.last))
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        if position(connection, OWN) != (upto, upto_id):
            connection.exec_driver_sql("ROLLBACK")  # another process was quicker
            return True
        for table, cells in staged:
            _merge(connection, table, select(cells))
        move(connection, OWN, batch.last, batch.last_id)
        connection.exec_driver_sql("COMMIT")
        return batch.is_full


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


def arrived(connection: Connection, upto: int, most: int) -> Batch | None:
    """Return the rows after `upto` that are final, None where there are none.

    None beyond one that is still open is.
    """
    some = select(rowid.label("number"), entry.c.state).where(rowid > upto).order_by(rowid)
    found = some.limit(most).subquery()
    is_open = found.c.state == "open"
    first_open, last, count = connection.execute(
        select(func.min(case((is_open, found.c.number))), func.max(found.c.number), func.count())
    ).one()
    if first_open is not None:
        wanted = select(func.max(rowid)).select_from(entry)
        last = connection.scalar(wanted.where(rowid > upto, rowid < first_open))
    if last is None:
        return None
    last_id = connection.scalar(select(entry.c.request_id).where(rowid == last))
    return Batch(last, str(last_id), first_open is None and count == most)


def add_up(connection: Connection, where: ColumnElement[bool]) -> None:
    """Add the chosen entries to the sums of the database that they are in."""
    for table, make in _KEPT:
        _merge(connection, table, make(where))


def _stage(connection: Connection, where: ColumnElement[bool]) -> list[tuple[Table, Table]]:
    """Sum up the chosen entries in tables that only this connection sees, while it is open.

    So rows go from table to table within SQLite: to read each, and to send it back, would
    take three times as long as all else.
    """
    connection.exec_driver_sql("PRAGMA temp_store = memory")
    found = []
    for (table, make), staged in zip(_KEPT, _STAGED, strict=True):
        connection.execute(CreateTable(staged))
        cells = make(where)
        names = list(cells.selected_columns.keys())
        connection.execute(sqlite.insert(staged).from_select(names, cells))
        found.append((table, staged))
    return found


def _merge(connection: Connection, table: Table, cells: Any) -> None:
    """Add cells, told of by a statement, to those of one table."""
    rows = cells.subquery()
    keys = [column.name for column in table.primary_key]
    # In one order, two that add to the same cells do not wait for each other in PostgreSQL;
    # and without a WHERE SQLite would take ON CONFLICT for a join's.
    wanted = select(rows).where(true()).order_by(*(rows.c[name] for name in keys))
    insert = _insert(connection, table).from_select(list(rows.c.keys()), wanted)
    connection.execute(_adding(insert, table))


def _adding(insert: Any, table: Table) -> Any:
    """Return an insertion that adds to the sums of a cell that is there already."""
    keys = [column.name for column in table.primary_key]
    sums = {
        column.name: column + insert.excluded[column.name]
        for column in table.c
        if column.name not in keys
    }
    return insert.on_conflict_do_update(index_elements=keys, set_=sums)


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
