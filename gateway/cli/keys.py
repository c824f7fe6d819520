"""`frugal keys`: make, list, rotate and revoke the keys that clients send."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.storage import Misused, shared_url, spool_url

if TYPE_CHECKING:
    from gateway.access.key_store import KeyStore
    from policies.limits import Limits

_WANTING, _MISUSED = 1, 2
keys = typer.Typer(help="The keys that clients send.", no_args_is_help=True)

Policy = Annotated[
    Path | None, typer.Option(help="The policy whose gateway they are for (storage.ledger).")
]
Ledger = Annotated[
    str | None, typer.Option(help="The ledger that they stand beside, such as sqlite:///frugal.db.")
]
Name = Annotated[str, typer.Argument(help="The name that reports and limits know the key by.")]


@keys.command(epilog="Example: frugal keys init --policy my.yaml")
def init(policy: Policy = None, ledger: Ledger = None) -> None:
    """Set up the store of keys and print the first admin key, once."""
    from gateway.access.key_store import Holder

    with _clear_errors():
        with _store(policy, ledger) as store:
            is_new = not store.exists
            store.init()
            if is_new:
                admin = Holder("admin", scopes=frozenset({"admin"}))
                key = store.make(admin, now=time.time())
        if is_new:
            _show_once(key)
        else:
            print("the store of keys is there already; nothing was changed", file=sys.stderr)


@keys.command(epilog="Example: frugal keys make shop --tenant web --scope auto --budget 50/month")
def make(
    name: Name,
    tenant: Annotated[str, typer.Option(help="Whom its spending is accounted to.")] = "default",
    scope: Annotated[
        list[str] | None, typer.Option(help="A route, a model, admin or read; repeatable.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag; repeatable.")] = None,
    expires: Annotated[str | None, typer.Option(help="12h, 30d, ...; default: never.")] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="Its own limit.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(help="Its own limit.")] = None,
    concurrent: Annotated[int | None, typer.Option(help="Requests at once.")] = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="Dollars per hour, day, month or total: 50/month.")
    ] = None,
    policy: Policy = None,
    ledger: Ledger = None,
) -> None:
    """Make a key and print it, once."""
    from gateway.access.key_store import Holder

    with _clear_errors():
        rates = {
            "requests_per_minute": requests_per_minute,
            "tokens_per_minute": tokens_per_minute,
            "concurrent": concurrent,
        }
        _check_names([name, tenant, *(scope or ()), *(tag or ())])
        limits = _limits(rates, budget or [])
        holder = Holder(name, tenant, frozenset(scope or ()), frozenset(tag or ()), limits)
        now = time.time()
        end = now + _seconds(expires) if expires else None
        with _store(policy, ledger) as store:
            key = store.make(holder, now=now, expires_at=end)
        _show_once(key)


@keys.command("list", epilog="Example: frugal keys list --json")
def list_keys(
    policy: Policy = None,
    ledger: Ledger = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """List the keys: whom they stand for, what they may do, until when."""
    from gateway.access.key_store import shown

    with _clear_errors():
        now = time.time()
        with _store(policy, ledger, makes=False) as store:
            rows = [shown(kept, now) for kept in store.kept()]
    if as_json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    else:
        _print_table(rows)


@keys.command(epilog="Example: frugal keys rotate shop --grace 1h")
def rotate(
    name: Name,
    grace: Annotated[str | None, typer.Option(help="How long the old key still works.")] = None,
    policy: Policy = None,
    ledger: Ledger = None,
) -> None:
    """Give a name another key and print it, once."""
    with _clear_errors():
        grace_s = _seconds(grace) if grace else 0.0
        with _store(policy, ledger) as store:
            key = store.rotate(name, now=time.time(), grace_s=grace_s)
        _show_once(key)


@keys.command(epilog="Example: frugal keys revoke shop")
def revoke(name: Name, policy: Policy = None, ledger: Ledger = None) -> None:
    """End all keys of a name for good, within a second, wherever they are in use."""
    with _clear_errors():
        with _store(policy, ledger, makes=False) as store:
            store.revoke(name, now=time.time())
        print(f"revoked: {name}", file=sys.stderr)


@contextmanager
def _clear_errors() -> Iterator[None]:
    from gateway.access.key_store import KeyStoreError
    from gateway.money.errors import LedgerRefused
    from policies.loader import PolicyError

    try:
        yield
    except (Misused, LedgerRefused, PolicyError) as exc:
        print(exc, file=sys.stderr)
        raise typer.Exit(_MISUSED) from exc
    except KeyStoreError as exc:
        print(exc, file=sys.stderr)
        raise typer.Exit(_WANTING) from exc


@contextmanager
def _store(policy: Path | None, ledger: str | None, *, makes: bool = True) -> Iterator[KeyStore]:
    """Yield the store; it is brought together with those of other machines before and after."""
    import os

    from gateway.access.key_exchange import store_of_all
    from gateway.access.key_store import keys_path

    path = keys_path(spool_url(policy, ledger))
    url = shared_url(policy, ledger, _say_apart)
    with store_of_all(path, os.environ, url, tell=_say_apart, makes=makes) as store:
        yield store


def _say_apart(why: str) -> None:
    print(f"{why}; a gateway on this machine will pass on what is changed", file=sys.stderr)


def _check_names(names: list[str]) -> None:
    from pydantic import TypeAdapter, ValidationError

    from policies.scalars import Name as PolicyName

    for name in names:
        try:
            TypeAdapter(PolicyName).validate_python(name)
        except ValidationError as exc:
            raise Misused(
                f"expected letters, digits and . _ : / @ -, a letter or digit first; found {name!r}"
            ) from exc


def _limits(rates: dict[str, int | None], budgets: list[str]) -> Limits | None:
    from pydantic import ValidationError

    from policies.limits import Limits

    written: dict[str, Any] = {name: value for name, value in rates.items() if value is not None}
    if budgets:
        written["budget"] = [_budget(text) for text in budgets]
    try:
        return Limits.model_validate(written) if written else None
    except ValidationError as exc:
        first = exc.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise Misused(f"--{option}: {first['msg']}") from exc


def _budget(text: str) -> dict[str, str]:
    usd, slash, per = text.partition("/")
    if not slash:
        raise Misused(f"--budget: expected dollars and a time such as 50/month, found {text!r}")
    return {"usd": usd.strip().lstrip("$"), "per": per.strip()}


def _seconds(text: str) -> float:
    from policies.units import parse_duration

    try:
        found = float(parse_duration(text))  # type: ignore[arg-type]
    except ValueError as exc:
        raise Misused(str(exc)) from exc
    if not found > 0:
        raise Misused(f"expected a duration of more than nothing, found {text!r}")
    return found


def _show_once(key: str) -> None:
    print("This key is shown once; keep it well:", file=sys.stderr)
    print(key)


def _print_table(rows: list[dict[str, Any]]) -> None:
    from datetime import UTC, datetime

    from rich.console import Console
    from rich.table import Table

    table = Table("name", "key", "state", "tenant", "scopes", "tags", "limits", "expires")
    for row in rows:
        end = row["expires_at"]
        limits = row["limits"] or {}
        table.add_row(
            row["name"],
            row["key"],
            row["state"],
            row["tenant"],
            " ".join(row["scopes"]) or "all",
            " ".join(row["tags"]),
            " ".join(f"{name}={_short(value)}" for name, value in limits.items()),
            datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%d %H:%M") if end else "never",
        )
    Console().print(table)


def _short(value: object) -> str:
    if isinstance(value, list):
        return ",".join(f"{each['usd']}/{each.get('per', 'month')}" for each in value)
    return str(value)
