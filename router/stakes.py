"""What a conversation stakes on each model: the price of asking it, less what its cache saves.

A model that has read the conversation reads it again for less, as long as it
has it cached. Where going back to it costs no more than asking a cheaper tier
that would have to read everything, the conversation stays: the operator's order
of the tiers says that the later one is no worse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stake:
    """What a call is expected to cost with nothing cached, and what a warm prefix takes off it.

    Both in dollars; what is taken off is what leaving this model would forfeit.
    """

    usd: float
    forfeit_usd: float = 0.0

    @property
    def net_usd(self) -> float:
        """Return what the call is expected to cost as things stand."""
        return self.usd - self.forfeit_usd


Stakes = Mapping[str, Stake]
"""By model; empty where nothing is warm, and then nobody's choice depends on it."""
NO_STAKES: Stakes = {}


@dataclass(frozen=True, slots=True)
class Staying:
    """Tiers in the order to ask them in: those that stay, then those it does not pay to go to.

    `reason` is for the ledger, and empty where every tier stays.
    """

    tiers: tuple[str, ...]
    left: tuple[str, ...] = ()
    reason: str = ""


def stay(tiers: Sequence[str], stakes: Stakes) -> Staying:
    """Set aside every tier that saves no more than a warm prefix at a later one is worth."""
    kept, left, reason = [], [], ""
    for place, tier in enumerate(tiers):
        home = _dearest_to_leave(tiers[place + 1 :], stakes)
        if home is None or tier not in stakes or not _forfeits_more(stakes[tier], stakes[home]):
            kept.append(tier)
        else:
            left.append(tier)
            reason = reason or why_stay(home, stakes[home], tier, stakes[tier])
    return Staying(tuple(kept), tuple(left), reason)


def why_stay(home: str, warm: Stake, other: str, stake: Stake) -> str:
    """Return in words what weighed when a conversation stayed on its model."""
    forfeit, saved = warm.forfeit_usd - stake.forfeit_usd, warm.usd - stake.usd
    return (
        f"stays on {home}: leaving forfeits ${forfeit:.6f} of cached prompt, "
        f"{other} would save ${saved:.6f}"
    )


def _dearest_to_leave(models: Sequence[str], stakes: Stakes) -> str | None:
    """Return the cheapest to go back to, of the models that have something cached."""
    warm = [name for name in models if name in stakes and stakes[name].forfeit_usd > 0]
    return min(warm, key=lambda name: stakes[name].net_usd, default=None)


def _forfeits_more(other: Stake, home: Stake) -> bool:
    return home.net_usd <= other.net_usd
