"""From a bundle on disk to courses, for the policy that names it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from policies.cascade import Cascade, Target
from router.bundled import Bundled, load_learnt
from router.guarantee import Floor
from router.learnt import LearntCourses, Operating
from router.targets import Mix, Pacer, PriceOfQuality, Spend, rate_of_price
from router.types import RouterError

_log = logging.getLogger(__name__)


def learnt_courses(cascade: Cascade) -> LearntCourses:
    """Read a cascade's bundle, and set it to run as the policy asks.

    A floor is as good as its certificate: without one that says at least as much as the
    policy asks for, the reference answers. Raises RouterError for a bundle that cannot be
    read, or was trained for other tiers.
    """
    assert cascade.bundle_path is not None, "only a cascade with a bundle comes here"
    bundled = load_learnt(cascade.bundle_path, pinned=cascade.bundle_id)
    tiers, trained = list(cascade.tiers), list(bundled.learnt.models)
    reference = bundled.about.get("reference")
    if sorted(tiers) != sorted(trained) or reference != cascade.reference_model:
        raise RouterError(
            f"the bundle was trained for the tiers {', '.join(trained)} with reference "
            f"{reference}, the route has {', '.join(tiers)} with {cascade.reference_model}; "
            "train it for this route"
        )
    if (told := differs(cascade.target, bundled)) is not None:
        _log.warning("bundle %s: %s", cascade.bundle_path, told)
    per_second = float(cascade.usd_per_second or 0)
    operating, pacer = operating_of(cascade.target, bundled)
    return courses_of(bundled, operating, pacer, usd_per_second=per_second)


def courses_of(
    bundled: Bundled, operating: Operating, pacer: Pacer | None, *, usd_per_second: float = 0.0
) -> LearntCourses:
    """Return the courses of a bundle that runs so."""
    return LearntCourses(
        bundled.learnt,
        operating,
        rate=None if pacer is None else lambda: pacer.rate,
        spent=None if pacer is None else pacer.spent,
        embedder=str(bundled.about.get("embedder_version") or ""),
        usd_per_second=usd_per_second,
        has_lapsed=_lapse_of(bundled, operating),
    )


def _lapse_of(bundled: Bundled, operating: Operating) -> Callable[[], bool] | None:
    """Return what tells whether the certificate that lets drafts serve has run out."""
    certificate = bundled.certificate
    if operating.objective != "floor" or certificate is None or certificate.valid_until is None:
        return None
    return lambda: certificate.has_lapsed(datetime.now(UTC).date().isoformat())


def differs(target: Target | None, bundled: Bundled) -> str | None:
    """Return what is to be said of a target of money that the bundle was not solved for."""
    if target is None or target.max_usd_per_1k is None:
        return None
    asked, solved = Spend(float(target.max_usd_per_1k)), bundled.operating.solved_for
    if asked == solved:
        return None
    if isinstance(solved, Spend):
        found = f"its exchange rate was solved for ${solved.usd_per_1k:g} per 1,000 requests"
    elif bundled.operating.objective == "floor":
        found = "it was solved for a quality floor"
    else:
        found = "it does not say what spending it was solved for"
    return (
        f"{found}, the policy asks for ${asked.usd_per_1k:g}: requests move the rate there, some "
        "hundred at first off the budget; train for that target to begin at it"
    )


def operating_of(target: Target | None, bundled: Bundled) -> tuple[Operating, Pacer | None]:
    """Return how the bundle runs under a policy's target, and what paces its spending."""
    if target is None:
        return bundled.operating, None
    quality = bundled.learnt.values["quality"]
    if target.usd_per_quality_point is not None:
        rate = rate_of_price(PriceOfQuality(float(target.usd_per_quality_point)), quality)
        return Operating("quality", Mix(rate, rate)), None
    if target.max_usd_per_1k is not None:
        spend = Spend(float(target.max_usd_per_1k))
        kept = bundled.operating
        start = (
            kept.mix.rate if kept.objective == "quality" and kept.mix else _middle(quality.rates)
        )
        pacer = Pacer(spend, start, (quality.rates[0], quality.rates[-1]))
        return Operating("quality", Mix(start, start)), pacer
    assert target.max_quality_loss is not None, "a target names one of the three"
    floor = Floor(target.max_quality_loss, target.certainty)
    certificate = bundled.certificate
    holds = (
        certificate is not None
        and certificate.max_loss <= floor.max_loss
        and certificate.certainty >= floor.certainty
    )
    mix = bundled.operating.mix if holds else None
    return Operating("floor", mix, floor, bundled.operating.early), None


def _middle(rates: tuple[float, ...]) -> float:
    return rates[len(rates) // 2]
