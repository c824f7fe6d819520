"""What a conversation forfeits when it leaves a model, or a server, that has its prompt cached."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from hashlib import blake2b
from typing import Any

import msgspec

from gateway.money.prices import PriceBook

SURE_S = 300.0
"""Seconds that providers keep a prompt at least; most forget it within twice that."""
LEAST_BYTES = 4_096
"""About the 1,024 tokens below which hardly any provider caches a prompt."""
_MOST = 8_192
_encode = msgspec.json.Encoder(order="sorted").encode


@dataclass(frozen=True, slots=True)
class Warm:
    """A prefix that a place has read: its length in tokens, and the chance it is still there."""

    tokens: int
    warmth: float


def forfeit_usd(tokens: int, model: str, prices: PriceBook, warmth: float) -> Decimal:
    """Return what asking elsewhere costs in lost cache reads, in dollars.

    `tokens` is the length of the prefix that `model` has read, `warmth` the
    chance that it is still cached. Raises UnknownPrice for a model without a price.
    """
    price = prices.for_model(model).at(tokens)
    lost = max(price.input - price.cached_input, Decimal(0))
    return lost * tokens * Decimal(repr(warmth))


class WarmPrefixes:
    """A bounded memory of which places have read which conversations.

    A place is whatever may be left: a model, or one deployment of it. `now` is in
    seconds, from any clock that does not go back.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._read: OrderedDict[bytes, dict[str, tuple[float, int]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._read)

    def note(
        self, tenant: str, body: Mapping[str, Any], place: str, tokens: int, now: float
    ) -> None:
        """Remember that a place has read a whole prompt of so many tokens."""
        *_, digest = _digests(tenant, body)
        self._read.setdefault(digest, {})[place] = (now, tokens)
        self._read.move_to_end(digest)
        while len(self._read) > self._most:
            self._read.popitem(last=False)

    def where(self, tenant: str, body: Mapping[str, Any], now: float) -> dict[str, Warm]:
        """Return the places that have read a beginning of this prompt, each with the longest."""
        found: dict[str, Warm] = {}
        for digest in _digests(tenant, body):
            for place, (at, tokens) in self._read.get(digest, {}).items():
                if (warmth := warmth_after(now - at)) > 0:
                    found[place] = Warm(tokens, warmth)
        return found


def guess_prompt(body: Mapping[str, Any]) -> int | None:
    """Return about how many tokens the words of a prompt have; None where too few to be cached."""
    size = 0
    for message in body.get("messages", ()):
        content = message.get("content")
        if isinstance(content, str):
            size += len(content)
        elif isinstance(content, list):
            size += sum(len(part.get("text") or "") for part in content)
    return size // 4 if size >= LEAST_BYTES else None


def warmth_after(seconds: float) -> float:
    """Return the chance that a prefix is still cached so long after it was read."""
    return min(1.0, max(0.0, 2.0 - seconds / SURE_S))


def _digests(tenant: str, body: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield a digest for every beginning of a prompt that ends with a message, shortest first."""
    digest = blake2b(tenant.encode(), digest_size=16)
    digest.update(_encode(body.get("tools")))
    messages: Sequence[Any] = body["messages"]
    for message in messages:
        digest.update(_encode(message))
        yield digest.copy().digest()
