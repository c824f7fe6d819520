"""Which routes learn by themselves, what, and how one that stands somewhere is to be routed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.learning.bundles import Bundles
from gateway.learning.labour import Span, Training, Weighing
from gateway.learning.training import policy_prices
from gateway.money.errors import LedgerError
from gateway.money.prices import capabilities_of
from policies.cascade import Cascade, Learning
from policies.kinds import LEARNED
from policies.schema import Policy
from router.cold import ColdCourses
from router.guarantee import Floor, share_of_look
from router.learned import Courses, tells_tokens
from router.online.jobs import Job
from router.online.standing import Standing, Terms, acceptance_told
from router.types import RouterError


@dataclass(frozen=True, slots=True, eq=False)
class Duty:
    """What is to be learnt of one route, and how often one looks."""

    route: str
    cascade: Cascade
    terms: Terms
    every_s: float
    policy: Policy


def duties_of(policy: Policy) -> list[Duty]:
    """Return the routes that learn by themselves, and those whose bundle audits can watch."""
    return [
        Duty(name, cascade, terms_of(cascade, policy), learning.every, policy)
        for name, route in policy.routes.items()
        if (cascade := route.cascade) is not None
        and cascade.confidence.kind == LEARNED
        and (cascade.bundle is None or (cascade.audit is not None and cascade.audit.share))
        and len(cascade.tiers) > 1
        and (learning := cascade.learning or Learning()).automatic
    ]


def terms_of(cascade: Cascade, policy: Policy) -> Terms:
    """Return what a cascade is to learn. The whole learner needs texts, and something to aim at."""
    learning, target = cascade.learning or Learning(), cascade.target
    floor = None
    if target is not None and target.max_quality_loss is not None:
        floor = Floor(target.max_quality_loss, target.certainty)
    return Terms(
        tuple(tier for tier in cascade.tiers if tier != cascade.reference_model),
        cascade.reference_model,
        floor,
        learning.calibrate_from,
        learning.certify_from,
        learning.train_from,
        may_train=policy.privacy.store_texts and target is not None,
        bundle=_identity(cascade),
    )


def _identity(cascade: Cascade) -> str:
    """Return what tells the bundle that a policy names from any other; empty where none is named.

    One that was trained or certified anew in the same place is another one.
    """
    if cascade.bundle_path is None:
        return ""
    from router.bundle import BundleError, identity_at

    try:
        return cascade.bundle_id or identity_at(cascade.bundle_path)
    except BundleError:
        return str(cascade.bundle_path)


def courses_at(standing: Standing, duty: Duty, bundles: Bundles) -> tuple[Courses, str | None]:
    """Return the courses of a route that stands there. Reads a bundle: call it from a thread.

    A bundle that cannot be had here gives way to what ran before it, and why is told beside.
    One that the policy names and that no longer holds gives way to the reference.
    """
    if duty.terms.bundle or standing.bundle is None:
        return _plain(standing, duty), None
    try:
        return _learnt(standing.bundle, duty, bundles), None
    except (RouterError, LedgerError, OSError, ImportError) as exc:
        return _plain(standing.under_bundle or Standing(), duty), str(exc)


def _plain(standing: Standing, duty: Duty) -> Courses:
    """Return the courses of a route that no bundle of its own runs."""
    terms = duty.terms
    if terms.bundle and standing.stage != "learned":
        return ColdCourses(terms.reference, may_serve=False)
    if standing.stage == "rules":
        return ColdCourses(terms.reference, may_serve=terms.floor is None)
    is_certified = standing.stage == "certified"
    may_serve = terms.floor is None or is_certified
    return ColdCourses(
        terms.reference,
        may_serve,
        standing.acceptance,
        standing.stage,
        is_certified,
        watched_of(duty),
    )


def watched_of(duty: Duty) -> frozenset[str]:
    """Return the tiers of a route that are known to tell of their tokens while they write.

    None where nothing is audited: a draft that was given up teaches nothing.
    """
    if duty.cascade.audit is None or not duty.cascade.audit.share:
        return frozenset()
    models, tiers = duty.policy.models, duty.cascade.tiers
    able = {name: capabilities_of(models[name], name) for name in tiers}
    return frozenset(
        name for name in tiers if models[name].provider == "local" or tells_tokens(able, name)
    )


def _learnt(told: Mapping[str, Any], duty: Duty, bundles: Bundles) -> Courses:
    from router.bundled import load_learnt
    from router.learnt import Operating
    from router.learnt_build import courses_of, operating_of
    from router.targets import Mix

    bundled = load_learnt(bundles.at(told), pinned=told["id"])
    if duty.terms.floor is None:
        operating, pacer = operating_of(duty.cascade.target, bundled)
        per_second = float(duty.cascade.usd_per_second or 0)
        return courses_of(bundled, operating, pacer, usd_per_second=per_second)
    rate, early = float(told["rate"]), told.get("early")
    operating = Operating("floor", Mix(rate, rate), duty.terms.floor, early)
    return courses_of(bundled, operating, None)


def training_of(duty: Duty, job: Job, ledger_url: str, out: Path) -> Training:
    """Return a training as its process is told of it. Raises PriceError."""
    target, tiers = duty.cascade.target, duty.cascade.tiers
    assert target is not None, "what has no target is not trained"
    prices = policy_prices(duty.policy, tiers)
    return Training(
        span_of(duty, job, ledger_url),
        str(out),
        {name: (each.input, each.output) for name, each in prices.items()},
        max_loss=target.max_quality_loss,
        certainty=target.certainty,
        usd_per_1k=None if target.max_usd_per_1k is None else float(target.max_usd_per_1k),
        usd_per_point=_point(duty),
    )


def weighing_of(
    duty: Duty, job: Job, ledger_url: str, standing: Standing, bundles: Bundles
) -> Weighing:
    """Return a weighing as its process is told of it.

    Raises RouterError, LedgerError or OSError where a bundle cannot be had here.
    """
    assert standing.candidate is not None, "only a candidate is weighed"
    floor, former = duty.terms.floor, standing.bundle
    serves = floor is None or standing.stage == "certified"
    return Weighing(
        span_of(duty, job, ledger_url),
        str(bundles.at(standing.candidate)),
        standing.candidate["id"],
        None if floor is None else share_of_look(floor.error, standing.looks + 1),
        None if floor is None else floor.max_loss,
        0.95 if floor is None else floor.certainty,
        _point(duty),
        acceptance_told(standing.acceptance) if serves else None,
        None if former is None else (str(bundles.at(former)), former["id"], float(former["rate"])),
    )


def span_of(duty: Duty, job: Job, ledger_url: str) -> Span:
    """Return the audits that a job is about."""
    return Span(
        ledger_url,
        duty.route,
        duty.cascade.tiers,
        duty.terms.reference,
        job.since_us,
        job.until_us,
    )


def _point(duty: Duty) -> float | None:
    target = duty.cascade.target
    if target is None or target.usd_per_quality_point is None:
        return None
    return float(target.usd_per_quality_point)
