"""`frugal plan`: what another policy would have made of the traffic that a ledger has."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.storage import Misused, ledger_url

if TYPE_CHECKING:
    from gateway.changes.plan import Plan
    from policies.schema import Policy

_WANTING, _MISUSED = 1, 2


def plan(
    old: Annotated[Path, typer.Argument(help="The policy that was served.")],
    new: Annotated[Path, typer.Argument(help="The policy that might be.")],
    log: Annotated[
        str | None, typer.Option(help="The ledger; default: that of the old policy.")
    ] = None,
    since: Annotated[str, typer.Option(help="24h, 7d, or a date (UTC).")] = "7d",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Replay a ledger's traffic through another policy: costs, calls and refusals; changes nothing.

    Example: frugal plan policy.yaml cheaper.yaml --log sqlite:///frugal.db --since 7d
    """
    from gateway.changes.plan import plan as found
    from gateway.money.errors import LedgerError, LedgerRefused, ReportError
    from gateway.money.prices import PriceError
    from policies.loader import PolicyError

    try:
        url = log or ledger_url(old, None)
        told = found(url, _read(old), _read(new), since=since)
    except (Misused, ReportError, LedgerRefused) as exc:
        _stop(exc, _MISUSED)
    except (PolicyError, PriceError, LedgerError) as exc:
        _stop(exc, _WANTING)
    else:
        _show(told, as_json=as_json)


def _stop(fault: Exception, code: int) -> None:
    print(fault, file=sys.stderr)
    raise typer.Exit(code) from fault


def _read(path: Path) -> Policy:
    from policies.loader import load_policy

    try:
        return load_policy(path, os.environ)
    except OSError as exc:
        raise Misused(f"cannot read {path}: {exc.strerror or exc}") from exc


def _show(told: Plan, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(told), indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 160, markup=False, highlight=False)
    share = f"the newest {told.replayed:,} of {told.requests:,}"
    table = Table(title=f"Requests since {told.since}: {share}", title_justify="left")
    for name in ("asked for", "requests", "refused", "unsure", "cost $", "would cost $",
                 "expected $", "latency ms", "expected ms"):  # fmt: skip
        table.add_column(name, justify="left" if name == "asked for" else "right")
    for route in told.routes:
        table.add_row(*_cells(route))
    console.print(table)
    console.print(
        f"All: {_usd(told.now_nano_usd)} dollars now; "
        f"{_range(told.low_nano_usd, told.high_nano_usd)} with the other policy"
        + (f", about {_usd(told.expected_nano_usd)}" if told.expected_nano_usd is not None else "")
    )
    for change in told.changes:
        console.print(f"  {change.path}: {change.before!r} -> {change.after!r}")
    for route in told.routes:
        for note in route["notes"]:
            console.print(f"note: {route['route']}: {note}")
    for text in told.unknowable:
        console.print(f"not known: {text}")


def _cells(route: dict[str, Any]) -> list[str]:
    expected, took = route["expected_nano_usd"], route["expected_latency_ms"]
    return [
        route["route"],
        f"{route['requests']:,}",
        f"{route['refused']:,}",
        f"{route['unsure']:,}",
        _usd(route["now_nano_usd"]),
        _range(route["low_nano_usd"], route["high_nano_usd"]),
        "not known" if expected is None else _usd(expected),
        f"{route['now_latency_ms']:,.0f}",
        "not known" if took is None else f"{took:,.0f}",
    ]


def _range(low: int, high: int) -> str:
    return _usd(low) if low == high else f"{_usd(low)} to {_usd(high)}"


def _usd(nano: int) -> str:
    from gateway.money.price import from_nano

    return f"{from_nano(nano):,.6f}"
