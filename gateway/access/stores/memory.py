"""Limits of one process: plain dictionaries, decided between two awaits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter

from gateway.access.gcra import Level, granted, level, taken, wait_for
from gateway.access.meters import Claim, Purse, Refused, Room, Taken, Unseeded
from policies.limits import DefaultLimits

_NOT_IN_THIS_WINDOW = float("inf")


class _Sum:
    """What was given out of a purse, and what is set aside for requests under way."""

    __slots__ = ("held", "spent")

    def __init__(self, spent: int) -> None:
        self.spent = spent
        self.held = 0


class MemoryLimits:
    """Keeps every meter in memory. `tick` is monotonic seconds."""

    is_immediate = True

    def __init__(self, tick: Callable[[], float]) -> None:
        self._tick = tick
        self._full_at: dict[str, float] = {}
        self._inside: dict[str, int] = {}
        self._sums: dict[str, _Sum] = {}
        self._windows: dict[str, str] = {}

    async def take(self, claim: Claim) -> Taken | Refused | Unseeded:
        """Take all of a claim or nothing."""
        return self.take_now(claim)

    def take_now(self, claim: Claim) -> Taken | Refused | Unseeded:
        """Take all of a claim or nothing, without being awaited."""
        sums: list[_Sum] = []
        has_room = True
        for purse, amount in claim.purses:
            found = self._sums.get(purse.id)
            if found is None:
                return self._unseeded(claim)
            sums.append(found)
            if purse.hard and found.spent + found.held + amount > purse.nano_usd:
                has_room = False
        inside = self._inside
        for room in claim.rooms:
            if inside.get(room.id, 0) >= room.size:
                has_room = False
        now = self._tick()
        levels = self._granted(claim, now) if has_room else None
        if levels is None:
            return self._refusal(claim, now)
        full_at = self._full_at
        for (pace, _), at in zip(claim.paces, levels, strict=True):
            full_at[pace.id] = now + at.reset_s
        for room in claim.rooms:
            inside[room.id] = inside.get(room.id, 0) + 1
        if not sums:
            return Taken(levels)
        over, spent = _held(claim, sums)
        return Taken(levels, over, None, spent)

    def _granted(self, claim: Claim, now: float) -> tuple[Level, ...] | None:
        """Return how the paces of a claim would stand, or None where one of them refuses."""
        full_at = self._full_at
        levels: list[Level] = []
        for pace, amount in claim.paces:
            at = granted(full_at.get(pace.id, now), amount, pace.per_minute, now)
            if at is None:
                return None
            levels.append(at)
        return tuple(levels)

    def _unseeded(self, claim: Claim) -> Unseeded:
        return Unseeded(tuple([each for each, _ in claim.purses if each.id not in self._sums]))

    async def seed(self, purse: Purse, nano_usd: int) -> None:
        """Open a purse of which so much is spent, unless it is open already."""
        if purse.id not in self._sums:
            self._forget_before(purse)
            self._sums[purse.id] = _Sum(nano_usd)

    def settle(self, claim: Claim, *, tokens: int, nano_usd: int) -> None:
        """Give back what was reserved and count what was used."""
        now = self._tick()
        full_at = self._full_at
        for pace, amount in claim.paces:
            if pace.unit == "tokens" and tokens != amount:
                before = full_at.get(pace.id, now)
                full_at[pace.id] = taken(before, tokens - amount, pace.per_minute, now)
        inside = self._inside
        for room in claim.rooms:
            left = inside.get(room.id, 0) - 1
            if left > 0:
                inside[room.id] = left
            else:
                inside.pop(room.id, None)
        for purse, amount in claim.purses:
            found = self._sums.get(purse.id)
            if found is None:
                continue  # its window is over, and nothing was held of it
            found.held -= amount
            found.spent += nano_usd
            if not found.held and self._windows.get(purse.account) != purse.id:
                del self._sums[purse.id]

    def follow(self, rules: DefaultLimits) -> None:
        """Memory is never away."""

    def used(self, purse: Purse) -> tuple[int, int]:
        """Return what is spent of a purse and what is held, in nano-dollars."""
        found = self._sums[purse.id]
        return found.spent, found.held

    def held(self, purse: Purse) -> int:
        """Return what is set aside of a purse, in nano-dollars; nothing of one never asked for."""
        found = self._sums.get(purse.id)
        return found.held if found is not None else 0

    def levels(self, claim: Claim) -> tuple[Level, ...]:
        """Return how a claim's paces stand, without taking anything."""
        return self._levels(claim, self._tick())

    def inside(self, room: Room) -> int:
        """Return how many requests are in a room."""
        return self._inside.get(room.id, 0)

    def _refusal(self, claim: Claim, now: float) -> Refused:
        """Return the meter that refuses, as one does; of paces the one to wait for longest."""
        for purse, amount in claim.purses:
            if purse.hard and not self._fits(purse, amount):
                return Refused(purse, self._wait_of(purse, amount), self._levels(claim, now))
        for room in claim.rooms:
            if self._inside.get(room.id, 0) >= room.size:
                return Refused(room, None, self._levels(claim, now))
        full_at = self._full_at
        waits = [
            (wait_for(full_at.get(pace.id, now), amount, pace.per_minute, now), pace)
            for pace, amount in claim.paces
        ]
        longest, worst = max(waits, key=itemgetter(0))
        return Refused(worst, longest, self._levels(claim, now))

    def _fits(self, purse: Purse, amount: int) -> bool:
        found = self._sums[purse.id]
        return found.spent + found.held + amount <= purse.nano_usd

    def _wait_of(self, purse: Purse, amount: int) -> float | None:
        """Return None where requests under way may leave enough, else infinity."""
        is_held = self._sums[purse.id].spent + amount <= purse.nano_usd
        return None if is_held else _NOT_IN_THIS_WINDOW

    def _forget_before(self, purse: Purse) -> None:
        """Drop the account's last window, once nothing of it is under way."""
        earlier = self._windows.get(purse.account)
        if earlier is not None and earlier in self._sums and not self._sums[earlier].held:
            del self._sums[earlier]
        self._windows[purse.account] = purse.id

    def _levels(self, claim: Claim, now: float) -> tuple[Level, ...]:
        full_at = self._full_at
        return tuple(
            [level(full_at.get(pace.id, now), pace.per_minute, now) for pace, _ in claim.paces]
        )


def _held(claim: Claim, sums: Sequence[_Sum]) -> tuple[tuple[Purse, ...], tuple[int, ...]]:
    """Set a claim's money aside; return the soft purses that are past their sum, and what is spent.

    What is spent goes with the purses of the claim.
    """
    over: list[Purse] = []
    spent: list[int] = []
    for (purse, amount), found in zip(claim.purses, sums, strict=True):
        found.held += amount
        spent.append(found.spent)
        if not purse.hard and found.spent + found.held > purse.nano_usd:
            over.append(purse)
    return tuple(over), tuple(spent)
