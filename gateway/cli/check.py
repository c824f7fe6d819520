"""`frugal check`: what is wrong with a policy, before it is served."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from gateway.money.prices import Price
    from policies.document import Document
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
    from policies.loader import PolicyError, read_policy
    from policies.show import masked

    try:
        policy, document = read_policy(path, os.environ)
        prices = _prices(policy, document)
        _check_classes(policy, document)
        if document.problems:
            raise PolicyError(document.problems)
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


def _prices(policy: Policy, document: Document) -> dict[str, Price]:
    """Find the price of each model; a model that has none is reported where it stands."""
    from gateway.money.prices import PriceError, resolve_prices

    now = datetime.now(UTC)
    prices: dict[str, Price] = {}
    for name, model in policy.models.items():
        alone = policy.model_copy(update={"models": {name: model}})
        try:
            prices[name] = resolve_prices(alone, now).for_model(name)
        except PriceError as exc:
            below = ("price",) if model.price is not None else ()
            message = str(exc).removeprefix(f"models.{name}: ")
            document.report(("models", name, *below), message, at_key=True)
    return prices


def _check_classes(policy: Policy, document: Document) -> None:
    """Import what stands as `package.module:Class`, since serving would."""
    from policies.kinds import CONFIDENCES, PROVIDERS, KindError, resolve

    for kinds, kind, path in [
        *((PROVIDERS, model.provider, ("models", name)) for name, model in policy.models.items()),
        *(
            (CONFIDENCES, route.cascade.confidence.kind, ("routes", name, "cascade", "confidence"))
            for name, route in policy.routes.items()
            if route.cascade
        ),
    ]:
        try:
            if kind not in kinds:
                resolve(kinds, kind)
        except KindError as exc:
            document.report(path, str(exc))


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
