"""Prices that an operator wrote: in the policy itself, or in a JSON file beside it.

A price file is either of

    {"source": "contract 17", "dated": "2026-11-01",
     "models": {"some-model": {"input_per_mtok_usd": 0.30, "output_per_mtok_usd": 0.60}}}

    {"models_usd_per_1M": {"some-model": {"input": 0.30, "output": 0.60}}}

Numbers may be written as strings; they are read as decimals, never as floats.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import policies.schema as schema
from gateway.money.errors import PriceError
from gateway.money.price import Price

_PER_TOKEN = Decimal(1).scaleb(-6)
_SHORT = {"input": "input_per_mtok_usd", "output": "output_per_mtok_usd"}
_NAMES = (*schema.TokenPrices.model_fields, "machine_hour_usd")
_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class PriceFile:
    """A price file as read: amounts by model, as the policy would spell them."""

    amounts: Mapping[str, Mapping[str, Decimal]]
    source: str
    dated: date | None

    def amounts_for(self, names: tuple[str, ...]) -> Mapping[str, Decimal]:
        """Return the amounts of the first of these names that the file knows, else none."""
        return next((self.amounts[name] for name in names if name in self.amounts), {})


def amounts_of(price: schema.TokenPrices) -> dict[str, Decimal]:
    """Return what a policy's price section states, by its own names."""
    stated = {name: getattr(price, name, None) for name in _NAMES}
    return {name: amount for name, amount in stated.items() if amount is not None}


@dataclass(frozen=True, slots=True)
class Habits:
    """What a provider charges for its prompt cache, as shares of its input price."""

    cached: Decimal = Decimal(1)
    write: Decimal = Decimal(1)
    write_1h: Decimal = Decimal(1)


AS_INPUT = Habits()
ANTHROPIC = Habits(Decimal("0.1"), Decimal("1.25"), Decimal(2))


def price_from(
    amounts: Mapping[str, Decimal],
    source: str,
    dated: date | None = None,
    habits: Habits = AS_INPUT,
) -> Price:
    """Make a price: unless stated, cached input and writes follow the provider's habits.

    Whatever else is not stated costs as text of its direction.
    """
    tokens_in = amounts.get("input_per_mtok_usd", Decimal(0)) * _PER_TOKEN
    tokens_out = amounts.get("output_per_mtok_usd", Decimal(0)) * _PER_TOKEN

    def per_token(name: str, otherwise: Decimal) -> Decimal:
        amount = amounts.get(name)
        return otherwise if amount is None else amount * _PER_TOKEN

    return Price(
        input=tokens_in,
        cached_input=per_token("cached_input_per_mtok_usd", tokens_in * habits.cached),
        cache_write=per_token("cache_write_per_mtok_usd", tokens_in * habits.write),
        cache_write_1h=per_token("cache_write_1h_per_mtok_usd", tokens_in * habits.write_1h),
        output=tokens_out,
        reasoning=per_token("reasoning_per_mtok_usd", tokens_out),
        audio=per_token("audio_per_mtok_usd", tokens_in),
        audio_output=per_token("audio_output_per_mtok_usd", tokens_out),
        image=per_token("image_per_mtok_usd", tokens_in),
        machine_hour_usd=amounts.get("machine_hour_usd", Decimal(0)),
        source=source,
        dated=dated,
    )


def lacking(amounts: Mapping[str, Decimal]) -> str | None:
    """Return what these amounts lack to be a price, or None when they are one."""
    if not amounts:
        return "no price"
    has_hour = "machine_hour_usd" in amounts
    missing = [name for name in _SHORT.values() if name not in amounts]
    if not missing or (has_hour and len(amounts) == 1):
        return None
    return f"no {' and no '.join(missing)}"


def read_price_file(path: Path) -> PriceFile:
    """Read a price file. Raises PriceError saying which entry is wrong and how."""
    try:
        document = json.loads(
            path.read_bytes(), parse_float=Decimal, parse_constant=_refuse_constant
        )
    except OSError as exc:
        raise PriceError(f"price file {path}: cannot be read: {exc.strerror}") from exc
    except (ValueError, RecursionError) as exc:
        raise PriceError(f"price file {path}: expected JSON: {exc}") from exc
    try:
        return _from_document(document, path.name)
    except PriceError as exc:
        raise PriceError(f"price file {path}: {exc}") from exc


def _refuse_constant(text: str) -> object:
    raise ValueError(f"{text} is no price")


def _from_document(document: object, name: str) -> PriceFile:
    if not isinstance(document, dict):
        raise PriceError('expected an object with "models" or "models_usd_per_1M"')
    amounts: dict[str, Mapping[str, Decimal]] = {}
    for member, rename in (("models_usd_per_1M", _SHORT), ("models", {n: n for n in _NAMES})):
        table = document.get(member, {})
        if not isinstance(table, dict):
            raise PriceError(f"{member}: expected an object of models")
        for model, row in table.items():
            amounts[model] = _amounts(row, rename, f"{member}.{model}")
    if not amounts:
        raise PriceError('expected prices under "models" or "models_usd_per_1M", found none')
    source = document.get("source")
    return PriceFile(amounts, source if isinstance(source, str) else name, _dated(document))


def _amounts(row: object, rename: Mapping[str, str], where: str) -> Mapping[str, Decimal]:
    if not isinstance(row, dict):
        raise PriceError(f"{where}: expected an object, found {type(row).__name__}")
    unknown = set(row) - set(rename) - {"source"}
    if unknown:
        raise PriceError(
            f"{where}: unknown {', '.join(sorted(unknown))} (known: {', '.join(rename)})"
        )
    return {
        rename[name]: _amount(value, f"{where}.{name}")
        for name, value in row.items()
        if name in rename and value is not None
    }


def _amount(value: Any, where: str) -> Decimal:
    try:
        amount = Decimal(value) if type(value) in (int, str, Decimal) else Decimal("nan")
    except InvalidOperation:
        amount = Decimal("nan")
    if not (amount.is_finite() and 0 <= amount <= _MOST):
        raise PriceError(f"{where}: expected dollars from 0 to {_MOST}, found {value!r}")
    return amount


def _dated(document: Mapping[str, Any]) -> date | None:
    stated = document.get("dated")
    if stated is None:
        return None
    try:
        return date.fromisoformat(stated)
    except (TypeError, ValueError):
        raise PriceError(f"dated: expected a date such as 2026-11-01, found {stated!r}") from None
