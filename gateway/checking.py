"""Whether a policy could be served: what `frugal check` says, wherever its text comes from."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from policies.loader import PolicyError, read_policy, read_text

if TYPE_CHECKING:
    from gateway.money.prices import Price
    from policies.document import Document
    from policies.schema import Policy


def checked_file(path: Path, env: Mapping[str, str]) -> tuple[Policy, dict[str, Price]]:
    """Read a policy's file and all that serving it would need to find.

    Raises PolicyError, and OSError where the file cannot be read.
    """
    return _checked(*read_policy(path, env))


def checked_text(
    text: str, *, name: str, env: Mapping[str, str], folder: Path
) -> tuple[Policy, dict[str, Price]]:
    """Do as `checked_file` with a text that would stand in `folder`. Raises PolicyError."""
    return _checked(*read_text(text, name=name, env=env, folder=folder))


def _checked(policy: Policy, document: Document) -> tuple[Policy, dict[str, Price]]:
    prices = _prices(policy, document)
    _check_classes(policy, document)
    _check_bundles(policy, document)
    if document.problems:
        raise PolicyError(document.problems)
    return policy, prices


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


def _check_bundles(policy: Policy, document: Document) -> None:
    """Read the bundles that routes name, since serving would."""
    from policies.kinds import LEARNED
    from router.types import RouterError

    for name, route in policy.routes.items():
        cascade = route.cascade
        if cascade is None or cascade.bundle is None or cascade.confidence.kind != LEARNED:
            continue
        from router.learnt_build import learnt_courses

        try:
            learnt_courses(cascade)
        except RouterError as exc:
            document.report(("routes", name, "cascade", "bundle"), str(exc))
        except ImportError as exc:
            message = f"needs {exc.name}; install frugal-gateway[learned]"
            document.report(("routes", name, "cascade", "bundle"), message)


def _check_classes(policy: Policy, document: Document) -> None:
    """Import what stands as `package.module:Class`, since serving would."""
    from policies.kinds import CONFIDENCES, LEARNED, PROVIDERS, KindError, resolve

    for kinds, kind, path in [
        *((PROVIDERS, model.provider, ("models", name)) for name, model in policy.models.items()),
        *(
            (CONFIDENCES, route.cascade.confidence.kind, ("routes", name, "cascade", "confidence"))
            for name, route in policy.routes.items()
            if route.cascade and route.cascade.confidence.kind != LEARNED
        ),
    ]:
        try:
            if kind not in kinds:
                resolve(kinds, kind)
        except KindError as exc:
            document.report(path, str(exc))
