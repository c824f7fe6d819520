"""What is limited, and what a request takes of it: the words of admission and its stores."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Literal, Protocol, runtime_checkable

from msgspec import Struct

from gateway.access.gcra import Level
from policies.limits import DefaultLimits

Unit = Literal["requests", "tokens"]
AtLimit = Literal["refuse", "cheapest", "warn"]
Scope = tuple[Literal["key", "tenant", "route", "model", "tag"], str]
"""Whose a limit is: a kind and a name."""


class Pace(Struct, frozen=True, gc=False):
    """So many requests or tokens per minute; `whose` names the limit to people."""

    id: str
    whose: str
    unit: Unit
    per_minute: int


class Room(Struct, frozen=True, gc=False):
    """So many requests at once."""

    id: str
    whose: str
    size: int


class Purse(Struct, frozen=True, gc=False):
    """So many nano-dollars in one window. One that is not `hard` is counted and never refuses.

    `scope` is whose spending counts, `account` the budget whatever its window;
    `start` and `end` bound the window, in seconds since the epoch.
    """

    id: str
    account: str
    scope: Scope
    whose: str
    nano_usd: int
    at_limit: AtLimit
    hard: bool
    start: float
    end: float


class Claim(Struct, frozen=True, gc=False):
    """All that one request takes, at once or not at all: meters and amounts."""

    paces: tuple[tuple[Pace, int], ...] = ()
    rooms: tuple[Room, ...] = ()
    purses: tuple[tuple[Purse, int], ...] = ()


NOTHING = Claim()


class Settler(Protocol):
    """Who is told what became of a claim."""

    def settle(self, claim: Claim, *, tokens: int, nano_usd: int) -> None:
        """Say what a claim that was taken came to; what it reserved is given back."""
        ...


class Taken(Struct, frozen=True, gc=False):
    """A claim was granted; `levels` go with its paces, `over` are soft purses past their sum.

    `spent` goes with its purses, where the store knows: nano-dollars before this claim.
    `settler` is who must be told of its end, where that is not the store itself.
    """

    levels: tuple[Level, ...] = ()
    over: tuple[Purse, ...] = ()
    settler: Settler | None = None
    spent: tuple[int, ...] = ()


class Refused(Struct, frozen=True, gc=False):
    """A claim was not granted, and nothing of it taken.

    `wait_s` is how long until it could be, infinite where no time will help,
    None where that depends on others. `note` is what else there is to say.
    """

    meter: Pace | Room | Purse
    wait_s: float | None
    levels: tuple[Level, ...] = ()
    note: str = ""


class Unseeded(Struct, frozen=True, gc=False):
    """A claim cannot be decided before these purses were given what is spent of them."""

    purses: tuple[Purse, ...]


class StoreAway(Exception):
    """The store that several processes share cannot be asked now."""


class LimitStore(Settler, Protocol):
    """Where meters are kept: the extension point `limit store`."""

    @property
    def is_immediate(self) -> bool:
        """Return whether nobody is waited for: all is in this process's memory."""
        ...

    def take(self, claim: Claim) -> Awaitable[Taken | Refused | Unseeded]:
        """Take all of a claim or nothing. Raises StoreAway."""
        ...

    def seed(self, purse: Purse, nano_usd: int) -> Awaitable[None]:
        """Say what is spent of a purse, where the store does not know it."""
        ...

    def follow(self, rules: DefaultLimits) -> None:
        """Follow what another policy says of the store's absence."""
        ...


@runtime_checkable
class NearStore(LimitStore, Protocol):
    """A store all of which is in this process's memory: it is asked without waiting."""

    def take_now(self, claim: Claim) -> Taken | Refused | Unseeded:
        """Take all of a claim or nothing."""
        ...
