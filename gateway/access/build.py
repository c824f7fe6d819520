"""Admission as a policy asks for it; none where nothing is limited."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.access.accounts import Accounts, has_limits
from gateway.access.admission import Admission
from gateway.access.spent import LedgerSpending
from gateway.access.stores.memory import MemoryLimits
from gateway.access.worst_case import WorstCase
from gateway.money.prices import PriceBook, capabilities_of
from policies.schema import Policy

if TYPE_CHECKING:
    from gateway.entry import Clock


def admission_of(
    policy: Policy, prices: PriceBook, clock: Clock, ledger_url: str
) -> Admission | None:
    """Build the admission of a policy."""
    if not has_limits(policy):
        return None
    capabilities = {name: capabilities_of(model, name) for name, model in policy.models.items()}
    return Admission(
        Accounts(policy),
        MemoryLimits(clock.tick),
        WorstCase(prices, capabilities),
        capabilities,
        clock,
        LedgerSpending(ledger_url, since=clock.wall()),
    )
