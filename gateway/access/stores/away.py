"""What limits are worth while the store that several processes share cannot be asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec.structs import replace

from gateway.access.meters import Claim, Pace, Refused, StoreAway, Taken, Unseeded
from gateway.access.stores.memory import MemoryLimits

WithoutRedis = Literal["open", "closed", "local"]
NoteSpent = Callable[[Claim, int], None]
"""Keeps in mind what was spent of a claim's purses, in nano-dollars."""


class Away:
    """What is granted without Redis: rates as the rule says, and nothing of a hard purse."""

    def __init__(
        self, memory: MemoryLimits, rule: WithoutRedis, share: float, note_spent: NoteSpent
    ) -> None:
        self._note_spent = note_spent
        self._memory = memory
        self._rule = rule
        self._share = share

    def take(self, claim: Claim) -> Taken | Refused | Unseeded:
        """Take what may be taken. Raises StoreAway."""
        for purse, _ in claim.purses:
            if purse.hard:
                if purse.at_limit == "cheapest":
                    return Refused(purse, None)
                raise StoreAway(f"Redis is away, and with it {purse.whose}")
        if self._rule == "closed" and (claim.paces or claim.rooms):
            raise StoreAway("Redis is away, and with it the limits")
        result = self._memory.take_now(self._scaled(claim))
        return replace(result, settler=self) if isinstance(result, Taken) else result

    def settle(self, claim: Claim, *, tokens: int, nano_usd: int) -> None:
        """Give back what was reserved and count what was used."""
        self._memory.settle(self._scaled(claim), tokens=tokens, nano_usd=nano_usd)
        self._note_spent(claim, nano_usd)

    def _scaled(self, claim: Claim) -> Claim:
        """Return this process' share of the claim's paces and rooms."""
        if self._rule == "open":
            return Claim()
        paces = [(self._pace(pace), amount) for pace, amount in claim.paces]
        return Claim(
            tuple((pace, min(amount, pace.per_minute)) for pace, amount in paces),
            tuple(replace(room, size=max(1, int(room.size * self._share))) for room in claim.rooms),
        )

    def _pace(self, pace: Pace) -> Pace:
        return replace(pace, per_minute=max(1, int(pace.per_minute * self._share)))
