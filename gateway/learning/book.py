"""Outcomes, learning steps and the day's background spend, in the ledger's database."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import asdict

from gateway.money.errors import LedgerError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

MOST_ROWS = 200_000
"""Outcomes kept of a route; older ones go."""


_HEAVY = frozenset(("vector", "messages", "response"))


class OutcomeRow(Struct, frozen=True):
    """One judged draft, or the reference's own answer (`quality` None, `score` 1).

    `score` is 1 where the answer is no worse than the reference's, 0 where it is worse, None
    where nobody could tell. `drawn`: the request was drawn before anything was known of it,
    with probability `propensity`. `stats` is JSON of what its tokens came to. `messages` is JSON
    of the conversation; where a form was asked for or tools were called, an object of it, with
    `response_format`, `tools` and this answer's `tool_calls`.
    """

    request_id: str
    model: str
    at_us: int
    seq: int
    route: str
    tenant: str
    revision: str
    bundle: str
    reference: str
    answered_by: str
    served: bool
    drawn: bool
    quality: float | None
    propensity: float | None
    score: float | None
    labeller: str
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
    cost_nano_usd: int
    latency_us: int
    stats: str
    vector: bytes | None = None
    messages: str | None = None
    response: str | None = None


class LearnStep(Struct, frozen=True):
    """What a route's learning came to: `kind` in a word, `detail` as JSON."""

    route: str
    step: int
    at_us: int
    kind: str
    detail: str


class Book:
    """Reads and writes what routes learn from. Blocks: call it from a thread. Raises LedgerError.

    Several processes and machines may share the database; a step is whoever's was first.
    """

    def __init__(self, url: str) -> None:
        from gateway.money.databases import postgres_engine, sqlite_engine
        from gateway.money.location import is_postgres, locate

        self._is_file = not is_postgres(url)
        self._engine: Engine = (
            sqlite_engine(locate(url).path, wait_s=20.0) if self._is_file else postgres_engine(url)
        )

    def add(self, rows: Sequence[OutcomeRow]) -> None:
        """Keep outcomes; one that is there already stays as it is."""
        from gateway.money.schema import outcome

        told = [asdict(row) | {"served": int(row.served), "drawn": int(row.drawn)} for row in rows]
        if told:
            with self.writing() as connection:
                connection.execute(self.insert(outcome).on_conflict_do_nothing(), told)

    def rows(
        self, route: str, *, most: int = MOST_ROWS, since_us: int = 0, texts: bool = True
    ) -> list[OutcomeRow]:
        """Return the newest outcomes of a route, oldest first; without `texts`, the numbers."""
        from sqlalchemy import select

        from gateway.money.schema import outcome

        columns = [each for each in outcome.c if texts or each.name not in _HEAVY]
        wanted = (
            select(*columns)
            .where(outcome.c.route == route, outcome.c.at_us >= since_us)
            .order_by(outcome.c.at_us.desc(), outcome.c.request_id.desc(), outcome.c.seq.desc())
            .limit(most)
        )
        with self.reading() as connection:
            found = [dict(row) for row in connection.execute(wanted).mappings()]
        flags = ("served", "drawn")
        return [
            OutcomeRow(**row | {flag: bool(row[flag]) for flag in flags}) for row in found[::-1]
        ]

    def counts(self, route: str) -> tuple[int, int]:
        """Return how many drafts of a route were scored, and how many of drawn requests."""
        from sqlalchemy import func, select

        from gateway.money.schema import outcome

        own = outcome.c
        wanted = select(func.count(), func.coalesce(func.sum(own.drawn), 0)).where(
            own.route == route, own.score.is_not(None), own.model != own.reference
        )
        with self.reading() as connection:
            scored, drawn = connection.execute(wanted).one()
        return int(scored), int(drawn)

    def count_after(self, route: str, at_us: int) -> int:
        """Return how many outcomes of a route came after a time."""
        from sqlalchemy import func, select

        from gateway.money.schema import outcome

        own = outcome.c
        wanted = select(func.count()).where(own.route == route, own.at_us > at_us)
        with self.reading() as connection:
            return int(connection.scalar(wanted) or 0)

    def routes(self) -> list[str]:
        """Return the routes that have outcomes."""
        from sqlalchemy import select

        from gateway.money.schema import outcome

        with self.reading() as connection:
            return list(connection.scalars(select(outcome.c.route).distinct()))

    def references(self, route: str) -> list[str]:
        """Return the models that drawn requests of a route were set against, in order."""
        from sqlalchemy import select

        from gateway.money.schema import outcome

        own = outcome.c
        wanted = select(own.reference).where(own.route == route, own.drawn == 1).distinct()
        with self.reading() as connection:
            return sorted(connection.scalars(wanted))

    def prune(self, route: str, *, most: int = MOST_ROWS) -> None:
        """Let the oldest outcomes of a route go, so that `most` are left."""
        from sqlalchemy import delete, select

        from gateway.money.schema import outcome

        own = outcome.c
        newest = select(own.at_us).where(own.route == route).order_by(own.at_us.desc()).offset(most)
        with self.writing() as connection:
            last = connection.scalar(newest.limit(1))
            if last is not None:
                connection.execute(delete(outcome).where(own.route == route, own.at_us <= last))

    def spend(self, route: str, day: int, nano_usd: int) -> None:
        """Add what background calls of a day have cost."""
        from gateway.money.schema import background_spend as table

        added = self.insert(table).values(route=route, day=day, nano_usd=nano_usd)
        with self.writing() as connection:
            connection.execute(
                added.on_conflict_do_update(
                    index_elements=["route", "day"],
                    set_={"nano_usd": table.c.nano_usd + added.excluded.nano_usd},
                )
            )

    def spent(self, route: str, day: int) -> int:
        """Return what background calls of a day have cost, in nano-dollars, by all processes."""
        from sqlalchemy import select

        from gateway.money.schema import background_spend as table

        wanted = select(table.c.nano_usd).where(table.c.route == route, table.c.day == day)
        with self.reading() as connection:
            return int(connection.scalar(wanted) or 0)

    def steps(self, route: str) -> list[LearnStep]:
        """Return the steps of a route, in their order."""
        from sqlalchemy import select

        from gateway.money.schema import learning_step as table

        wanted = select(table).where(table.c.route == route).order_by(table.c.step)
        with self.reading() as connection:
            return [LearnStep(**row) for row in connection.execute(wanted).mappings()]

    def take(self, step: LearnStep) -> bool:
        """Write a step down; return False where another process has taken that one already."""
        from gateway.money.schema import learning_step as table

        with self.writing() as connection:
            found = connection.execute(
                self.insert(table).values(**asdict(step)).on_conflict_do_nothing()
            )
            return found.rowcount == 1

    def put_bundle(self, route: str, identity: str, content: bytes, keep: Collection[str]) -> None:
        """Keep a bundle for other machines, and let go of the route's that are not to be kept."""
        from time import time

        from sqlalchemy import delete

        from gateway.money.schema import learnt_bundle as table

        row = {"id": identity, "route": route, "at_us": int(time() * 1e6), "content": content}
        with self.writing() as connection:
            connection.execute(
                delete(table).where(table.c.route == route, table.c.id.not_in(sorted(keep)))
            )
            connection.execute(self.insert(table).values(**row).on_conflict_do_nothing())

    def bundle(self, identity: str) -> bytes | None:
        """Return the bundle of an id in one piece, None where nobody has put it there."""
        from sqlalchemy import select

        from gateway.money.schema import learnt_bundle as table

        with self.reading() as connection:
            found: bytes | None = connection.scalar(
                select(table.c.content).where(table.c.id == identity)
            )
        return found

    def close(self) -> None:
        """Disconnect."""
        self._engine.dispose()

    def insert(self, table: Any) -> Any:
        """Return an insertion in the database's own dialect, which can meet a conflict."""
        from sqlalchemy.dialects import postgresql, sqlite

        return sqlite.insert(table) if self._is_file else postgresql.insert(table)

    def lock(self, connection: Connection, name: str) -> None:
        """Wait until nobody else writes what goes by a name; a file has one writer anyhow."""
        from sqlalchemy import text

        if not self._is_file:
            asked = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
            connection.execute(asked, {"name": name})

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection to read on. Raises LedgerError."""
        with self._connected() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield a connection in a transaction that ends well, or not at all. Raises LedgerError."""
        with self._connected() as connection:
            if self._is_file:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection
            if self._is_file:
                connection.exec_driver_sql("COMMIT")
            else:
                connection.commit()

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        from sqlalchemy.exc import DBAPIError

        try:
            with self._engine.connect() as connection:
                yield connection
        except DBAPIError as exc:
            why = str(exc.orig).partition("\n")[0]
            raise LedgerError(f"outcomes cannot be read or written: {why}") from exc
