"""Budgets that several processes share through PostgreSQL; rates and rooms are each process' own.

What a process holds and has spent of a budget is a row of its own, which it
always writes as a whole: to write it again, or not to know whether it was
written, does no harm. Whatever is asked while one transaction is under way
shares the next. What a process held when it died counts as spent: its calls may
be billed for as much.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

from gateway.access.meters import Claim, Purse, Refused, StoreAway, Taken, Unseeded
from gateway.access.stores.memory import MemoryLimits
from gateway.access.stores.shares import Share, Totals, decide, release
from policies.limits import DefaultLimits

if TYPE_CHECKING:
    from psycopg import AsyncConnection

LEASE_S = 10.0
"""How long a process that says nothing more is taken to be alive."""
_BEAT_S = 3.0
_SWEEP_EVERY_S = 600.0
_WITHIN_S = 1.0
_LONGEST_REST_S = 5.0
_AT_ONCE = 256

_LOCK = "SELECT id FROM budget WHERE id = ANY(%s) ORDER BY id FOR UPDATE"
_PARTS = """
FROM budget_part part
LEFT JOIN budget_process alive ON alive.name = part.process
     AND alive.alive_until_us > extract(epoch FROM clock_timestamp()) * 1e6
"""
_OTHERS = f"""
SELECT part.budget_id,
       sum(spent_nano_usd + CASE WHEN alive.name IS NULL THEN held_nano_usd ELSE 0 END)::bigint,
       coalesce(sum(held_nano_usd) FILTER (WHERE alive.name IS NOT NULL), 0)::bigint
{_PARTS}
WHERE part.budget_id = ANY(%s) AND part.process <> %s
GROUP BY part.budget_id
"""
_BEAT = """
INSERT INTO budget_process (name, alive_until_us)
VALUES (%s, (extract(epoch FROM clock_timestamp()) + %s) * 1e6)
ON CONFLICT (name) DO UPDATE SET alive_until_us = excluded.alive_until_us
"""
_SAY = """
INSERT INTO budget_part (budget_id, process, held_nano_usd, spent_nano_usd)
SELECT id, %s, held, spent FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS t(id, held, spent)
ON CONFLICT (budget_id, process) DO UPDATE
SET held_nano_usd = excluded.held_nano_usd, spent_nano_usd = excluded.spent_nano_usd
"""
_OPEN = "INSERT INTO budget (id, account, ends_at_us) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
# What the ledger has and no process of it has told: spent before budgets, or before a crash.
_TOLD = """
coalesce(sum(spent_nano_usd + CASE WHEN alive.name IS NULL AND process <> %(me)s
                              THEN held_nano_usd ELSE 0 END), 0)
"""
_MAKE_UP = f"""
INSERT INTO budget_part (budget_id, process, held_nano_usd, spent_nano_usd)
SELECT %(id)s, %(ledger)s || '/', 0, %(spent)s - {_TOLD}
{_PARTS} WHERE budget_id = %(id)s AND starts_with(process, %(ledger)s || '/')
HAVING {_TOLD} < %(spent)s
ON CONFLICT (budget_id, process) DO UPDATE
SET spent_nano_usd = budget_part.spent_nano_usd + excluded.spent_nano_usd
"""
_SWEEP = (
    """
    DELETE FROM budget WHERE ends_at_us < (extract(epoch FROM clock_timestamp()) - 86400 * 31) * 1e6
    """,
    "DELETE FROM budget_part WHERE budget_id NOT IN (SELECT id FROM budget)",
    "SELECT id FROM budget ORDER BY id FOR UPDATE",
    # The dead of a day ago become one row of their ledger.
    """
    WITH gone AS (
        DELETE FROM budget_part part USING budget_process dead
        WHERE dead.name = part.process
          AND dead.alive_until_us < (extract(epoch FROM clock_timestamp()) - 86400) * 1e6
        RETURNING part.budget_id, regexp_replace(part.process, '[^/]*$', '') AS ledger,
                  part.spent_nano_usd + part.held_nano_usd AS spent_nano_usd
    )
    INSERT INTO budget_part (budget_id, process, held_nano_usd, spent_nano_usd)
    SELECT budget_id, ledger, 0, sum(spent_nano_usd) FROM gone GROUP BY budget_id, ledger
    ON CONFLICT (budget_id, process) DO UPDATE
    SET spent_nano_usd = budget_part.spent_nano_usd + excluded.spent_nano_usd
    """,
    """
    DELETE FROM budget_process
    WHERE alive_until_us < (extract(epoch FROM clock_timestamp()) - 86400) * 1e6
    """,
)

_Answer = Taken | Refused | Unseeded


class PostgresLimits:
    """Keeps purses in PostgreSQL, everything else in memory. An async context manager.

    `ledger` names the ledger of this process: what it has spent is made up for
    once by those that write it. While PostgreSQL is away a hard purse gives
    nothing, and what the others give is told when it is back.
    """

    is_immediate = False

    def __init__(
        self,
        url: str,
        *,
        ledger: str,
        tick: Callable[[], float],
        wall: Callable[[], float],
        lease_s: float = LEASE_S,
        within_s: float = _WITHIN_S,
    ) -> None:
        self._url = url
        self._ledger = ledger
        self._tick = tick
        self._wall = wall
        self._lease_s = lease_s
        self._within_s = within_s
        self._memory = MemoryLimits(tick)
        self._shares: dict[str, Share] = {}
        self._asked: list[tuple[Claim, asyncio.Future[_Answer]]] = []
        self._seeds: list[tuple[Purse, int, asyncio.Future[None]]] = []
        self._bell = asyncio.Event()
        self._is_ending = False
        self._rests_until = float("-inf")
        self._rest_s = 0.0
        self._swept_at = tick()
        self._connection: AsyncConnection[Any] | None = None
        self._worker: asyncio.Task[None] | None = None
        self.name = f"{ledger}/{secrets.token_hex(6)}"
        """What PostgreSQL knows this process by."""

    async def __aenter__(self) -> PostgresLimits:
        self._worker = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_ending = True
        self._bell.set()
        if self._worker is not None:
            await self._worker
        await self._disconnect()

    def follow(self, rules: DefaultLimits) -> None:
        """Budgets give nothing while PostgreSQL is away, and rates are this process' own."""

    async def take(self, claim: Claim) -> _Answer:
        """Take all of a claim or nothing. Raises StoreAway."""
        if not claim.purses:
            return self._memory.take_now(claim)
        if self._is_resting:
            return self._take_alone(claim)
        unknown = [purse for purse, _ in claim.purses if not self._share(purse).is_seeded]
        if unknown:
            return Unseeded(tuple(unknown))
        answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()
        self._asked.append((claim, answer))
        self._bell.set()
        result = await answer
        return self._with_the_rest(claim, result) if isinstance(result, Taken) else result

    async def seed(self, purse: Purse, nano_usd: int) -> None:
        """Say what the ledger has spent of a purse. Raises StoreAway."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._seeds.append((purse, nano_usd, done))
        self._bell.set()
        await done

    def settle(self, claim: Claim, *, tokens: int, nano_usd: int) -> None:
        """Give back what was reserved and count what was used."""
        self._memory.settle(Claim(claim.paces, claim.rooms), tokens=tokens, nano_usd=0)
        if claim.purses:
            release(self._shares, claim, nano_usd)
            self._bell.set()

    @property
    def _is_resting(self) -> bool:
        return self._tick() < self._rests_until

    def _with_the_rest(self, claim: Claim, taken: Taken) -> _Answer:
        """Take rates and rooms, too; else give the money back."""
        rest = self._memory.take_now(Claim(claim.paces, claim.rooms))
        if isinstance(rest, Taken):
            return Taken(rest.levels, taken.over, spent=taken.spent)
        release(self._shares, claim, 0)
        self._bell.set()
        return rest

    def _take_alone(self, claim: Claim) -> _Answer:
        """Take what may be taken without PostgreSQL. Raises StoreAway."""
        for purse, _ in claim.purses:
            if purse.hard:
                if purse.at_limit == "cheapest":
                    return Refused(purse, None)
                raise StoreAway(f"PostgreSQL is away, and with it {purse.whose}")
        result = self._memory.take_now(Claim(claim.paces, claim.rooms))
        if isinstance(result, Taken):
            for purse, amount in claim.purses:
                self._share(purse).held += amount
        return result

    def _share(self, purse: Purse) -> Share:
        found = self._shares.get(purse.id)
        if found is None:
            found = self._shares[purse.id] = Share(purse)
        return found

    # What follows runs in the worker's task, the only one that talks to PostgreSQL.

    async def _work(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._bell.wait(), _BEAT_S)
            is_last = self._is_ending
            self._bell.clear()
            if is_last or not self._is_resting:
                await self._round_or_rest()
            else:
                self._refuse_all()
            if is_last:
                self._refuse_all()
                return
            if len(self._asked) > 0:
                self._bell.set()

    async def _round_or_rest(self) -> None:
        from psycopg import Error

        from gateway.money.errors import LedgerError

        asked, self._asked = self._asked[:_AT_ONCE], self._asked[_AT_ONCE:]
        asked = [(claim, answer) for claim, answer in asked if not answer.done()]
        seeds, self._seeds = self._seeds, []
        answers: list[_Answer] = []
        try:
            connection = await self._connected()
            async with asyncio.timeout(self._within_s):
                for purse, nano_usd, _ in seeds:
                    await self._seed(connection, purse, nano_usd)
                await self._round(connection, [claim for claim, _ in asked], answers)
                await self._sweep_now_and_then(connection)
        except (Error, OSError, TimeoutError, LedgerError) as exc:
            await self._rest()
            self._take_back(asked, answers)
            why = f"PostgreSQL is away, and with it the budgets: {exc}"
            _fail_all(why, [answer for _, answer in asked], [done for *_, done in seeds])
            return
        self._rest_s = 0.0
        for *_, done in seeds:
            if not done.done():
                done.set_result(None)
        for (claim, answer), found in zip(asked, answers, strict=True):
            if not answer.done():
                answer.set_result(found)
            elif isinstance(found, Taken):
                release(self._shares, claim, 0)  # who asked has left
                self._bell.set()

    def _take_back(
        self, asked: list[tuple[Claim, asyncio.Future[_Answer]]], answers: list[_Answer]
    ) -> None:
        for (claim, _), found in zip(asked, answers, strict=False):
            if isinstance(found, Taken):
                release(self._shares, claim, 0)

    def _refuse_all(self) -> None:
        asked, seeds = [each[1] for each in self._asked], [each[2] for each in self._seeds]
        self._asked, self._seeds = [], []
        _fail_all("PostgreSQL is away, and with it the budgets", asked, seeds)

    async def _round(
        self, connection: AsyncConnection[Any], claims: list[Claim], answers: list[_Answer]
    ) -> None:
        """Decide the claims and say what has changed, in one transaction of two exchanges."""
        self._forget_the_past()
        ids = {purse.id for claim in claims for purse, _ in claim.purses}
        ids |= {name for name, share in self._shares.items() if share.is_changed}
        names = sorted(ids)
        async with connection.pipeline() as pipeline, connection.transaction():
            locked = await connection.execute(_LOCK, [names])
            others = await connection.execute(_OTHERS, [names, self.name])
            await connection.execute(_BEAT, [self.name, self._lease_s])
            await pipeline.sync()
            known = {name for (name,) in await locked.fetchall()}
            totals: Mapping[str, Totals] = {
                name: Totals(spent, held) for name, spent, held in await others.fetchall()
            }
            for name in ids - known:
                self._shares[name].is_seeded = False
            answers += [
                self._with_levels(claim, decide(self._shares, totals, claim)) for claim in claims
            ]
            said = await self._say(connection, [name for name in names if name in known])
        for share, what in said:
            share.told = what

    async def _say(
        self, connection: AsyncConnection[Any], names: list[str]
    ) -> list[tuple[Share, tuple[int, int]]]:
        said = [(self._shares[name], self._shares[name].now) for name in names]
        if said:
            held, spent = zip(*(what for _, what in said), strict=True)
            await connection.execute(_SAY, [self.name, names, list(held), list(spent)])
        return said

    def _with_levels(self, claim: Claim, answer: _Answer) -> _Answer:
        if isinstance(answer, Refused):
            return Refused(answer.meter, answer.wait_s, self._memory.levels(claim))
        return answer

    async def _seed(self, connection: AsyncConnection[Any], purse: Purse, nano_usd: int) -> None:
        share = self._share(purse)
        ends_at = None if purse.end == float("inf") else int(purse.end * 1e6)
        async with connection.transaction():
            await connection.execute(_OPEN, [purse.id, purse.account, ends_at])
            await connection.execute(_LOCK, [[purse.id]])
            said = await self._say(connection, [purse.id])
            told = {"id": purse.id, "ledger": self._ledger, "me": self.name, "spent": nano_usd}
            await connection.execute(_MAKE_UP, told)
        for each, what in said:
            each.told = what
        share.is_seeded = True

    async def _sweep_now_and_then(self, connection: AsyncConnection[Any]) -> None:
        if self._tick() < self._swept_at + _SWEEP_EVERY_S:
            return
        self._swept_at = self._tick()
        async with connection.transaction():
            for statement in _SWEEP:
                await connection.execute(statement.encode())

    def _forget_the_past(self) -> None:
        now = self._wall()
        for name, share in list(self._shares.items()):
            if share.purse.end < now and not share.held and not share.is_changed:
                del self._shares[name]

    async def _connected(self) -> AsyncConnection[Any]:
        connection = self._connection
        if connection is None or connection.closed:
            from psycopg import AsyncConnection

            from gateway.money.databases import made

            await asyncio.to_thread(made, self._url)
            connection = self._connection = await AsyncConnection.connect(
                self._url,
                autocommit=True,
                connect_timeout=2,
                application_name="frugal budgets",
                options=f"-c statement_timeout={int(self._within_s * 1000)}",
            )
        return connection

    async def _rest(self) -> None:
        self._rest_s = min(_LONGEST_REST_S, self._rest_s * 2 or 0.1)
        self._rests_until = self._tick() + self._rest_s
        await self._disconnect()

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                await connection.close()


def _fail_all(why: str, *waiting: Iterable[asyncio.Future[Any]]) -> None:
    for waiter in chain(*waiting):
        if not waiter.done():
            waiter.set_exception(StoreAway(why))
