"""Which deployment a conversation belongs to: the one that has its prompt cached."""

from __future__ import annotations

from decimal import Decimal

from gateway.money.prices import Price, PriceBook
from gateway.money.warmth import WarmPrefixes, forfeit_usd, guess_prompt
from gateway.wire import ProviderCall

_MODEL = "model"


class Homes:
    """Remembers who has read which conversation, where `price` makes reading it again cheaper."""

    def __init__(self, price: Price) -> None:
        self._prices = PriceBook({_MODEL: price})
        self._read = WarmPrefixes()

    def of(self, call: ProviderCall, now: float) -> str | None:
        """Return the deployment that is dearest to leave; None where leaving costs nothing.

        The others cost the same, so a switch saves no money: any forfeit is more.
        """
        if guess_prompt(call.body) is None:
            return None
        forfeits = {
            place: forfeit_usd(warm.tokens, _MODEL, self._prices, warm.warmth)
            for place, warm in self._read.where(call.tenant, call.body, now).items()
        }
        dearest = max(forfeits, key=lambda place: forfeits[place], default=None)
        return dearest if dearest is not None and forfeits[dearest] > Decimal(0) else None

    def note(self, call: ProviderCall, deployment: str, now: float) -> None:
        """Remember that a deployment has read a call's prompt."""
        if (tokens := guess_prompt(call.body)) is not None:
            self._read.note(call.tenant, call.body, deployment, tokens, now)
