"""`frugal costs`: where the money went, from the ledger."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.storage import Misused, ledger_url

if TYPE_CHECKING:
    from rich.table import Table

    from gateway.money.reports import Background, Group, Idle, Report
    from gateway.money.savings import Measured

_WANTING, _MISUSED = 1, 2


class By(StrEnum):
    """What the lines of the report stand for."""

    model = "model"
    route = "route"
    tenant = "tenant"
    key = "key"
    tag = "tag"
    day = "day"
    request = "request"


def costs(
    policy: Annotated[
        Path | None, typer.Option(help="The policy whose ledger to read (storage.ledger).")
    ] = None,
    ledger: Annotated[
        str | None, typer.Option(help="The ledger itself, such as sqlite:///frugal.db.")
    ] = None,
    by: Annotated[By, typer.Option(help="One line for each of these.")] = By.model,
    since: Annotated[
        str | None, typer.Option(help="24h, 7d, or a date (UTC); default: all.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="With --by request: at most so many, newest first.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(help="Write the requests to a .csv or .parquet instead.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Report what requests cost and saved, from the ledger; changes nothing.

    Example: frugal costs --policy policies/demo.yaml --by route --since 24h
    """
    from gateway.money.errors import LedgerError, LedgerRefused, ReportError

    try:
        url = ledger_url(policy, ledger)
        if export is not None:
            _export(url, export, since)
        elif by is By.request:
            _show_requests(url, since, limit, as_json=as_json)
        else:
            _show_report(url, by, since, as_json=as_json)
    except (Misused, ReportError, LedgerRefused) as exc:
        _stop(exc, _MISUSED)
    except LedgerError as exc:
        _stop(exc, _WANTING)


def _stop(fault: Exception, code: int) -> None:
    print(fault, file=sys.stderr)
    raise typer.Exit(code) from fault


def _export(url: str, target: Path, since: str | None) -> None:
    from rich.console import Console

    from gateway.money.exports import export

    console = Console(stderr=True)
    try:
        with console.status("writing …") as status:
            count = export(
                url, target, since=since, progress=lambda n: status.update(f"{n:,} written")
            )
    except OSError as exc:
        raise Misused(f"{target}: cannot be written: {exc.strerror or exc}") from exc
    console.print(f"{count:,} requests written to {_plain(str(target))}", highlight=False)


def _show_requests(url: str, since: str | None, limit: int | None, *, as_json: bool) -> None:
    from gateway.money.reports import request_rows

    rows = request_rows(url, since=since, limit=limit)
    if as_json:
        lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        print(f"[\n{lines}\n]" if rows else "[]")
        return
    _print(_requests_table(rows))


def _show_report(url: str, by: By, since: str | None, *, as_json: bool) -> None:
    from gateway.money.reports import cost_report

    report = cost_report(url, by=by.value, since=since)  # type: ignore[arg-type]
    if as_json:
        print(json.dumps(asdict(report), indent=2))
        return
    _print(_report_table(report))
    _print(_saved_table(report))
    if report.background or report.idle:
        _print(_other_table(report.background, report.idle))


def _print(table: Table) -> None:
    from rich.console import Console

    # Into a file or a pipe, as wide as it takes: nothing is cut where a program reads.
    Console(width=None if sys.stdout.isatty() else 240).print(table)


def _table(title: str, words: list[str], numbers: list[str]) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in words:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _requests_table(rows: list[dict[str, Any]]) -> Table:
    words = ["request", "state", "tenant", "route", "model", "cache", "path"]
    table = _table("Requests, newest first", words, ["tokens", "cost $", "saved $", "bounds $"])
    for row in rows:
        named = (row[name] for name in ("request_id", *words[1:]))
        table.add_row(
            *(_plain(word) for word in named),
            f"{sum(row['usage'].values()):,}",
            _dollars(row["cost_nano_usd"]),
            _dollars(row["saved_nano_usd"]),
            _bounds(row),
        )
    return table


def _bounds(row: dict[str, Any]) -> str:
    if not row["estimated"]:
        return ""
    return f"{_dollars(row['lower_nano_usd'])} to {_dollars(row['upper_nano_usd'])}"


def _report_table(report: Report) -> Table:
    numbers = ["requests", "tokens", "cost $", "cache hits", "escalations", "estimated"]
    table = _table(f"Costs by {report.by}", [report.by], numbers)
    for group in report.groups:
        table.add_row(_plain(group.name) or "(no answer)", *_sums(group))
    table.add_section()
    table.add_row("total", *_sums(report.total))
    return table


def _sums(group: Group) -> list[str]:
    return [
        f"{group.requests:,}",
        f"{group.tokens:,}",
        _dollars(group.cost_nano_usd),
        f"{group.cache_hits:,}",
        f"{group.escalations:,}",
        f"{group.estimated:,}",
    ]


def _saved_table(report: Report) -> Table:
    """Show what was saved in the three ways that it can be told, which do not add up."""
    table = _table("Saved, told three ways", ["how", "where"], ["$", "95 % interval"])
    for group in (*report.groups, report.total):
        if group.saved_nano_usd:
            name = _plain(group.name) or "(no answer)"
            table.add_row("below the reference's list price", name, _dollars(group.saved_nano_usd))
    for group in (*report.groups, report.total):
        if group.cache_saved_nano_usd:
            name = _plain(group.name) or "(no answer)"
            table.add_row("by the caches", name, _dollars(group.cache_saved_nano_usd))
    for line in report.measured:
        table.add_row(
            "measured by the control arm", f"route {_plain(line.route)}", *_interval(line)
        )
    if not report.measured:
        table.add_row("measured by the control arm", "", "not measured yet")
    return table


def _interval(line: Measured) -> tuple[str, str]:
    if line.saved_nano_usd is None or line.low_nano_usd is None or line.high_nano_usd is None:
        seen = f"{line.control_requests:,} against {line.policy_requests:,} requests"
        return "not measured yet", seen
    ends = (_dollars(line.low_nano_usd), _dollars(line.high_nano_usd))
    return _dollars(line.saved_nano_usd), " to ".join(ends)


def _other_table(background: tuple[Background, ...], idle: tuple[Idle, ...]) -> Table:
    table = _table("Beside the requests", ["what"], ["calls", "tokens", "hours", "cost $"])
    for line in background:
        cost = _dollars(line.cost_nano_usd)
        table.add_row(_plain(line.purpose), f"{line.attempts:,}", f"{line.tokens:,}", "", cost)
    for rest in idle:
        hours = f"{(rest.up_us - rest.busy_us) / 3.6e9:,.2f}"
        table.add_row(f"idle {_plain(rest.model)}", "", "", hours, _dollars(rest.idle_nano_usd))
    return table


def _dollars(nano: int) -> str:
    """Show nano-dollars to the sixth decimal place, without passing through floats."""
    from gateway.money.price import from_nano

    return f"{from_nano(nano):,.6f}"


def _plain(text: str) -> str:
    """Return text that a terminal shows as it is: no markup, no control characters."""
    from rich.markup import escape

    return escape("".join(c if c.isprintable() else "�" for c in text))
