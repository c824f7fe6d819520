"""List prices and context windows from genai-prices, as of the snapshot it ships with.

The package is imported on first use: it holds some 1.5 MB of data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from gateway.money.price import Price

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

_PER_TOKEN = Decimal(1).scaleb(-6)
_UNPRICED = ("local", "recorded")
_WAYS = ("service_tier", "processing", "speed")
_LISTED = {
    "input": ("input_mtok",),
    "cached_input": ("cache_read_mtok", "input_mtok"),
    "cache_write": ("cache_write_mtok", "input_mtok"),
    "cache_write_1h": ("cache_write_1h_mtok", "cache_write_mtok", "input_mtok"),
    "output": ("output_mtok",),
    "reasoning": ("output_reasoning_mtok", "output_mtok"),
    "audio": ("input_audio_mtok", "input_mtok"),
    "audio_output": ("output_audio_mtok", "output_mtok"),
    "image": ("input_image_mtok", "input_mtok"),
}


@dataclass(frozen=True, slots=True)
class Listed:
    """A model as the table knows it: its price at a moment, and until when that holds."""

    price: Price
    context: int | None
    valid_until: datetime | None


def listed(provider: str, base_url: str | None, model: str, at: datetime) -> Listed | None:
    """Look a model up by its upstream's address, else by its provider; None when unknown."""
    info = _find(provider, base_url, model)
    if info is None:
        return None
    price = _price(info.get_prices(at), at)
    if price is None:
        return None
    price = replace(price, services=_services(info, at))
    return Listed(price, info.context_window, _next_change(info, at))


def listed_context(provider: str, base_url: str | None, model: str) -> int | None:
    """Return the context window that the table knows, in tokens."""
    info = _find(provider, base_url, model)
    return info.context_window if info else None


def price_table(at: datetime) -> Iterator[tuple[str, str, Price]]:
    """Yield every seller, model and price of the table, where the price is one by the token."""
    from genai_prices.data_snapshot import get_snapshot

    for seller in get_snapshot().providers:
        for model in seller.models:
            if (price := _price(model.get_prices(at), at)) is not None:
                yield seller.id, model.id, price


def sellers() -> frozenset[str]:
    """Return the providers that the table knows."""
    from genai_prices.data_snapshot import get_snapshot

    return frozenset(seller.id for seller in get_snapshot().providers)


@lru_cache(maxsize=8)
def snapshot_date(at: datetime) -> date | None:
    """Return the newest dated change in the table up to `at`: the table is at least that new.

    The package states no date of its own.
    """
    from genai_prices.data_snapshot import get_snapshot
    from genai_prices.types import StartDateConstraint

    starts = (
        dated.constraint.start_date
        for provider in get_snapshot().providers
        for model in provider.models
        for dated in (model.prices if isinstance(model.prices, list) else ())
        if isinstance(dated.constraint, StartDateConstraint)
    )
    return max((start for start in starts if start <= at.date()), default=None)


def _find(provider: str, base_url: str | None, model: str) -> ModelInfo | None:
    if provider in _UNPRICED:
        return None
    from genai_prices.data_snapshot import get_snapshot

    snapshot = get_snapshot()
    try:
        seller = snapshot.find_provider(None, None, base_url) if base_url else None
    except LookupError:
        seller = None
    try:
        return snapshot.find_provider_model(model, seller, provider, None)[1]
    except LookupError:
        return None


def _price(listed: ModelPrice, at: datetime) -> Price | None:
    """Translate a listed price; None where tokens are not what is charged for."""
    if listed.input_mtok is None and listed.output_mtok is None:
        return None
    source, dated = _source(), snapshot_date(at)
    thresholds = sorted({start for name in _LISTED for start in _starts(listed, name)})
    tiers = tuple((start, _flat(listed, start, source, dated)) for start in thresholds)
    base = _flat(listed, None, source, dated)
    return replace(base, tiers=tiers)


def _services(info: ModelInfo, at: datetime) -> dict[str, Price]:
    """Return the prices of the service tiers that the model is listed with."""
    found: dict[str, Price] = {}
    for variant in info.price_variants or ():
        for way, name in variant.when.items():
            if way in _WAYS and name != "default":
                price = _price(info.get_prices(at, {way: name}), at)
                if price is not None:
                    found[name] = price
    return found


@lru_cache(maxsize=1)
def _source() -> str:
    return f"genai-prices {version('genai-prices')}"


def _starts(listed: ModelPrice, bucket: str) -> Iterator[int]:
    amount = getattr(listed, _LISTED[bucket][0])
    for tier in getattr(amount, "tiers", ()):
        yield tier.start


def _flat(listed: ModelPrice, above: int | None, source: str, dated: date | None) -> Price:
    """Return the price of a prompt longer than `above` tokens, or of a short one."""

    def amount(bucket: str) -> Decimal:
        return _amount(listed, _LISTED[bucket], above)

    return Price(
        input=amount("input"),
        cached_input=amount("cached_input"),
        cache_write=amount("cache_write"),
        cache_write_1h=amount("cache_write_1h"),
        output=amount("output"),
        reasoning=amount("reasoning"),
        audio=amount("audio"),
        audio_output=amount("audio_output"),
        image=amount("image"),
        per_call=_flat_amount(listed.requests_kcount) / 1000,
        source=source,
        dated=dated,
    )


def _amount(listed: ModelPrice, names: tuple[str, ...], above: int | None) -> Decimal:
    amount = next((a for name in names if (a := getattr(listed, name)) is not None), Decimal(0))
    if isinstance(amount, Decimal):
        return amount * _PER_TOKEN
    reached = [t.price for t in amount.tiers if above is not None and t.start <= above]
    return Decimal(reached[-1] if reached else amount.base) * _PER_TOKEN


def _flat_amount(amount: Decimal | TieredPrices | None) -> Decimal:
    if amount is None:
        return Decimal(0)
    return amount if isinstance(amount, Decimal) else amount.base


def _next_change(info: ModelInfo, at: datetime) -> datetime | None:
    """Return when this model's listed price changes next: at a date, or by the hour of the day."""
    from genai_prices.types import StartDateConstraint, TimeOfDateConstraint

    moments: list[datetime] = []
    listed = info.prices if isinstance(info.prices, list) else []
    for dated in (*listed, *(info.price_variants or ())):
        match dated.constraint:
            case StartDateConstraint(start_date=start):
                moments.append(datetime.combine(start, time(), UTC))
            case TimeOfDateConstraint(start_time=start_time, end_time=end_time):
                moments += [_next(start_time, at), _next(end_time, at)]
    return min((moment for moment in moments if moment > at), default=None)


def _next(clock: time, at: datetime) -> datetime:
    today = datetime.combine(at.date(), clock, clock.tzinfo or UTC).astimezone(UTC)
    return today if today > at else today + timedelta(days=1)
