"""Limits that several processes share, in one Redis.

Every step is one script there. What this process holds is known here, too: when
the link was lost, or Redis has forgotten us, it is said again as a whole under a
new name, and whatever was still on its way under the old one is void. So
nothing is held twice, and nothing for good.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Protocol

import msgspec

from cache.types import StoreFailed
from gateway.access.gcra import Level
from gateway.access.meters import (
    Claim,
    Pace,
    Purse,
    Refused,
    Room,
    StoreAway,
    Taken,
    Unseeded,
)
from gateway.access.stores.away import Away, WithoutRedis
from gateway.access.stores.memory import MemoryLimits
from policies.limits import DefaultLimits

LEASE_S = 10.0
"""How long a process that says nothing more is taken to be alive."""
_BEAT_S = 3.0
_TRIES = 3
_PREFIX = b"{frugal}:limits:"
_PROCESSES = _PREFIX + b"processes"
_FOR_A_MONTH = 31 * 86400
_pack = msgspec.msgpack.Encoder().encode
_unpack: Callable[[bytes], Any] = msgspec.msgpack.Decoder().decode


class ScriptRunner(Protocol):
    """What is needed of the link to Redis: ordered, and quick to fail with StoreFailed."""

    @property
    def is_up(self) -> bool:
        """Return whether calls are tried at all."""
        ...

    def run(self, script: str, keys: Sequence[bytes], *arguments: bytes) -> Awaitable[Any]:
        """Run a script."""
        ...

    def post_run(self, script: str, keys: Sequence[bytes], *arguments: bytes) -> None:
        """Run a script without waiting."""
        ...

    def when_down(self, react: Callable[[], None]) -> None:
        """Call back each time the link has gone down."""
        ...


class _Sum:
    """What this process has spent of a purse, under which generation, and holds of it."""

    __slots__ = ("generation", "held", "purse", "spent")

    def __init__(self, purse: Purse) -> None:
        self.purse = purse
        self.generation = ""
        self.held = 0
        self.spent = 0


class SharedLimits:
    """Keeps every meter in Redis. An async context manager.

    `ledger` names the ledger whose spending seeds a purse: processes that write
    one ledger seed it once. While Redis is away, `without_redis` says what
    happens to rates, `share` how much of them one process grants; a hard purse
    gives nothing.
    """

    is_immediate = False

    def __init__(
        self,
        link: ScriptRunner,
        *,
        ledger: str,
        tick: Callable[[], float],
        wall: Callable[[], float],
        without_redis: WithoutRedis = "local",
        share: float = 0.25,
    ) -> None:
        self._link = link
        self._ledger = ledger
        self._wall = wall
        self._run = secrets.token_hex(6)
        self._epoch = 0
        self._me = ""
        self._is_known = False
        self._registering: asyncio.Future[None] | None = None
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._sums: dict[str, _Sum] = {}
        self._inside: dict[str, int] = {}
        self._memory = MemoryLimits(tick)
        self._away = Away(self._memory, without_redis, share, self._note_spent)
        self._heart: asyncio.Task[None] | None = None
        link.when_down(self._forget_me)

    async def __aenter__(self) -> SharedLimits:
        self._heart = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._heart is not None:
            self._heart.cancel()
            with suppress(asyncio.CancelledError):
                await self._heart

    @property
    def name(self) -> str:
        """Return what Redis knows this process by."""
        return self._me

    def follow(self, rules: DefaultLimits) -> None:
        """Go by other rules while Redis is away; what was granted is settled by the old ones."""
        told = (rules.without_redis, rules.local_share)
        self._away = Away(self._memory, *told, self._note_spent)

    async def take(self, claim: Claim) -> Taken | Refused | Unseeded:
        """Take all of a claim or nothing. Raises StoreAway."""
        try:
            for _ in range(_TRIES):
                await self._be_known()
                answer = await self._ask(claim)
                if answer[0] != "unknown":
                    return self._understood(claim, answer)
                self._forget_me()
        except StoreFailed:
            self._forget_me()  # of what was refused, nobody knows how much was done
            return self._away.take(claim)
        raise StoreAway("Redis forgets this process again and again")

    async def seed(self, purse: Purse, nano_usd: int) -> None:
        """Say what the ledger has spent of a purse, unless it was said already."""
        found = self._sum(purse)
        until_when = 0 if purse.end == float("inf") else int(purse.end) + _FOR_A_MONTH
        told = {
            "ledger": self._ledger, "generation": secrets.token_hex(6), "spent": nano_usd,
            "me": self._me, "held": found.held, "until_when": until_when,
        }  # fmt: skip
        with suppress(StoreFailed):
            reply = await self._link.run("seed", [_PROCESSES, _key(purse)], _pack(told))
            found.generation = reply.decode()
            found.spent = 0

    def settle(self, claim: Claim, *, tokens: int, nano_usd: int) -> None:
        """Give back what was reserved and count what was used."""
        self._note_settled(claim, nano_usd)
        if not self._is_known or not self._link.is_up:
            return  # it is said with everything else, when we are known again
        paces = [
            (pace, tokens - amount)
            for pace, amount in claim.paces
            if pace.unit == "tokens" and tokens != amount
        ]
        if not (paces or claim.rooms or claim.purses):
            return
        keys = [_PROCESSES, *(_key(pace) for pace, _ in paces), *map(_key, claim.rooms)]
        keys += [_key(purse) for purse, _ in claim.purses]
        told = {
            "me": self._me,
            "ledger": self._ledger,
            "paces": [(change, pace.per_minute) for pace, change in paces],
            "rooms": [1] * len(claim.rooms),
            "purses": [(amount, nano_usd) for _, amount in claim.purses],
        }
        self._link.post_run("settle", keys, _pack(told))

    def _note_spent(self, claim: Claim, nano_usd: int) -> None:
        """Count spending of which Redis was not told."""
        for purse, _ in claim.purses:
            self._sum(purse).spent += nano_usd

    async def _ask(self, claim: Claim) -> list[Any]:
        keys = [_PROCESSES, *[_key(pace) for pace, _ in claim.paces], *map(_key, claim.rooms)]
        keys += [_key(purse) for purse, _ in claim.purses]
        told = {
            "me": self._me,
            "ledger": self._ledger,
            "paces": [(amount, pace.per_minute) for pace, amount in claim.paces],
            "rooms": [room.size for room in claim.rooms],
            "purses": [(amount, purse.nano_usd, purse.hard) for purse, amount in claim.purses],
        }
        self._in_flight += 1
        try:
            answer: list[Any] = _unpack(await self._link.run("take", keys, _pack(told)))
        except asyncio.CancelledError:
            self._touch(claim)
            self._forget_me()  # nobody knows whether it was taken
            raise
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()
        return answer

    def _understood(self, claim: Claim, answer: list[Any]) -> Taken | Refused | Unseeded:
        kind = answer[0]
        if kind == "unseeded":
            return Unseeded(tuple(claim.purses[at][0] for at in answer[1]))
        levels = _levels(claim, answer[3])
        if kind == "taken":
            self._note_taken(claim)
            over = tuple(claim.purses[at][0] for at in answer[1])
            return Taken(levels, over, spent=tuple(int(each) for each in answer[4]))
        at, wait = answer[1], answer[2]
        wait_s = None if wait == -1 else float("inf") if wait == -2 else float(wait)
        meters = {"purse": claim.purses, "pace": claim.paces, "room": claim.rooms}[kind]
        meter = meters[at] if kind == "room" else meters[at][0]
        return Refused(meter, wait_s, levels)

    def _note_taken(self, claim: Claim) -> None:
        for room in claim.rooms:
            self._inside[room.id] = self._inside.get(room.id, 0) + 1
        for purse, amount in claim.purses:
            self._sum(purse).held += amount

    def _note_settled(self, claim: Claim, nano_usd: int) -> None:
        for room in claim.rooms:
            self._inside[room.id] -= 1
        for purse, amount in claim.purses:
            found = self._sum(purse)
            found.held -= amount
            found.spent += nano_usd

    def _touch(self, claim: Claim) -> None:
        """Remember meters, so that what is held of them is said again."""
        for room in claim.rooms:
            self._inside.setdefault(room.id, 0)
        for purse, _ in claim.purses:
            self._sum(purse)

    def _sum(self, purse: Purse) -> _Sum:
        found = self._sums.get(purse.id)
        if found is None:
            found = self._sums[purse.id] = _Sum(purse)
        return found

    def _forget_me(self) -> None:
        self._is_known = False

    async def _be_known(self) -> None:
        """Make sure that Redis knows this process and what it holds. Raises StoreFailed."""
        while not self._is_known:
            if self._registering is None:
                self._registering = asyncio.ensure_future(self._register())
                self._registering.add_done_callback(self._has_registered)
            await asyncio.shield(self._registering)

    def _has_registered(self, done: asyncio.Future[None]) -> None:
        self._registering = None
        if not done.cancelled():
            done.exception()

    async def _register(self) -> None:
        while self._in_flight:
            self._idle.clear()
            await self._idle.wait()
        before, self._epoch = self._me, self._epoch + 1
        self._me = f"{self._run}:{self._epoch}"
        self._drop_the_past()
        sums = list(self._sums.values())
        said = [each.spent for each in sums]
        told = {
            "me": self._me, "before": before, "run": self._run, "lease": LEASE_S,
            "ledger": self._ledger,
            "purses": [(each.generation, each.spent, each.held) for each in sums],
            "rooms": list(self._inside.values()),
        }  # fmt: skip
        keys = [_PROCESSES, *(_key(each.purse) for each in sums)]
        keys += [_PREFIX + name.encode() for name in self._inside]
        self._is_known = True  # what is sent from now on comes after this
        reply = _unpack(await self._link.run("register", keys, _pack(told)))
        for each, spent, generation in zip(sums, said, reply, strict=True):
            if generation != each.generation:
                # Seeded anew meanwhile: what was spent before is in the ledger.
                each.generation = generation
                each.spent -= spent

    def _drop_the_past(self) -> None:
        now = self._wall()
        for name, found in list(self._sums.items()):
            if not found.held and found.purse.end < now:
                del self._sums[name]

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_BEAT_S)
            if self._is_known:
                told = {"me": self._me, "lease": LEASE_S}
                with suppress(StoreFailed):
                    if not await self._link.run("beat", [_PROCESSES], _pack(told)):
                        self._forget_me()
            elif self._link.is_up:
                with suppress(StoreFailed):
                    await self._be_known()


def _key(meter: Pace | Room | Purse) -> bytes:
    return _named(meter.id)


@lru_cache(maxsize=4096)
def _named(meter_id: str) -> bytes:
    return _PREFIX + meter_id.encode()


def _levels(claim: Claim, ahead: Sequence[float]) -> tuple[Level, ...]:
    return tuple(
        Level(pace.per_minute, max(0, int((60.0 - s + 1e-6) * pace.per_minute / 60.0)), s)
        for (pace, _), s in zip(claim.paces, ahead, strict=True)
    )
