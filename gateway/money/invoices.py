"""A provider's invoice, or its usage export, as lines of one model and day.

What is understood, as JSON or CSV (each name is matched in any case):

- OpenAI's usage and costs (`/v1/organization/usage/completions`, `/costs`, or
  their CSV): `input_tokens` includes `input_cached_tokens`;
- Anthropic's usage and cost reports (`/v1/organizations/usage_report/messages`,
  `/cost_report`, whose amounts are cents) and the console's CSV;
- anybody's: `date, model` and any of `service_tier, input_tokens,
  cached_input_tokens, cache_write_tokens` (or `cache_write_5m_tokens` and
  `cache_write_1h_tokens`), `output_tokens, total_tokens, requests, usd`, where
  no token is in two columns.

Days are those of UTC, as the providers' are.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from gateway.money.errors import InvoiceError

BUCKETS = ("input", "cached_input", "cache_write_5m", "cache_write_1h", "output")
_MOST_BYTES = 256 * 1024 * 1024
_MOST = 10**15

_DAY = ("date", "day", "start_time_iso", "start_time", "starting_at", "usage_date_utc", "timestamp")
_MODEL = ("model", "model_version", "model_name", "line_item", "snapshot_id")
_TOKENS: dict[str, tuple[str, ...]] = {
    "input": ("input_tokens", "uncached_input_tokens", "prompt_tokens",
              "usage_input_tokens_no_cache"),
    "cached_input": ("cached_input_tokens", "input_cached_tokens", "cache_read_input_tokens",
                     "usage_input_tokens_cache_read"),
    "cache_write": ("cache_write_tokens", "cache_creation_input_tokens"),
    "cache_write_5m": ("usage_input_tokens_cache_write_5m", "ephemeral_5m_input_tokens",
                       "cache_write_5m_tokens"),
    "cache_write_1h": ("usage_input_tokens_cache_write_1h", "ephemeral_1h_input_tokens",
                       "cache_write_1h_tokens"),
    "output": ("output_tokens", "completion_tokens", "usage_output_tokens"),
    "total": ("total_tokens",),
}  # fmt: skip
_USD = ("usd", "cost_usd", "amount_usd", "cost", "amount_value")
_CENTS = ("amount_cents",)
_REQUESTS = ("requests", "num_model_requests", "num_requests")
_TIER = ("service_tier", "usage_type")
_STANDARD = ("standard", "default", "auto", "on_demand")
_TIERS = frozenset(("batch", "flex", "priority", "scale", "fast", *_STANDARD))
_WITHIN_INPUT = "input_cached_tokens"
"""OpenAI's cached tokens are part of its input tokens."""


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """What was billed for one model on one day; what was not stated is absent.

    `tier` is the service tier, empty for the standard one; None where none is told apart.
    """

    day: date
    model: str
    tokens: Mapping[str, int] = field(default_factory=dict)
    requests: int | None = None
    usd: Decimal | None = None
    tier: str | None = None

    def __add__(self, other: InvoiceLine) -> InvoiceLine:
        names = self.tokens.keys() | other.tokens.keys()
        return InvoiceLine(
            self.day,
            self.model,
            {name: self.tokens.get(name, 0) + other.tokens.get(name, 0) for name in names},
            _both(self.requests, other.requests),
            _both(self.usd, other.usd),
            self.tier,
        )


def read_invoice(path: Path) -> list[InvoiceLine]:
    """Return an invoice's lines, one for each day, model and tier, in order.

    Raises InvoiceError.
    """
    found: dict[tuple[date, str, str | None], InvoiceLine] = {}
    try:
        for number, row in enumerate(_rows(path), 1):
            line = _line(row, f"{path}: row {number}")
            if line is not None:
                at = (line.day, line.model, line.tier)
                found[at] = found[at] + line if at in found else line
    except OSError as exc:
        raise InvoiceError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    except (UnicodeDecodeError, csv.Error) as exc:
        raise InvoiceError(f"{path}: expected CSV or JSON in UTF-8: {exc}") from exc
    if not found:
        raise InvoiceError(f"{path}: no line tells the usage or the cost of a model")
    return sorted(found.values(), key=lambda line: (line.day, line.model, line.tier or ""))


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.read(1)
        while first.isspace():
            first = file.read(1)
        file.seek(0)
        if first not in ("{", "["):
            yield from _named(csv.DictReader(file))
            return
        if path.stat().st_size > _MOST_BYTES:
            raise InvoiceError(f"{path}: expected JSON of at most {_MOST_BYTES >> 20} MiB; use CSV")
        try:
            document = json.loads(file.read(), parse_float=Decimal)
        except (ValueError, RecursionError) as exc:
            raise InvoiceError(f"{path}: expected JSON: {exc}") from exc
    yield from _named(_from_json(document, path))


def _named(rows: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    for row in rows:
        if isinstance(row, Mapping):
            yield {str(name).strip().lower(): value for name, value in row.items()}


def _from_json(document: Any, path: Path) -> Iterator[Mapping[str, Any]]:
    """Flatten a list of rows, or the buckets by time of a provider's report."""
    rows = document.get("data", document.get("lines")) if isinstance(document, dict) else document
    if not isinstance(rows, list):
        raise InvoiceError(f'{path}: expected a list of lines, or an object with "data"')
    if isinstance(document, dict) and document.get("has_more") is True:
        raise InvoiceError(f"{path}: this is one page of several; put all pages' data together")
    for row in rows:
        results = row.get("results") if isinstance(row, dict) else None
        if isinstance(results, list):
            when = {name: row[name] for name in ("start_time", "starting_at") if name in row}
            is_anthropic = "starting_at" in row
            yield from (
                {**when, **_flat(each, is_anthropic)} for each in results if isinstance(each, dict)
            )
        elif isinstance(row, dict):
            yield _flat(row, is_anthropic=False)


def _flat(result: Mapping[str, Any], is_anthropic: bool) -> dict[str, Any]:
    flat = dict(result)
    amount = flat.get("amount")
    if isinstance(amount, Mapping):
        _check_currency(amount.get("currency"))
        flat["amount_value"] = amount.get("value")
    elif amount is not None and is_anthropic:
        _check_currency(flat.get("currency"))
        flat["amount_cents"] = amount
    writes = flat.get("cache_creation")
    return {**flat, **writes} if isinstance(writes, Mapping) else flat


def _check_currency(named: object) -> None:
    if named is not None and str(named).lower() != "usd":
        raise InvoiceError(f"expected amounts in USD, found {named!r}")


def _line(row: Mapping[str, Any], where: str) -> InvoiceLine | None:
    """Read one row; None where it tells of no model."""
    named = next((str(row[name]) for name in _MODEL if row.get(name)), "")
    model = named.partition(",")[0].strip()  # a line item of OpenAI's costs: "gpt-5-mini, input"
    tokens = _tokens(row, where)
    usd = _first(row, _USD, where, _decimal)
    cents = _first(row, _CENTS, where, _decimal)
    usd = usd if cents is None else cents / 100
    if not model or not (tokens or usd is not None):
        return None
    requests = _first(row, _REQUESTS, where, _count)
    return InvoiceLine(_day(row, where), model, tokens, requests, usd, _tier(row))


def _tier(row: Mapping[str, Any]) -> str | None:
    """Return the service tier that a row is of, None where it does not say."""
    if row.get("batch") in (True, "true", "True", "TRUE"):
        return "batch"
    for name in _TIER:
        told = str(row.get(name) or "").strip().lower()
        if told in _TIERS or (told and name == "service_tier"):
            return "" if told in _STANDARD else told
    return "" if row.get("batch") in (False, "false", "False", "FALSE") else None


def _tokens(row: Mapping[str, Any], where: str) -> dict[str, int]:
    tokens: dict[str, int] = {}
    for bucket, names in _TOKENS.items():
        counts = [_count(row[name], f"{where}: {name}") for name in names if _is_told(row, name)]
        if counts:
            tokens[bucket] = sum(counts)
    if "cache_write_5m" in tokens or "cache_write_1h" in tokens:
        tokens.pop("cache_write", None)  # what reports them apart may tell their sum beside them
    if _is_told(row, _WITHIN_INPUT) and "input" in tokens:
        tokens["input"] -= _count(row[_WITHIN_INPUT], where)
        if tokens["input"] < 0:
            raise InvoiceError(f"{where}: more cached input tokens than input tokens")
    return tokens


def _first(
    row: Mapping[str, Any], names: tuple[str, ...], where: str, read: Callable[[Any, str], Any]
) -> Any:
    return next((read(row[n], f"{where}: {n}") for n in names if _is_told(row, n)), None)


def _is_told(row: Mapping[str, Any], name: str) -> bool:
    return row.get(name) not in (None, "")


def _day(row: Mapping[str, Any], where: str) -> date:
    name = next((name for name in _DAY if _is_told(row, name)), None)
    if name is None:
        raise InvoiceError(f"{where}: expected a day in one of {', '.join(_DAY)}, found none")
    value = row[name]
    try:
        if isinstance(value, int | Decimal) or str(value).strip().isdigit():
            return datetime.fromtimestamp(int(value), UTC).date()
        moment = datetime.fromisoformat(str(value).strip())
        return (moment.astimezone(UTC) if moment.tzinfo else moment).date()
    except (ValueError, OverflowError, OSError):
        raise InvoiceError(
            f"{where}: {name}: expected a day such as 2026-11-01, found {str(value)[:40]!r}"
        ) from None


def _count(value: Any, where: str) -> int:
    amount = _decimal(value, where)
    if amount != int(amount) or not 0 <= amount <= _MOST:
        raise InvoiceError(f"{where}: expected a whole number, found {str(value)[:40]!r}")
    return int(amount)


def _decimal(value: Any, where: str) -> Decimal:
    try:
        amount = Decimal(str(value).strip().removeprefix("$").replace(",", ""))
    except InvalidOperation:
        amount = Decimal("nan")
    if isinstance(value, bool) or not amount.is_finite() or abs(amount) > _MOST:
        raise InvoiceError(f"{where}: expected a number, found {str(value)[:40]!r}")
    return amount


def _both(one: Any, other: Any) -> Any:
    return one if other is None else other if one is None else one + other
