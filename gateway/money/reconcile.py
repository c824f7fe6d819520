"""The ledger beside a provider's invoice: where they differ, by model and day."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Literal

from sqlalchemy import select

from gateway.money.cells import sum_of
from gateway.money.databases import reading
from gateway.money.invoices import BUCKETS, InvoiceLine
from gateway.money.location import is_postgres
from gateway.money.price import from_nano
from gateway.money.reports import span_from
from gateway.money.schema import rollup_call

Verdict = Literal["equal", "within bounds", "differs"]
_EPOCH = date(1970, 1, 1)
_IN = {
    "input": ("input", "audio", "image"),
    "cached_input": ("cached_input",),
    "cache_write": ("cache_write",),
    "output": ("output", "reasoning", "audio_output"),
}


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the ledger has for one model and day; `estimated` calls have bounds, not counts."""

    tokens: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(BUCKETS, 0))
    calls: int = 0
    estimated: int = 0
    nano_usd: int = 0
    lower_nano_usd: int = 0
    upper_nano_usd: int = 0

    def __add__(self, other: Recorded) -> Recorded:
        return Recorded(
            {name: self.tokens[name] + other.tokens[name] for name in BUCKETS},
            self.calls + other.calls,
            self.estimated + other.estimated,
            self.nano_usd + other.nano_usd,
            self.lower_nano_usd + other.lower_nano_usd,
            self.upper_nano_usd + other.upper_nano_usd,
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model and day. Differences are the invoice's less the ledger's, where it states them."""

    day: date
    model: str
    verdict: Verdict
    invoice: InvoiceLine
    ledger: Recorded
    tokens: Mapping[str, int]
    usd: Decimal | None


def reconcile(
    url: str,
    invoice: Sequence[InvoiceLine],
    *,
    upstream: Mapping[str, str] | None = None,
    provider: str | None = None,
    tolerance_usd: Decimal = Decimal("0.01"),
) -> list[Comparison]:
    """Compare an invoice with the ledger over the days it covers.

    `upstream` maps the policy's models to their providers' names. Without a
    `provider`, what the ledger called of the providers on the invoice should be
    on it. Dollars may differ by the tolerance on each line. Raises LedgerError.
    """
    first = min(line.day for line in invoice)
    last = max(line.day for line in invoice)
    billed = _by_model(invoice)
    recorded = _recorded(url, first, last, upstream or {})
    sellers = _sellers(billed, recorded, provider)
    ours: dict[tuple[date, str], Recorded] = {}
    for (seller, day, model), sums in recorded.items():
        if seller in sellers:
            ours[day, model] = ours.get((day, model), Recorded()) + sums
    return [
        _compare(day, model, billed.get((day, model)), ours.get((day, model)), tolerance_usd)
        for day, model in sorted(billed.keys() | ours.keys())
    ]


_Key = tuple[str, date, str]


def _sellers(
    billed: Mapping[tuple[date, str], InvoiceLine],
    recorded: Mapping[_Key, Recorded],
    provider: str | None,
) -> set[str]:
    if provider is not None:
        return {provider}
    models = {model for _, model in billed}
    return {seller for seller, _, model in recorded if model in models}


def _by_model(invoice: Iterable[InvoiceLine]) -> dict[tuple[date, str], InvoiceLine]:
    """Add up the dated versions of one model: invoices name them, policies seldom do."""
    found: dict[tuple[date, str], InvoiceLine] = {}
    for line in invoice:
        named = replace(line, model=undated(line.model))
        at = (named.day, named.model)
        found[at] = found[at] + named if at in found else named
    return found


def undated(model: str) -> str:
    """Return a model's name without the date of its version."""
    return re.sub(r"[-@](\d{4}-\d{2}-\d{2}|\d{8})$", "", model)


def _recorded(
    url: str, first: date, last: date, upstream: Mapping[str, str]
) -> dict[_Key, Recorded]:
    """Add up all calls, whoever paid for them: the provider bills them all."""
    found: dict[_Key, Recorded] = {}
    hours = [(day - _EPOCH).days * 24 for day in (first, last + timedelta(days=1))]
    with reading(url) as connection:
        cells = span_from(connection, 0, is_file=not is_postgres(url)).cells(rollup_call)
        day = (cells.c.hour // 24).label("day")
        kept = ("calls", "estimated", "cost_nano_usd", "lower_nano_usd", "upper_nano_usd")
        names = [name for parts in _IN.values() for name in parts]
        keys = (cells.c.provider, day, cells.c.model)
        sums = [sum_of(cells.c[name]).label(name) for name in (*kept, *names)]
        wanted = select(*keys, *sums).where(cells.c.hour >= hours[0], cells.c.hour < hours[1])
        for row in connection.execute(wanted.group_by(*keys)):
            told = row._asdict()
            tokens = {name: sum(int(told[part]) for part in _IN[name]) for name in BUCKETS}
            model = undated(upstream.get(row.model, row.model))
            at = (row.provider, _EPOCH + timedelta(days=int(row.day)), model)
            sums_of = Recorded(tokens, *(int(told[name]) for name in kept))
            found[at] = found[at] + sums_of if at in found else sums_of
    return found


def _compare(
    day: date,
    model: str,
    billed: InvoiceLine | None,
    ours: Recorded | None,
    tolerance_usd: Decimal,
) -> Comparison:
    invoice = billed or InvoiceLine(day, model, dict.fromkeys(BUCKETS, 0), usd=Decimal(0))
    ledger = ours or Recorded()
    tokens = {name: count - _of(ledger, name, invoice) for name, count in invoice.tokens.items()}
    usd = None if invoice.usd is None else invoice.usd - from_nano(ledger.nano_usd)
    return Comparison(
        day,
        model,
        _verdict(tokens, invoice, ledger, tolerance_usd),
        invoice,
        ledger,
        {name: off for name, off in tokens.items() if off},
        usd,
    )


def _of(ledger: Recorded, bucket: str, invoice: InvoiceLine) -> int:
    """Return what the ledger has of a bucket, with those that the invoice does not tell apart."""
    if bucket == "total":
        return sum(ledger.tokens.values())
    if bucket == "input":
        rest = ("cached_input", "cache_write")
        return ledger.tokens["input"] + sum(
            ledger.tokens[name] for name in rest if name not in invoice.tokens
        )
    return ledger.tokens[bucket]


def _verdict(
    tokens: Mapping[str, int], invoice: InvoiceLine, ledger: Recorded, tolerance_usd: Decimal
) -> Verdict:
    lower, upper = from_nano(ledger.lower_nano_usd), from_nano(ledger.upper_nano_usd)
    fits = invoice.usd is None or lower - tolerance_usd <= invoice.usd <= upper + tolerance_usd
    if not fits:
        return "differs"
    if not any(tokens.values()):
        return "equal"
    # Where providers told nothing, the ledger has counted itself, and knows how far off it may be.
    is_explained = ledger.estimated and invoice.usd is not None
    return "within bounds" if is_explained else "differs"
