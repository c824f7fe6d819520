"""What is set aside of budgets for requests under way, as far as who is asked knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from gateway.access.stores.memory import MemoryLimits
from gateway.money.databases import reading
from gateway.money.schema import budget_part, budget_process

if TYPE_CHECKING:
    from gateway.access.meters import LimitStore, Purse

Held = Callable[["Purse"], int | None]


def reserved(store: LimitStore | None, shared: str | None, *, workers: int, now_s: float) -> Held:
    """Return what tells the nano-dollars set aside of a purse; None where others hold a part.

    `shared` is the PostgreSQL where all processes say what they hold, if there is one.
    Raises LedgerError.
    """
    if shared is not None:
        parts = _parts(shared, int(now_s * 1e6))
        return lambda purse: parts.get(purse.id, 0)
    if isinstance(store, MemoryLimits) and workers == 1:
        return store.held
    return lambda _: None


def _parts(url: str, now_us: int) -> dict[str, int]:
    """Return what living processes hold, by purse."""
    part, alive = budget_part.c, budget_process.c
    wanted = (
        select(part.budget_id, func.sum(part.held_nano_usd))
        .join(budget_process, alive.name == part.process)
        .where(alive.alive_until_us > now_us)
        .group_by(part.budget_id)
    )
    with reading(url) as connection:
        return {name: int(held) for name, held in connection.execute(wanted)}
