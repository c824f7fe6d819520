"""What `frugal train` does: outcomes in, a bundle out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.learning.errors import LearningError
from gateway.learning.sources import as_files, check_reference, only_reference, shown
from gateway.learning.vectors import with_vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from policies.schema import Policy, Route
    from router.costs import Price
    from router.learn_table import LearnTable
    from router.targets import Target

_MOST_WHOLE = 8
_EMBEDDER = "all-MiniLM-L6-v2"
_DEFAULT_LOSS = 0.02
_UNKNOWN_PRICE = 1.0

Advance = Callable[[str, float], None]
Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """A call to learn, as the command line was given it; `outcomes` are files or `URL#route`."""

    outcomes: tuple[str, ...]
    split: str | None = None
    policy: Path | None = None
    route: str | None = None
    tiers: tuple[str, ...] = ()
    reference: str | None = None
    max_quality_loss: float | None = None
    certainty: float = 0.95
    max_usd_per_1k: float | None = None
    usd_per_quality_point: float | None = None
    prices: Path | None = None
    embedder: str | None = None  # "none" for words alone
    seed: int = 0


def learn(asked: Asked, out: Path, advance: Advance, *, warn: Warn) -> dict[str, Any]:
    """Learn a bundle and write it; return its manifest's `about`, with its `id`.

    Raises LearningError, or an error of the router's, for what cannot be learnt from.
    """
    from router.bundled import certificate_of, save_learnt
    from router.learn_table import LearnTable
    from router.seen import MARKS, marks_of
    from router.targets import QualityLoss
    from router.train import Task, train

    check_out(out)
    policy, route_name, route = policy_of(asked)
    named = asked.tiers or (route.tiers if route else ())
    reference = asked.reference or (route and route.cascade and route.cascade.reference_model)
    reference = reference or only_reference(asked.outcomes)
    advance("reading outcomes", 0.0)
    with as_files(asked.outcomes, advance, reference=reference, warn=warn) as files:
        table = LearnTable.from_outcomes(
            files, models=named or None, split=asked.split, replies=True
        )
    prices = _prices(asked, policy, table, warn)
    tiers = named or _by_cost(table, prices)
    reference = reference or _only(table.scored_against) or _best(table)
    check_reference(table, reference)
    target = target_of(asked, route)
    embedder = None if asked.embedder == "none" else asked.embedder or _EMBEDDER
    task = Task(tuple(tiers), reference, target, prices, route_name, seed=asked.seed)
    _warn_of_rows(table.of_models(task.tiers), warn)
    table, embedder_version = with_vectors(table, embedder, advance)
    trained = train(table, task, advance)
    data = ", ".join(map(shown, asked.outcomes))
    certificate = None
    if isinstance(target, QualityLoss) and trained.certified is not None:
        mix = trained.operating.mix
        rate = mix.rate if mix else 0.0
        certificate = certificate_of(
            target.floor, trained.certified, rate, data=data, route=route_name
        )
    about = {
        "route": route_name,
        "reference": reference,
        "embedder": embedder,
        "embedder_version": embedder_version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "frugal": version("frugal-gateway"),
        "data": data,
        "path": list(trained.path),
        "counts": dict(trained.counts),
        "seed": asked.seed,
        "looks": int(isinstance(target, QualityLoss)),
        MARKS: marks_of(table.queries),
    }
    identity = save_learnt(out, trained.learnt, trained.operating, certificate, about)
    return manifest_of(out) | {"id": identity}


def _warn_of_rows(table: LearnTable, warn: Warn) -> None:
    """Say what of a table is left out, and what counts as one."""
    from router.train import complete_rows

    left_out = len(table) - len(complete_rows(table))
    if left_out:
        warn(f"{left_out} of {len(table)} requests have no score for every tier: left out")
    if table.repeated:
        warn(
            f"{table.repeated} rows have the query, model and sample of another: taken for further "
            "replies, whose scores are averaged"
        )


def check_out(out: Path) -> None:
    """Refuse a place where no bundle can be written, before all the work. Raises LearningError."""
    from router.bundle import BundleError, identity_at

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.exists():
            identity_at(out)
    except OSError as exc:
        raise LearningError(f"--out: cannot write {out}: {exc.strerror}") from exc
    except BundleError as exc:
        raise LearningError(f"--out: {out} exists and is no bundle; name another folder") from exc


def manifest_of(out: Path) -> dict[str, Any]:
    """Return what a bundle says to people of itself, its files checked. Raises BundleError."""
    from router.bundle import load_bundle
    from router.seen import MARKS

    return {name: told for name, told in load_bundle(out).about.items() if name != MARKS}


def policy_of(asked: Asked) -> tuple[Policy | None, str | None, Route | None]:
    """Return the policy asked for, its route's name and its route. Raises LearningError."""
    if asked.policy is None:
        return None, asked.route, None
    from policies.loader import PolicyError, load_policy

    try:
        policy = load_policy(asked.policy, os.environ)
    except (PolicyError, OSError) as exc:
        raise LearningError(str(exc)) from exc
    cascades = [name for name, route in policy.routes.items() if route.cascade is not None]
    name = asked.route or (cascades[0] if len(cascades) == 1 else None)
    if name is None or name not in policy.routes:
        known = ", ".join(cascades) or "none"
        raise LearningError(f"--route: expected a route with a cascade, one of: {known}")
    return policy, name, policy.routes[name]


def target_of(asked: Asked, route: Route | None) -> Target:
    """Return the target asked for, else the route's, else a floor. Raises LearningError."""
    from router.guarantee import Floor
    from router.targets import PriceOfQuality, QualityLoss, Spend

    own = route.cascade.target if route and route.cascade else None
    loss, certainty = asked.max_quality_loss, asked.certainty
    usd, point = asked.max_usd_per_1k, asked.usd_per_quality_point
    if loss is None and usd is None and point is None and own is not None:
        loss, certainty = own.max_quality_loss, own.certainty
        usd = None if own.max_usd_per_1k is None else float(own.max_usd_per_1k)
        point = None if own.usd_per_quality_point is None else float(own.usd_per_quality_point)
    named = [value for value in (loss, usd, point) if value is not None]
    if len(named) > 1:
        raise LearningError(
            "expected one target, found several: choose --max-quality-loss, --max-usd-per-1k or "
            "--usd-per-quality-point"
        )
    if named and not 0 < named[0] < float("inf"):
        raise LearningError(f"expected a target above 0, found {named[0]:g}")
    if usd is not None:
        return Spend(usd)
    if point is not None:
        return PriceOfQuality(point)
    try:
        return QualityLoss(Floor(_DEFAULT_LOSS if loss is None else loss, certainty))
    except ValueError as exc:
        raise LearningError(str(exc)) from exc


def _prices(asked: Asked, policy: Policy | None, table: LearnTable, warn: Warn) -> dict[str, Price]:
    """Return a price for every model: as told, by the policy, as logged, or the same for all."""
    from router.costs import Price

    today = datetime.now(UTC).date()
    known = known_prices(asked, policy, table)
    anybody = Price(_UNKNOWN_PRICE, _UNKNOWN_PRICE, today)
    found = {name: known.get(name, anybody) for name in table.models}
    unknown = [name for name in table.models if name not in known]
    if unknown:
        some = ", ".join(unknown[:3]) + (f" and {len(unknown) - 3} more" if unknown[3:] else "")
        warn(
            f"no price is known of {some}: $1 per million tokens is assumed, so costs are "
            "relative at best; give --prices FILE or --policy FILE"
        )
    return found


def known_prices(asked: Asked, policy: Policy | None, table: LearnTable) -> dict[str, Price]:
    """Return the prices of a table's models as told, by the policy, or as logged, where known."""
    told = _told_prices(asked.prices) if asked.prices else {}
    listed = policy_prices(policy, table.models) if policy else {}
    today = datetime.now(UTC).date()
    found = {
        name: told.get(name) or listed.get(name) or _logged_price(table, place, today)
        for place, name in enumerate(table.models)
    }
    return {name: price for name, price in found.items() if price is not None}


def _told_prices(path: Path) -> dict[str, Price]:
    from router.costs import CostError, Price

    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        told = told.get("models_usd_per_1M", told)
        today = datetime.now(UTC).date()
        return {
            name: Price(float(each["input"]), float(each["output"]), today)
            for name, each in told.items()
            if isinstance(each, dict) and "input" in each and "output" in each
        }
    except (OSError, ValueError, TypeError, AttributeError, CostError) as exc:
        raise LearningError(
            f'{path}: expected JSON {{"model": {{"input": 0.15, "output": 0.60}}}}: {exc}'
        ) from exc


def policy_prices(policy: Policy, names: tuple[str, ...]) -> Mapping[str, Price]:
    """Return the prices of a policy's models, as of now, a million tokens in and out."""
    from gateway.money.prices import resolve_prices
    from router.costs import Price

    now = datetime.now(UTC)
    book = resolve_prices(policy, now)
    found = {}
    for name in names:
        if name in policy.models:
            price = book.for_model(name)
            million = Decimal(1_000_000)
            found[name] = Price(
                float(price.input * million), float(price.output * million), now.date()
            )
    return found


def _logged_price(table: LearnTable, place: int, today: date) -> Price | None:
    """Return one price for all tokens, from what was paid; None where nothing was logged."""
    import numpy as np

    from router.costs import Price

    tokens = table.prompt_tokens[:, place] + table.completion_tokens[:, place]
    known = ~np.isnan(table.cost_usd[:, place]) & ~np.isnan(tokens)
    if not known.any() or tokens[known].sum() <= 0:
        return None
    rate = float(table.cost_usd[known, place].sum() / tokens[known].sum() * 1e6)
    return Price(rate, rate, today)


def _by_cost(table: LearnTable, prices: Mapping[str, Price]) -> tuple[str, ...]:
    import numpy as np

    def usd(place: int) -> float:
        price = prices[table.models[place]]
        read, written = (
            np.nan_to_num(np.nanmean(column[:, place]))
            if np.isfinite(column[:, place]).any()
            else 1
            for column in (table.prompt_tokens, table.completion_tokens)
        )
        return float(read * price.input + written * price.output)

    return tuple(table.models[place] for place in sorted(range(len(table.models)), key=usd))


def _only(names: tuple[str, ...]) -> str | None:
    return names[0] if len(names) == 1 else None


def _best(table: LearnTable) -> str:
    means = [_mean(column) for column in table.score.T]
    return table.models[means.index(max(means))]


def _mean(column: NDArray[np.float64]) -> float:
    """Return the mean of what is known, 0 where nothing is."""
    known = column[column == column]
    return float(known.mean()) if len(known) else 0.0
