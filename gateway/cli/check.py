"""`frugal check`: what is wrong with a policy, before it is served."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from gateway.money.prices import Price
    from policies.loader import Problem
    from policies.schema import Policy

_FINE, _WANTING, _MISUSED = 0, 1, 2


def check(
    policy: Annotated[Path | None, typer.Argument(help="The YAML policy to check.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not text.")] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the policy as read, secrets masked.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of policies, for editors.")
    ] = False,
) -> None:
    """Check a policy: every fault with file, line, column and key path.

    Example: frugal check policies/demo.yaml --show
    """
    if schema:
        from policies.show import json_schema

        print(json.dumps(json_schema(), indent=2))
    elif policy is None:
        print("expected a policy to check, as in: frugal check policy.yaml", file=sys.stderr)
        raise typer.Exit(_MISUSED)
    else:
        raise typer.Exit(_check(policy, as_json=as_json, show=show))


def _check(path: Path, *, as_json: bool, show: bool) -> int:
    from gateway.checking import checked_file
    from policies.loader import PolicyError
    from policies.show import masked

    try:
        policy, prices = checked_file(path, os.environ)
    except OSError as exc:
        print(f"cannot read {path}: {exc.strerror or exc}", file=sys.stderr)
        return _MISUSED
    except PolicyError as exc:
        _print_problems(path, exc.problems, as_json=as_json)
        return _WANTING
    if as_json:
        told = {"ok": True, "file": str(path), "problems": [], **_summary(policy, prices)}
        print(json.dumps({**told, "policy": masked(policy)} if show else told, indent=2))
    else:
        _print_fine(path, policy, prices, show=show)
    return _FINE


def _print_problems(path: Path, problems: tuple[Problem, ...], *, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        told = {"ok": False, "file": str(path), "problems": [asdict(each) for each in problems]}
        print(json.dumps(told, indent=2))
        return
    for problem in problems:
        print(problem)
    print(f"{len(problems)} to mend", file=sys.stderr)


def _summary(policy: Policy, prices: dict[str, Price]) -> dict[str, Any]:
    from policies.notes import notes

    models = {
        name: {
            "provider": model.provider,
            "price_source": prices[name].source,
            "price_dated": str(prices[name].dated) if prices[name].dated else None,
        }
        for name, model in policy.models.items()
    }
    routes = {
        name: {"models": list(route.models), "revision": policy.revision(name)}
        for name, route in policy.routes.items()
    }
    return {"models": models, "routes": routes, "notes": notes(policy)}


def _print_fine(path: Path, policy: Policy, prices: dict[str, Price], *, show: bool) -> None:
    from policies.notes import notes

    if show:
        import yaml

        from policies.show import masked

        print(yaml.safe_dump(masked(policy), sort_keys=False, allow_unicode=True), end="")
        return
    for name, model in policy.models.items():
        print(f"model {name}: {model.provider}, price from {_source(prices[name])}")
    for name, route in policy.routes.items():
        kept = {"exact": route.cache.exact, "semantic": route.cache.semantic}
        caches = " and ".join(kind for kind, cache in kept.items() if cache) or "no"
        print(f"route {name}: {' > '.join(route.tiers)}, {caches} cache")
    for note in notes(policy):
        print(f"note: {note}")
    print(f"{path}: nothing to mend")


def _source(price: Price) -> str:
    return f"{price.source} of {price.dated}" if price.dated else price.source
