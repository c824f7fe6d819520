"""The ledger beside a provider's invoice: where they differ, by model, day and service tier."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Literal

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
    "cache_write_5m": ("cache_write",),  # the ledger's has both kinds: `_tokens` takes one off
    "cache_write_1h": ("cache_write_1h",),
    "output": ("output", "reasoning", "audio_output"),
}
_WRITES = ("cache_write_5m", "cache_write_1h")


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
    """One model and day. Differences are the invoice's less the ledger's, where it states them.

    `tier` is the service tier, empty for the standard one; None for all of them together.
    """

    day: date
    model: str
    verdict: Verdict
    invoice: InvoiceLine
    ledger: Recorded
    tokens: Mapping[str, int]
    usd: Decimal | None
    tier: str | None = None


def reconcile(
    url: str,
    invoice: Sequence[InvoiceLine],
    *,
    upstream: Mapping[str, str] | None = None,
    provider: str | None = None,
    tolerance_usd: Decimal = Decimal("0.01"),
) -> list[Comparison]:
    """Compare an invoice with the ledger over the days it covers.

    By service tier where the invoice tells them apart, else over all of them.

    `upstream` maps the policy's models to their providers' names. Without a
    `provider`, what the ledger called of the providers on the invoice should be
    on it. Dollars may differ by the tolerance on each line. Raises LedgerError.
    """
    first = min(line.day for line in invoice)
    last = max(line.day for line in invoice)
    billed = _by_model(invoice)
    recorded = _recorded(url, first, last, upstream or {})
    sellers = _sellers(billed, recorded, provider)
    ours: dict[tuple[date, str], dict[str, Recorded]] = {}
    for (seller, day, model, tier), sums in recorded.items():
        if seller in sellers:
            tiers = ours.setdefault((day, model), {})
            tiers[tier] = tiers.get(tier, Recorded()) + sums
    return [
        _compare(line, ledger, tolerance_usd)
        for at in sorted(billed.keys() | ours.keys())
        for line, ledger in _pairs(*at, billed.get(at, {}), ours.get(at, {}))
    ]


_Key = tuple[str, date, str, str]
_Billed = dict[tuple[date, str], dict[str | None, InvoiceLine]]


def _pairs(
    day: date,
    model: str,
    billed: dict[str | None, InvoiceLine],
    ours: Mapping[str, Recorded],
) -> Iterator[tuple[InvoiceLine, Recorded]]:
    """Put like beside like: a tier beside that tier, what tells of none beside all of them."""
    told = {tier: line for tier, line in billed.items() if tier is not None}
    rest = billed.get(None)
    if rest is not None and rest.tokens and any(line.tokens for line in told.values()):
        # Beside tiers that are named, a blank is the standard one.
        rest = replace(rest, tier="")
        told[""] = told[""] + rest if "" in told else rest
        rest = None
    if rest is not None or not told:
        yield rest or _nothing(day, model, None), sum(ours.values(), Recorded())
    if told:
        for tier in sorted(told.keys() | ours.keys()):
            yield told.get(tier) or _nothing(day, model, tier), ours.get(tier, Recorded())


def _nothing(day: date, model: str, tier: str | None) -> InvoiceLine:
    return InvoiceLine(day, model, dict.fromkeys(BUCKETS, 0), usd=Decimal(0), tier=tier)


def _sellers(
    billed: _Billed,
    recorded: Mapping[_Key, Recorded],
    provider: str | None,
) -> set[str]:
    if provider is not None:
        return {provider}
    models = {model for _, model in billed}
    return {seller for seller, _, model, _ in recorded if model in models}


def _by_model(invoice: Iterable[InvoiceLine]) -> _Billed:
    """Add up the dated versions of one model: invoices name them, policies seldom do."""
    found: _Billed = {}
    for line in invoice:
        named = replace(line, model=undated(line.model))
        tiers = found.setdefault((named.day, named.model), {})
        before = tiers.get(named.tier)
        tiers[named.tier] = named if before is None else before + named
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
        keys = (cells.c.provider, day, cells.c.model, cells.c.tier)
        sums = [sum_of(cells.c[name]).label(name) for name in (*kept, *names)]
        wanted = select(*keys, *sums).where(cells.c.hour >= hours[0], cells.c.hour < hours[1])
        for row in connection.execute(wanted.group_by(*keys)):
            told = row._asdict()
            model = undated(upstream.get(row.model, row.model))
            at = (row.provider, _EPOCH + timedelta(days=int(row.day)), model, row.tier)
            sums_of = Recorded(_tokens(told), *(int(told[name]) for name in kept))
            found[at] = found[at] + sums_of if at in found else sums_of
    return found


def _tokens(told: Mapping[str, Any]) -> dict[str, int]:
    tokens = {name: sum(int(told[part]) for part in _IN[name]) for name in BUCKETS}
    tokens["cache_write_5m"] -= tokens["cache_write_1h"]
    return tokens


def _compare(line: InvoiceLine, ledger: Recorded, tolerance_usd: Decimal) -> Comparison:
    invoice = _as_told(line)
    tokens = {name: count - _of(ledger, name, invoice) for name, count in invoice.tokens.items()}
    usd = None if invoice.usd is None else invoice.usd - from_nano(ledger.nano_usd)
    return Comparison(
        invoice.day,
        invoice.model,
        _verdict(tokens, invoice, ledger, tolerance_usd),
        invoice,
        ledger,
        {name: off for name, off in tokens.items() if off},
        usd,
        invoice.tier,
    )


def _as_told(line: InvoiceLine) -> InvoiceLine:
    """Return a line that tells cache writes in one way: together, if some of them are."""
    if "cache_write" not in line.tokens:
        return line
    tokens = {name: count for name, count in line.tokens.items() if name not in _WRITES}
    tokens["cache_write"] += sum(line.tokens.get(name, 0) for name in _WRITES)
    return replace(line, tokens=tokens)


def _of(ledger: Recorded, bucket: str, invoice: InvoiceLine) -> int:
    """Return what the ledger has of a bucket, with those that the invoice does not tell apart."""
    if bucket == "total":
        return sum(ledger.tokens.values())
    if bucket == "cache_write":
        return sum(ledger.tokens[name] for name in _WRITES)
    if bucket == "input":
        told = {*invoice.tokens, *(_WRITES if "cache_write" in invoice.tokens else ())}
        rest = [name for name in ("cached_input", *_WRITES) if name not in told]
        return ledger.tokens["input"] + sum(ledger.tokens[name] for name in rest)
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
