"""How good the cheaper answers of each route are, and what is proven of it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, case, func, select

from gateway.learning.duties import duties_of
from gateway.learning.quality_report import wilson
from gateway.learning.steward import ALARMS
from gateway.money.cells import sum_of
from gateway.money.databases import reading
from gateway.money.schema import learning_step, outcome
from gateway.reporting.proof import certificate, floor_of
from gateway.reporting.shapes import (
    Certificate,
    FalseHits,
    LearningStep,
    ModelQuality,
    QualityReport,
    ReliabilityBin,
    RouteQuality,
)
from gateway.reporting.window import Window, iso

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

    from policies.schema import Policy, Route

BINS = 10
MOST_STEPS = 200
Bundled = Callable[[str], Mapping[str, Any] | None]
"""Returns the certificate of a route's bundle, None where it has none."""


def quality(
    url: str,
    asked: Window,
    policy: Policy,
    budgets: Sequence[Mapping[str, Any]],
    bundled: Bundled,
    *,
    today: str,
) -> QualityReport:
    """Return every route of a policy, on a day such as 2026-11-21.

    `budgets` are the semantic cache's. Raises LedgerError.
    """
    keys = _keys(policy)
    with reading(url) as connection:
        return QualityReport(
            range=asked.shown(),
            routes=tuple(
                _route(connection, asked, name, route, budgets, bundled(name), today, keys)
                for name, route in policy.routes.items()
            ),
        )


def certificates(
    url: str, policy: Policy, bundled: Bundled, *, today: str
) -> dict[str, Certificate]:
    """Return how the quality floor of each cascading route stands that day. Raises LedgerError."""
    keys = _keys(policy)
    with reading(url) as connection:
        return {
            name: certificate(
                route.cascade,
                _followed(_steps(connection, name), keys.get(name)),
                bundled(name),
                today,
            )
            for name, route in policy.routes.items()
            if route.cascade is not None
        }


def _keys(policy: Policy) -> dict[str, str]:
    """Return the terms of each route that goes by its steps."""
    return {duty.route: duty.terms.key for duty in duties_of(policy)}


def _followed(steps: Iterable[LearningStep], key: str | None) -> list[LearningStep]:
    """Return the steps that a route goes by: those of other terms mean nothing to it."""
    return [step for step in steps if key is not None and step.detail.get("key") == key]


def _route(
    connection: Connection,
    asked: Window,
    name: str,
    route: Route,
    budgets: Iterable[Mapping[str, Any]],
    bundled: Mapping[str, Any] | None,
    today: str,
    keys: Mapping[str, str],
) -> RouteQuality:
    own = outcome.c
    within = and_(own.route == name, own.at_us >= asked.since_us, own.at_us < asked.until_us)
    drafts = and_(within, own.model != own.reference)
    drawn, losses, unknown = _losses(connection, drafts)
    known = drawn - unknown
    cascade = route.cascade
    floor = floor_of(cascade)
    steps = _steps(connection, name)
    return RouteQuality(
        route=name,
        reference=cascade.reference_model if cascade else None,
        drawn=drawn,
        losses=losses,
        unknown=unknown,
        rate=losses / known if known else None,
        low=wilson(losses, drawn)[0],
        high=wilson(losses + unknown, drawn)[1],
        floor=floor.max_loss if floor else None,
        labels=_labels(connection, drafts),
        models=tuple(_models(connection, drafts)),
        certificate=certificate(cascade, _followed(steps, keys.get(name)), bundled, today),
        alarms=tuple(step for step in steps if step.kind in ALARMS),
        steps=tuple(steps),
        false_hits=tuple(_false_hits(name, route, budgets)),
    )


def _losses(connection: Connection, drafts: ColumnElement[bool]) -> tuple[int, int, int]:
    """Return how many requests were drawn, answered by a worse draft, and by who knows what."""
    own = outcome.c
    is_served = and_(own.drawn == 1, own.served == 1)
    wanted = select(
        func.count(own.request_id.distinct()).filter(own.drawn == 1),
        sum_of(case((and_(is_served, own.score < 1.0), 1), else_=0)),
        sum_of(case((and_(is_served, own.score.is_(None)), 1), else_=0)),
    )
    drawn, losses, unknown = connection.execute(wanted.where(drafts)).one()
    return int(drawn), int(losses), int(unknown)


def _labels(connection: Connection, drafts: ColumnElement[bool]) -> dict[str, int]:
    own = outcome.c
    wanted = select(own.labeller, func.count()).where(drafts, own.score.is_not(None))
    rows = connection.execute(wanted.group_by(own.labeller).order_by(own.labeller))
    return {labeller: int(count) for labeller, count in rows}


def _models(connection: Connection, drafts: ColumnElement[bool]) -> Iterator[ModelQuality]:
    """Yield each model's drafts: what their confidence promised, and what they kept of it."""
    own = outcome.c
    edges = [(own.quality < (n + 1) / BINS, n) for n in range(BINS - 1)]
    number = case((own.quality.is_(None), -1), *edges, else_=BINS - 1).label("number")
    has_both = and_(own.quality.is_not(None), own.score.is_not(None))
    wanted = select(
        own.model,
        number,
        func.count().label("drafts"),
        sum_of(case((has_both, 1), else_=0)).label("scored"),
        sum_of(case((has_both, own.quality), else_=0.0)).label("quality"),
        sum_of(case((has_both, own.score), else_=0.0)).label("score"),
    )
    found: dict[str, list[Any]] = defaultdict(list)
    for row in connection.execute(wanted.where(drafts).group_by(own.model, number)):
        found[row.model].append(row)
    for model, rows in sorted(found.items()):
        scored = sum(int(row.scored) for row in rows)
        yield ModelQuality(
            model=model,
            drafts=sum(int(row.drafts) for row in rows),
            scored=scored,
            mean_confidence=_mean((r.quality for r in rows), scored),
            mean_score=_mean((r.score for r in rows), scored),
            bins=tuple(_bin(row) for row in sorted(rows, key=lambda r: r.number) if row.scored),
        )


def _mean(sums: Iterable[float], count: int) -> float | None:
    return round(sum(map(float, sums)) / count, 9) if count else None


def _bin(row: Any) -> ReliabilityBin:
    count, good = int(row.scored), float(row.score)
    low, high = wilson(round(good), count)
    return ReliabilityBin(
        low=row.number / BINS,
        high=(row.number + 1) / BINS,
        drafts=count,
        mean_confidence=round(float(row.quality) / count, 9),
        share_good=good / count,
        share_low=low,
        share_high=high,
    )


def _steps(connection: Connection, route: str) -> list[LearningStep]:
    """Return the last steps of a route's learning, newest first."""
    table = learning_step.c
    wanted = select(learning_step).where(table.route == route).order_by(table.step.desc())
    return [
        LearningStep(at=iso(row.at_us), step=row.step, kind=row.kind, detail=_plain(row.detail))
        for row in connection.execute(wanted.limit(MOST_STEPS))
    ]


def _plain(detail: str) -> dict[str, Any]:
    try:
        found = json.loads(detail)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _false_hits(
    name: str, route: Route, budgets: Iterable[Mapping[str, Any]]
) -> Iterator[FalseHits]:
    rules = route.cache.semantic
    for each in budgets:
        if each["route"] != name:
            continue
        low, high = each["interval"]
        rate = each["false_hit_rate"]
        yield FalseHits(
            route=name,
            tenant=each["tenant"],
            state=each["state"],
            audited=each["audited"],
            wrong=round((rate or 0.0) * each["audited"]),
            rate=rate if each["audited"] else None,
            low=low,
            high=high,
            budget=rules.max_error if rules else None,
            stops=each["stops"],
        )
