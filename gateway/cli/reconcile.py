"""`frugal reconcile`: the ledger beside a provider's invoice."""

from __future__ import annotations

import json
import os
import sys
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.storage import Misused, ledger_url

if TYPE_CHECKING:
    from gateway.money.reconcile import Comparison

_WANTING, _MISUSED = 1, 2


def reconcile(
    invoice: Annotated[Path, typer.Option(help="CSV or JSON: an invoice or a usage export.")],
    policy: Annotated[
        Path | None, typer.Option(help="The policy: its ledger, and what its models are called.")
    ] = None,
    ledger: Annotated[str | None, typer.Option(help="The ledger itself.")] = None,
    provider: Annotated[
        str | None, typer.Option(help="Whose invoice it is, as the policy's `provider` says.")
    ] = None,
    tolerance: Annotated[
        str, typer.Option("--tolerance-usd", help="Dollars that a line may be off by rounding.")
    ] = "0.01",
    show_all: Annotated[
        bool, typer.Option("--all", help="Show the lines that agree, too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Compare the ledger with an invoice, by model and day; exit 1 where they differ.

    Example: frugal reconcile --invoice openai-usage.json --policy policy.yaml
    """
    from gateway.money.errors import InvoiceError, LedgerError, LedgerRefused

    try:
        found = _compare(invoice, policy, ledger, provider, tolerance)
    except (Misused, InvoiceError, LedgerRefused) as exc:
        print(exc, file=sys.stderr)
        raise typer.Exit(_MISUSED) from exc
    except LedgerError as exc:
        print(exc, file=sys.stderr)
        raise typer.Exit(_WANTING) from exc
    differing = [line for line in found if line.verdict == "differs"]
    if as_json:
        print(json.dumps({"lines": [_told(line) for line in found]}, indent=2, default=str))
    else:
        _show(found if show_all else differing, found)
    if differing:
        raise typer.Exit(_WANTING)


def _compare(
    invoice: Path, policy: Path | None, ledger: str | None, provider: str | None, tolerance: str
) -> list[Comparison]:
    from gateway.money.invoices import read_invoice
    from gateway.money.reconcile import reconcile as compare

    url = ledger_url(None if ledger else policy, ledger)
    return compare(
        url,
        read_invoice(invoice),
        upstream=_upstream_names(policy) if policy else {},
        provider=provider,
        tolerance_usd=_dollars(tolerance),
    )


def _upstream_names(path: Path) -> dict[str, str]:
    """Read what the policy's models are called upstream; it need not be ready to be served."""
    from policies.document import read_document
    from policies.loader import MAX_FILE

    try:
        with path.open(encoding="utf-8-sig") as file:
            document = read_document(file.read(MAX_FILE), name=str(path), env=os.environ)
    except (OSError, UnicodeDecodeError) as exc:
        raise Misused(f"cannot read {path}: {exc}") from exc
    models = document.at(("models",))
    if not isinstance(models, dict):
        raise Misused(f"{path}: expected a policy with models")
    return {
        name: model["model"]
        for name, model in models.items()
        if isinstance(model, dict) and isinstance(model.get("model"), str)
    }


def _dollars(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(-1)
    if not (amount.is_finite() and amount >= 0):
        raise Misused(f"--tolerance-usd: expected dollars such as 0.01, found {text!r}")
    return amount


def _told(line: Comparison) -> dict[str, Any]:
    from gateway.money.price import from_nano

    ours = line.ledger
    return {
        "day": line.day,
        "model": line.model,
        "tier": line.tier,
        "verdict": line.verdict,
        "invoice": {"tokens": line.invoice.tokens, "usd": line.invoice.usd},
        "ledger": {
            "tokens": ours.tokens,
            "usd": from_nano(ours.nano_usd),
            "lower_usd": from_nano(ours.lower_nano_usd),
            "upper_usd": from_nano(ours.upper_nano_usd),
            "calls": ours.calls,
            "estimated": ours.estimated,
        },
        "difference": {"tokens": line.tokens, "usd": line.usd},
    }


def _show(shown: list[Comparison], found: list[Comparison]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 240)
    if shown:
        by_tier = ("service tier",) if any(line.tier is not None for line in shown) else ()
        table = Table("day", "model", *by_tier, "verdict", "tokens: invoice less ledger")
        for name in ("invoice $", "ledger $", "bounds $", "difference $"):
            table.add_column(name, justify="right")
        for line in shown:
            table.add_row(*(escape(cell) for cell in _cells(line, has_tier=bool(by_tier))))
        console.print(table)
    counts = {name: sum(line.verdict == name for line in found) for name in _VERDICTS}
    said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    console.print(f"{len(found)} lines of a model and a day: {said}", highlight=False)


_TIER_WORDS = {None: "all", "": "standard"}
_VERDICTS = ("equal", "within bounds", "differs")


def _cells(line: Comparison, *, has_tier: bool) -> list[str]:
    from gateway.money.price import from_nano

    ours = line.ledger
    off = ", ".join(f"{name} {count:+,}" for name, count in sorted(line.tokens.items()))
    has_bounds = ours.lower_nano_usd != ours.upper_nano_usd
    ends = (from_nano(ours.lower_nano_usd), from_nano(ours.upper_nano_usd))
    return [
        line.day.isoformat(),
        _printable(line.model),
        *((_TIER_WORDS.get(line.tier, _printable(line.tier or "")),) if has_tier else ()),
        line.verdict,
        off,
        "" if line.invoice.usd is None else f"{line.invoice.usd:,.6f}",
        f"{from_nano(ours.nano_usd):,.6f}",
        f"{ends[0]:,.6f} to {ends[1]:,.6f}" if has_bounds else "",
        "" if line.usd is None else f"{line.usd:+,.6f}",
    ]


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
