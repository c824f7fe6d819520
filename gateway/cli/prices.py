"""`frugal prices`: what tokens cost, by whose word and since when."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from gateway.money.prices import Price

prices = typer.Typer(help="What tokens cost, by whose word and since when.", no_args_is_help=True)

_WANTING, _MISUSED = 1, 2
_SHOWN = ("input", "cached_input", "cache_write", "output", "reasoning")

At = Annotated[str | None, typer.Option(help="As of this day (UTC); default: now.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")]
PolicyFile = Annotated[Path | None, typer.Option(help="The policy whose models to price.")]


class Misused(Exception):
    """The command cannot be carried out as it was given."""


@prices.command("list", epilog="Example: frugal prices list --provider openai --match 'gpt-5*'")
def list_(
    policy: PolicyFile = None,
    provider: Annotated[str | None, typer.Option(help="Of the price table: this one's.")] = None,
    match: Annotated[str, typer.Option(help="Names that match this shell pattern.")] = "*",
    at: At = None,
    as_json: Json = False,
) -> None:
    """List the prices of a policy's models, or without one those of the price table."""
    with _clear_errors():
        found = _of_policy(policy, _moment(at)) if policy else _of_table(provider, _moment(at))
        _show({name: price for name, price in found.items() if _is_like(name, match)}, as_json)


@prices.command(epilog="Example: frugal prices show gpt-5-mini")
def show(
    model: Annotated[str, typer.Argument(help="A model of the policy, or of the price table.")],
    policy: PolicyFile = None,
    at: At = None,
    as_json: Json = False,
) -> None:
    """Show all that is known of a model's price; of the table, whoever sells it."""
    from difflib import get_close_matches

    with _clear_errors():
        found = _of_policy(policy, _moment(at)) if policy else _of_table(None, _moment(at))
        named = {name: price for name, price in found.items() if model in _spellings(name)}
        if not named:
            known = {spelling for name in found for spelling in _spellings(name)}
            near = get_close_matches(model, known, n=1)
            hint = f"; nearest: {near[0]}" if near else ""
            raise Misused(f"expected a model with a price, found {model!r}{hint}")
        print(json.dumps({name: _all_of(price) for name, price in named.items()}, indent=2))


@prices.command(epilog="Example: frugal prices diff --policy policy.yaml")
def diff(
    policy: PolicyFile = None,
    before: Annotated[str | None, typer.Option("--from", help="The table as of this day,")] = None,
    after: Annotated[str | None, typer.Option("--to", help="and as of this one.")] = None,
    as_json: Json = False,
) -> None:
    """Compare a policy's prices with the price table, or the table of two days.

    Exits 1 where they differ.
    """
    with _clear_errors():
        if (policy is None) == (before is None):
            raise Misused("expected --policy, or --from (and --to)")
        if policy is not None:
            pairs = _against_table(policy, _moment(after))
        else:
            one, other = _of_table(None, _moment(before)), _of_table(None, _moment(after))
            pairs = {name: (one.get(name), other.get(name)) for name in one.keys() | other.keys()}
        changes = {name: found for name in sorted(pairs) if (found := _changes(*pairs[name]))}
        _show_changes(changes, as_json)
    if changes:
        raise typer.Exit(_WANTING)


@prices.command("import", epilog="Example: frugal prices import litellm.json --out prices.json")
def import_(
    source: Annotated[Path, typer.Argument(help="LiteLLM's price map, as JSON.")],
    out: Annotated[Path | None, typer.Option(help="Write there; default: print.")] = None,
    provider: Annotated[str | None, typer.Option(help="Only models of this provider.")] = None,
    match: Annotated[str, typer.Option(help="Names that match this shell pattern.")] = "*",
) -> None:
    """Turn a LiteLLM price map into a price file, for `price: {file: prices.json}` in a policy.

    What could not be carried over is listed on standard error.
    """
    from gateway.money.litellm_prices import price_file, read_litellm_prices

    with _clear_errors():
        imported = read_litellm_prices(source, provider=provider, pattern=match)
        text = price_file(imported, source.name)
        if out is None:
            print(text, end="")
        else:
            out.write_text(text, encoding="utf-8")
    for name, reason in imported.left_out.items():
        print(f"left out: {_plain(name)}: {reason}", file=sys.stderr)
    for name, rest in imported.partly.items():
        print(f"without: {_plain(name)}: {', '.join(map(_plain, rest))}", file=sys.stderr)
    print(f"{len(imported.models)} models priced", file=sys.stderr)


@contextmanager
def _clear_errors() -> Iterator[None]:
    from gateway.money.errors import PriceError
    from policies.loader import PolicyError

    try:
        yield
    except (Misused, PolicyError, UnicodeDecodeError) as exc:
        print(exc, file=sys.stderr)
        raise typer.Exit(_MISUSED) from exc
    except OSError as exc:
        print(f"{exc.filename}: {exc.strerror or exc}", file=sys.stderr)
        raise typer.Exit(_MISUSED) from exc
    except PriceError as exc:
        print(exc, file=sys.stderr)
        raise typer.Exit(_WANTING) from exc


def _moment(at: str | None) -> datetime:
    if at is None:
        return datetime.now(UTC)
    try:
        found = datetime.fromisoformat(at)
    except ValueError:
        raise Misused(f"expected a day such as 2026-11-01, found {at!r}") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _of_policy(path: Path, at: datetime) -> dict[str, Price]:
    from gateway.money.prices import resolve_prices
    from policies.loader import load_policy

    return dict(resolve_prices(load_policy(path, os.environ), at).prices)


def _of_table(provider: str | None, at: datetime) -> dict[str, Price]:
    from gateway.money.price_table import price_table, sellers

    if provider is not None and provider not in sellers():
        known = ", ".join(sorted(sellers()))
        raise Misused(f"expected a provider of the table ({known}), found {provider!r}")
    return {
        f"{seller}/{model}": price
        for seller, model, price in price_table(at)
        if provider in (None, seller)
    }


def _against_table(path: Path, at: datetime) -> dict[str, tuple[Price | None, Price | None]]:
    """Pair each model's price with the list price, where the table knows the model."""
    from gateway.money.price_table import listed
    from gateway.money.prices import resolve_prices
    from policies.loader import load_policy

    policy = load_policy(path, os.environ)
    stated = resolve_prices(policy, at).prices
    pairs: dict[str, tuple[Price | None, Price | None]] = {}
    for name, model in policy.models.items():
        if known := listed(model.provider, model.base_url, model.model or name, at):
            pairs[name] = (known.price, stated[name])
    return pairs


def _is_like(name: str, pattern: str) -> bool:
    from fnmatch import fnmatchcase

    return any(fnmatchcase(spelling, pattern) for spelling in _spellings(name))


def _spellings(name: str) -> tuple[str, str]:
    return name, name.partition("/")[2] or name


def _per_mtok(price: Price) -> dict[str, str]:
    names = (*_SHOWN, "audio", "audio_output", "image", "cache_write_1h")
    found = {name: getattr(price, name) * 1_000_000 for name in names}
    return {name: _short(amount) for name, amount in found.items()}


def _short(amount: Decimal) -> str:
    return f"{amount.normalize():f}" if amount else "0"


def _all_of(price: Price) -> dict[str, Any]:
    return {
        "usd_per_mtok": _per_mtok(price),
        "longer_prompts": {str(over): _per_mtok(tier) for over, tier in price.tiers},
        "service_tiers": {name: _per_mtok(each) for name, each in price.services.items()},
        "machine_hour_usd": _short(price.machine_hour_usd),
        "usd_per_call": _short(price.per_call),
        "source": price.source,
        "dated": price.dated.isoformat() if price.dated else None,
    }


def _changes(before: Price | None, after: Price | None) -> dict[str, tuple[str, str]]:
    """Return which amounts differ, as dollars per million tokens; absent ones are dashes."""
    one = _per_mtok(before) if before else {}
    other = _per_mtok(after) if after else {}
    return {
        name: (one.get(name, "-"), other.get(name, "-"))
        for name in _per_mtok(after or before)  # type: ignore[arg-type]
        if one.get(name) != other.get(name)
    }


def _show(found: Mapping[str, Price], as_json: bool) -> None:
    if as_json:
        print(json.dumps({name: _all_of(price) for name, price in found.items()}, indent=2))
        return
    from rich.table import Table

    table = Table(title="Dollars per million tokens", title_justify="left")
    table.add_column("model", overflow="fold")
    for name in (*_SHOWN, "hour $"):
        table.add_column(name, justify="right")
    table.add_column("by whose word")
    for name, price in found.items():
        told = _per_mtok(price)
        hour = _short(price.machine_hour_usd) if price.is_hourly else ""
        source = f"{price.source}, {price.dated}" if price.dated else price.source
        table.add_row(_escaped(name), *(told[each] for each in _SHOWN), hour, _escaped(source))
    _print(table)


def _show_changes(changes: Mapping[str, Mapping[str, tuple[str, str]]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(changes, indent=2))
        return
    if not changes:
        print("no price differs")
        return
    from rich.table import Table

    table = Table("model", "what", title="Dollars per million tokens", title_justify="left")
    table.add_column("before, or listed", justify="right")
    table.add_column("after, or stated", justify="right")
    for name, found in changes.items():
        for what, (one, other) in found.items():
            table.add_row(_escaped(name), what, one, other)
    _print(table)


def _print(table: Any) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 240).print(table)


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "�" for c in text)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(_plain(text))
