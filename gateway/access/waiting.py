"""Requests that wait their turn for a limit, instead of being refused at once."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from msgspec.structs import replace

from gateway.access.fair_queue import FairQueue, Waiter
from gateway.access.meters import Claim, Pace, Purse, Refused, Room, Settler, Taken
from gateway.errors import GatewayError
from gateway.telemetry.series import Histogram
from policies.limits import Priority, QueueRules

WAITS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Bounds of the classes in which waits are counted, in seconds."""
_LOOK_AGAIN_S = 0.1
"""Other processes free what they share without telling."""

Ask = Callable[[Claim], Awaitable[Taken | Refused]]
_Future = asyncio.Future[Taken | Refused]


@dataclass(slots=True, eq=False)
class _Wish:
    """A claim, what came of it, and why it was not granted when it was last asked for."""

    claim: Claim
    given: _Future
    refused: Refused | None = None


class WaitingRoom:
    """Asks for each waiter in its turn, whenever something may have become free."""

    def __init__(self, rules: QueueRules, ask: Ask, settler: Settler) -> None:
        self.waits = Histogram(WAITS_S)
        self._rules = rules
        self._ask = ask
        self._settler = settler
        self._queue: FairQueue[_Wish] = FairQueue(rules.max_waiting)
        self._news = asyncio.Event()
        self._usher: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._queue)

    async def take(self, claim: Claim, tenant: str, priority: Priority) -> Taken | Refused:
        """Take a claim now or in its turn; what is refused then says how it has waited."""
        meters = {each.id for each, _ in claim.paces} | {room.id for room in claim.rooms}
        refused: Refused | None = None
        if not self._queue.wants(meters):
            result = await self._ask(claim)
            if isinstance(result, Taken) or not self._may_wait_for(result):
                return result
            refused = result
        wish = _Wish(claim, asyncio.get_running_loop().create_future(), refused)
        waiter = Waiter(wish, tenant, priority, meters)
        victim = self._queue.enter(waiter)
        if victim is not None:
            _end(victim.item, f"{self._rules.max_waiting} requests wait already")
        return await self._turn(waiter)

    def tell(self) -> None:
        """Hear that something was given back."""
        if self._queue:
            self._news.set()

    async def _turn(self, waiter: Waiter[_Wish]) -> Taken | Refused:
        wish = waiter.item
        given = wish.given
        began_s = asyncio.get_running_loop().time()
        self._usher = self._usher or asyncio.create_task(self._serve())
        self._news.set()
        try:
            async with asyncio.timeout(self._rules.max_wait):
                return await asyncio.shield(given)
        except TimeoutError:
            _end(wish, f"it waited {self._rules.max_wait:g} s for its turn")
            return given.result()
        except BaseException:
            if given.done() and not given.exception():
                self._give_back(wish.claim, given.result())
            raise
        finally:
            self._queue.leave(waiter)
            self._note(given, began_s)
            given.cancel()

    def _note(self, given: _Future, began_s: float) -> None:
        """Count how long somebody has waited, and what for: a turn, a refusal, or nothing."""
        waited_s = asyncio.get_running_loop().time() - began_s
        has_result = given.done() and not given.cancelled() and given.exception() is None
        outcome = "gone"
        if has_result:
            outcome = "admitted" if isinstance(given.result(), Taken) else "refused"
        self.waits.add((outcome,), bisect_left(WAITS_S, waited_s), 1, waited_s)

    async def _serve(self) -> None:
        """Go round until nobody waits."""
        try:
            while self._queue:
                self._news.clear()
                soonest = await self._round()
                try:
                    async with asyncio.timeout(soonest):
                        await self._news.wait()
                except TimeoutError:
                    pass
        finally:
            self._usher = None

    async def _round(self) -> float:
        """Ask for everybody who may go in; return when to come again, in seconds."""
        soonest, blocked = _LOOK_AGAIN_S, set[str]()
        while (waiter := self._queue.first(blocked)) is not None:
            wish = waiter.item
            given = wish.given
            try:
                result = await self._ask(wish.claim)
            except GatewayError as exc:
                self._queue.leave(waiter)
                if not given.done():
                    given.set_exception(exc)
                continue
            if isinstance(result, Refused) and self._may_wait_for(result):
                wish.refused = result
                blocked.add(result.meter.id)
                soonest = min(soonest, result.wait_s or _LOOK_AGAIN_S)
                continue
            self._queue.serve(waiter)
            if given.done():  # it has left meanwhile
                self._give_back(wish.claim, result)
            else:
                given.set_result(result)
        return soonest

    def _may_wait_for(self, refused: Refused) -> bool:
        """Return whether waiting may help: money and what takes too long are refused at once."""
        if isinstance(refused.meter, Purse):
            return False
        return refused.wait_s is None or refused.wait_s <= self._rules.max_wait

    def _give_back(self, claim: Claim, result: Taken | Refused) -> None:
        if isinstance(result, Taken):
            (result.settler or self._settler).settle(claim, tokens=0, nano_usd=0)
            self.tell()


def _end(wish: _Wish, note: str) -> None:
    """Refuse what was not granted in its time."""
    if not wish.given.done():
        refused = wish.refused or Refused(_first(wish.claim), 1.0)
        wish.given.set_result(replace(refused, note=note))


def _first(claim: Claim) -> Pace | Room:
    return claim.rooms[0] if claim.rooms else claim.paces[0][0]
