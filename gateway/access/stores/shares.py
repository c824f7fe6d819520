"""What one process has of budgets that others share: decided here, kept elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from gateway.access.meters import Claim, Purse, Refused, Taken, Unseeded

_NOT_IN_THIS_WINDOW = float("inf")


class Totals(Struct, frozen=True, gc=False):
    """What all other processes have spent of a purse, and what the living ones hold."""

    spent: int = 0
    held: int = 0


_NONE = Totals()


class Share:
    """What this process holds and has spent of a purse, and what it has told of that."""

    __slots__ = ("held", "is_seeded", "purse", "spent", "told")

    def __init__(self, purse: Purse) -> None:
        self.purse = purse
        self.held = 0
        self.spent = 0
        self.told = (0, 0)
        self.is_seeded = False

    @property
    def now(self) -> tuple[int, int]:
        """Return what is held and what is spent."""
        return self.held, self.spent

    @property
    def is_changed(self) -> bool:
        """Return whether the others do not know yet how it stands."""
        return self.told != (self.held, self.spent)


def decide(
    shares: Mapping[str, Share], totals: Mapping[str, Totals], claim: Claim
) -> Taken | Refused | Unseeded:
    """Set aside all that a claim asks of its purses, or nothing; rates and rooms are not looked at.

    `totals` are those of the others, and must not change until the shares were told.
    """
    unknown = [purse for purse, _ in claim.purses if not shares[purse.id].is_seeded]
    if unknown:
        return Unseeded(tuple(unknown))
    over: list[Purse] = []
    known: list[int] = []
    for purse, amount in claim.purses:
        share, others = shares[purse.id], totals.get(purse.id, _NONE)
        spent = others.spent + share.spent
        known.append(spent)
        if spent + others.held + share.held + amount <= purse.nano_usd:
            continue
        if purse.hard:
            may_come = spent + amount <= purse.nano_usd
            return Refused(purse, None if may_come else _NOT_IN_THIS_WINDOW)
        over.append(purse)
    for purse, amount in claim.purses:
        shares[purse.id].held += amount
    return Taken((), tuple(over), spent=tuple(known))


def release(shares: Mapping[str, Share], claim: Claim, nano_usd: int) -> None:
    """Give back what a claim holds, and count what was spent instead."""
    for purse, amount in claim.purses:
        share = shares[purse.id]
        share.held -= amount
        share.spent += nano_usd
