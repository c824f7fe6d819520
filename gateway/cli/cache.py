"""`frugal cache`: what a running gateway's caches hold, and how to make them forget."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

_WANTING, _MISUSED = 1, 2
_COUNTS = ("hits", "led", "followed", "kept", "over_quota", "store_errors")

cache = typer.Typer(
    help="The caches of a running gateway.",
    no_args_is_help=True,
)

Url = Annotated[str, typer.Option(help="The running gateway's admin port.")]
Key = Annotated[
    str | None,
    typer.Option(help="A key with the scope admin; default: FRUGAL_ADMIN_KEY.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")]
_URL = "http://127.0.0.1:4001"


class Refused(Exception):
    """The gateway could not be asked, or said no."""


@cache.command(epilog="Example: frugal cache stats --json")
def stats(url: Url = _URL, key: Key = None, as_json: AsJson = False) -> None:
    """Show how often the caches helped, and what they hold."""
    report = _asked("GET", url, "/admin/cache", key, None)
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        _show(report)


@cache.command(epilog="Example: frugal cache invalidate --route auto --dry-run")
def invalidate(
    tenant: Annotated[str | None, typer.Option(help="Answers to this tenant.")] = None,
    corpus: Annotated[
        str | None, typer.Option(help="Answers that tenants share in this corpus.")
    ] = None,
    route: Annotated[str | None, typer.Option(help="Answers of this route.")] = None,
    model: Annotated[str | None, typer.Option(help="Answers that this model gave.")] = None,
    tag: Annotated[str | None, typer.Option(help="Answers to requests with this tag.")] = None,
    entry: Annotated[str | None, typer.Option(help="The one with this key (hex).")] = None,
    request: Annotated[
        Path | None, typer.Option(help="The answer to this request's body; needs --tenant.")
    ] = None,
    before: Annotated[
        str | None, typer.Option(help="Answers older than this: 2026-05-01T14:00, in UTC.")
    ] = None,
    everything: Annotated[bool, typer.Option("--everything", help="All answers.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    url: Url = _URL,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Make the caches forget the answers for which all that is given holds."""
    asked = {
        "tenant": tenant,
        "corpus": corpus,
        "route": route,
        "model": model,
        "tag": tag,
        "key": entry,
        "request": _body(request),
        "before": _moment(before),
        "everything": everything or None,
        "dry_run": dry_run,
    }
    told = {name: value for name, value in asked.items() if value is not None}
    done = _asked("POST", url, "/admin/cache/invalidate", key, told)
    if as_json:
        print(json.dumps(done, indent=2))
    elif done["entries"] is not None:
        verb = "would be forgotten" if done["dry_run"] else "forgotten"
        print(f"{done['entries']} answers {verb}, {done['bytes']:,} bytes; "
              f"{done['semantic_entries']} in the semantic cache")  # fmt: skip
    if done["trouble"] is not None:
        if done["pending"]:
            print("forgotten here; the other processes will be told once Redis is back:",
                  file=sys.stderr)  # fmt: skip
        print(done["trouble"], file=sys.stderr)
        raise typer.Exit(_WANTING)


def _body(path: Path | None) -> Any:
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        _stop(f"--request: expected a file with a request's JSON body, found {exc}", _MISUSED)


def _moment(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        _stop(f"--before: expected a time such as 2026-05-01T14:00, found {text!r}", _MISUSED)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _asked(
    method: str, url: str, path: str, key: str | None, body: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Ask the admin port; end with its own words where it says no."""
    import httpx

    secret = key or os.environ.get("FRUGAL_ADMIN_KEY")
    headers = {"authorization": f"Bearer {secret}"} if secret else {}
    try:
        with httpx.Client(trust_env=False, timeout=60, headers=headers) as client:
            answer = client.request(method, url.rstrip("/") + path, json=body)
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        _stop(f"{url}: expected the admin port of a running gateway, found: {exc}", _WANTING)
    try:
        told: dict[str, Any] = answer.json()
    except ValueError:
        _stop(f"{url}: expected the admin port of a gateway, found another server", _WANTING)
    if answer.status_code != 200:
        wrong = answer.status_code in (400, 422)
        _stop(_words(told), _MISUSED if wrong else _WANTING)
    return told


def _words(told: Mapping[str, Any]) -> str:
    error = told.get("error")
    return str(error["message"]) if isinstance(error, dict) else json.dumps(told)


def _stop(words: str, code: int) -> NoReturn:
    print(words, file=sys.stderr)
    raise typer.Exit(code)


def _show(report: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    shared = report["shared"]
    table = Table(title="exact cache")
    table.add_column("")
    table.add_column("this process", justify="right")
    totals = shared and shared["all_processes"]
    if totals:
        table.add_column(f"all {shared['processes']} processes", justify="right")
    for name in _COUNTS:
        row = [f"{report['process'][name]:,}"] + ([f"{totals.get(name, 0):,}"] if totals else [])
        table.add_row(name.replace("_", " "), *row)
    console = Console()
    console.print(table)
    memory = report["memory"]
    print(f"memory: {memory['entries']:,} entries, {memory['bytes']:,} of {memory['max_bytes']:,} "
          f"bytes, {memory['evicted']:,} evicted")  # fmt: skip
    print(_on_redis(shared))
    if report["semantic"] is not None:
        _show_semantic(report["semantic"])


def _show_semantic(report: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    if report["trouble"] is not None:
        print(f"semantic cache: out of reach: {report['trouble']}")
        return
    refused = sum(report["refused"].values())
    print(f"semantic cache: {report['entries']:,} entries, {report['hits']:,} hits of "
          f"{report['lookups']:,} lookups, {refused:,} refusals by guards")  # fmt: skip
    table = Table(title="wrong answers among semantic hits, by audits")
    for name in ("route", "tenant", "state", "audited", "wrong", "95 % interval", "stops"):
        table.add_column(name)
    for each in report["budgets"]:
        lower, upper = each["interval"]
        table.add_row(
            each["route"], each["tenant"], each["state"], f"{each['audited']:,}",
            f"{each['false_hit_rate']:.2%}", f"{lower:.2%} to {upper:.2%}", str(each["stops"]),
        )  # fmt: skip
    if report["budgets"]:
        Console().print(table)


def _on_redis(shared: Mapping[str, Any] | None) -> str:
    if shared is None:
        return "redis: none; storage.redis lets processes share answers"
    state = "in reach" if shared["is_up"] else f"out of reach: {shared['trouble']}"
    return (
        f"redis: {state}; {shared['failures']} failures, {shared['corrupt']} corrupt entries, "
        f"{shared['pending_invalidations']} invalidations to be told"
    )
