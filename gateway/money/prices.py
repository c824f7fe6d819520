"""The prices of a policy's models, from whoever states them.

In this order: what the policy writes itself, the file it names, the list prices
of genai-prices. A price nobody states is refused, unless the policy says
`price: unknown_is_free`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path

from gateway.money.errors import PriceError, UnknownPrice
from gateway.money.price import Price, cost, from_nano, to_nano
from gateway.money.price_files import (
    ANTHROPIC,
    AS_INPUT,
    PriceFile,
    amounts_of,
    lacking,
    price_from,
    read_price_file,
)
from gateway.money.price_table import listed, listed_context
from gateway.providers.messages.models import Traits, traits_of
from policies import schema
from policies.schema import Model, Policy
from router.types import Capabilities

__all__ = [
    "Price",
    "PriceBook",
    "PriceError",
    "UnknownPrice",
    "capabilities_of",
    "cost",
    "from_nano",
    "price_of",
    "resolve_prices",
    "to_nano",
]


_SHOW_ALL = ("local", "recorded")
"""Providers of ours: what their models think is part of what they say."""


@dataclass(frozen=True, slots=True)
class PriceBook:
    """The prices of a policy's models at one moment.

    `valid_until` is when a dated price changes next, None when none does: then
    resolve again.
    """

    prices: Mapping[str, Price]
    valid_until: datetime | None = None

    def for_model(self, name: str) -> Price:
        """Return a model's price. Raises UnknownPrice."""
        try:
            return self.prices[name]
        except KeyError:
            known = ", ".join(sorted(self.prices)) or "none"
            raise UnknownPrice(
                f"expected a model of the policy, found {name!r} (priced: {known})"
            ) from None


def resolve_prices(policy: Policy, at: datetime) -> PriceBook:
    """Find the price of every model as of `at`.

    Raises UnknownPrice naming every model without one and what to write, and
    PriceError for a price file that cannot be read.
    """
    files: dict[Path, PriceFile] = {}

    def read(path: Path) -> PriceFile:
        if path not in files:
            files[path] = read_price_file(path)
        return files[path]

    found: dict[str, _Found] = {}
    unknown: list[str] = []
    for name, model in policy.models.items():
        try:
            found[name] = _resolve(name, model, at, read)
        except UnknownPrice as exc:
            unknown.append(f"models.{name}: {exc}")
    if unknown:
        raise UnknownPrice("; ".join(unknown))
    changes = [one.valid_until for one in found.values() if one.valid_until]
    prices = {name: one.price for name, one in found.items()}
    return PriceBook(prices, min(changes, default=None))


def price_of(name: str, model: Model, at: datetime) -> Price | None:
    """Return one model's price as of `at`; None where nobody states one that can be read."""
    try:
        return _resolve(name, model, at, read_price_file).price
    except PriceError:
        return None


def capabilities_of(model: Model, name: str | None = None) -> Capabilities:
    """Return what a model can do: as declared, else as the price table or its provider knows.

    `name` is the key in `models`, for a model that does not say what its
    upstream calls it. The table knows context windows only.
    """
    context = model.context
    upstream = model.model or name
    if context is None and upstream:
        context = listed_context(model.provider, model.base_url, upstream)
    told = Capabilities(
        context=context,
        max_output=model.max_output,
        tools=model.tools,
        vision=model.vision,
        json_schema=model.json_schema,
        logprobs=model.logprobs,
        reasoning=model.reasoning if model.provider not in _SHOW_ALL else False,
    )
    if model.provider != "anthropic":
        return told
    return _with_traits(told, traits_of(upstream or ""))


def _with_traits(told: Capabilities, traits: Traits) -> Capabilities:
    """Fill in what Anthropic's models are known to do; none of them tells log-probabilities."""
    is_open = told.json_schema is None
    return replace(
        told,
        max_output=told.max_output or traits.max_output,
        json_schema=traits.has_json_schema if is_open else told.json_schema,
        logprobs=False,
    )


@dataclass(frozen=True, slots=True)
class _Found:
    price: Price
    valid_until: datetime | None = None


def _resolve(name: str, model: Model, at: datetime, read: Callable[[Path], PriceFile]) -> _Found:
    stated = model.price
    if not isinstance(stated, schema.Price):
        return _listed(name, model, at, is_needed=stated is None)
    amounts = amounts_of(stated)
    if not amounts and stated.file is None and not stated.long_prompts:
        found = _listed(name, model, at, is_needed=True)
        return replace(found, price=_on_our_terms(found.price, stated))
    source, dated = "policy", None
    if stated.file is not None:
        file = read(stated.file)
        written = file.amounts_for((model.model or name, name))
        if not written:
            raise UnknownPrice(_not_in_file(model.model or name, stated.file, file))
        source, dated = file.source, file.dated
        amounts = {**written, **amounts}
    if missing := lacking(amounts):
        raise UnknownPrice(f"{missing}; {_WRITE_TOKENS} or {_WRITE_HOUR}")
    return _Found(_on_our_terms(_written(amounts, source, dated, model), stated))


def _listed(name: str, model: Model, at: datetime, *, is_needed: bool) -> _Found:
    upstream = model.model or name
    if entry := listed(model.provider, model.base_url, upstream, at):
        return _Found(entry.price, entry.valid_until)
    if is_needed:
        raise UnknownPrice(_nobody_knows(model, upstream))
    return _Found(Price(source="unknown_is_free", is_unknown=True))


def _written(
    amounts: Mapping[str, Decimal], source: str, dated: date | None, model: Model
) -> Price:
    """Return the price that an operator wrote, at any length of the prompt."""
    habits = ANTHROPIC if model.provider == "anthropic" else AS_INPUT
    assert isinstance(model.price, schema.Price), "only a written price comes here"
    tiers = tuple(
        (long.over_tokens, price_from({**amounts, **amounts_of(long)}, source, dated, habits))
        for long in sorted(model.price.long_prompts, key=lambda long: long.over_tokens)
    )
    return replace(price_from(amounts, source, dated, habits), tiers=tiers)


def _on_our_terms(price: Price, stated: schema.Price) -> Price:
    """Return a price with the multipliers and the discount that the policy states."""
    named = {name: price.times(factor) for name, factor in stated.services.items()}
    # A multiplied price has services of its own, which nobody will ask for.
    price = replace(price, services={**price.services, **named})
    return price.times(1 - stated.discount) if stated.discount else price


_WRITE_TOKENS = "write price: {input_per_mtok_usd: …, output_per_mtok_usd: …}"
_WRITE_HOUR = "price: {machine_hour_usd: …}"


def _nobody_knows(model: Model, upstream: str) -> str:
    write = f"write {_WRITE_HOUR}" if model.provider == "local" else _WRITE_TOKENS
    return (
        f"the price of {upstream!r} from provider {model.provider!r} is not known; "
        f"{write}, price: {{file: …}} or price: unknown_is_free"
    )


def _not_in_file(upstream: str, path: Path, file: PriceFile) -> str:
    near = get_close_matches(upstream, file.amounts, n=1)
    hint = f" (nearest: {near[0]!r})" if near else ""
    return f"{path} has no price for {upstream!r}{hint}; add it there, or {_WRITE_TOKENS}"
