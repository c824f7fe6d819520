"""Which step a route's learning is to take next, and why: the cold start walked by itself.

    rules        drafts' own signs under careful thresholds; under a floor the reference answers
    calibrated   from some 50 labels: signs become probabilities (Platt)
    certified    from some 200 audits: a threshold of which the floor is certified
    learned      from 1,000 audits: the full learner, once it is shown to win

What holds no more falls back one step. Every look at the audits that could certify something
spends its share of the floor's error, so looks are few: each waits for half as many audits
again as the last one had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from router.guarantee import Floor, draws_needed, share_of_look
from router.online.acceptance import SURE, Acceptance
from router.online.standing import Standing, Step, Terms, acceptance_told
from router.online.thresholds import Look, fit_platt, look
from router.online.traffic import Asked, drawn, held_out, labels, provenance
from router.online.watching import step_of_drift, step_of_versions, versions_of

NO_NEWS: Mapping[str, Sequence[str]] = {}
MOST_AUDITS = 4_000
"""The newest audits that a look is at."""

_MORE = 0.5
_REFIT = 2.0


def counting(requests: Sequence[Asked], standing: Standing, terms: Terms) -> list[Asked]:
    """Return the requests that count: of these terms, and of the models as they are now."""
    kept = []
    for each in requests:
        if each.at_us < standing.since_us or not each.drafts:
            continue
        known = all(
            seen.model in terms.judged and each.at_us >= standing.changed_us.get(seen.model, 0)
            for seen in each.drafts
        )
        if known:
            kept.append(each)
    return kept


def next_step(
    requests: Sequence[Asked],
    standing: Standing,
    terms: Terms,
    latest: Mapping[str, Sequence[str]] = NO_NEWS,
) -> Step | None:
    """Return the step that is due, None where none is. `requests` are those that count.

    `latest` are the versions that upstreams have named lately, by model.
    """
    if found := step_of_versions(requests, standing, terms, latest):
        return found
    if found := step_of_drift(requests, standing, terms):
        return found
    if terms.bundle:
        return None
    if terms.floor is not None and (found := _certifying(requests, standing, terms, terms.floor)):
        return found
    return _calibrating(requests, standing, terms)


def _calibrating(requests: Sequence[Asked], standing: Standing, terms: Terms) -> Step | None:
    """Fit drafts' confidence once there are labels, and again whenever they have doubled."""
    if standing.stage not in ("rules", "calibrated"):
        return None
    count = labels(requests)
    wanted = terms.calibrate_from
    if standing.stage == "calibrated" and standing.fitted_on:
        wanted = max(wanted, int(standing.fitted_on * _REFIT))
    if count < wanted:
        return None
    platt = fit_platt(requests)
    if not platt:
        return None
    detail = acceptance_told(Acceptance(SURE, platt))
    why = f"{count} labels: drafts' own confidence is calibrated ({', '.join(platt)})"
    return Step(
        "calibrated",
        why,
        detail | {"labels": count, "versions": versions_of(requests, terms.reference)},
    )


def _certifying(
    requests: Sequence[Asked], standing: Standing, terms: Terms, floor: Floor
) -> Step | None:
    if standing.stage not in ("calibrated", "certified"):
        return None
    audits = drawn(requests)[-MOST_AUDITS:]
    error = share_of_look(floor.error, standing.looks + 1)
    if not _is_worth_a_look(audits, standing, terms, Floor(floor.max_loss, 1.0 - error)):
        return None
    others = [each for each in requests if not each.drawn][-MOST_AUDITS:]
    found = look([*others, *audits], floor, terms.judged, error=error)
    return _told(found, standing, audits, terms, floor)


def _is_worth_a_look(
    audits: Sequence[Asked], standing: Standing, terms: Terms, floor: Floor
) -> bool:
    """Return whether a look could certify something, and has enough that is new to go by."""
    if len(audits) < terms.certify_from or len(held_out(audits)) < draws_needed(floor):
        return False
    fresh = sum(each.at_us > standing.looked_us for each in audits)
    return fresh >= _MORE * min(standing.looked_at, MOST_AUDITS)


def _told(
    found: Look, standing: Standing, audits: Sequence[Asked], terms: Terms, floor: Floor
) -> Step:
    number = standing.looks + 1
    detail = acceptance_told(found.acceptance) | {
        "look": number,
        "audits": len(audits),
        "labels": labels(audits),
        "versions": versions_of(audits, terms.reference),
        "usd": found.usd,
        "reference_usd": found.reference_usd,
    }
    if found.tested is None:
        why = f"look {number} at {found.count} audits: no threshold holds {floor.max_loss:g}"
        return Step("not_certified", why, detail)
    seen = f"{found.tested.losses} losses in {found.count} audits, at most {found.tested.bound:.4f}"
    if not found.pays:
        why = f"look {number}: {seen}, but drafts would cost more than they save"
        return Step("not_certified", why, detail)
    certificate = {
        **asdict(found.tested),
        "max_loss": floor.max_loss,
        "certainty": floor.certainty,
        "look": number,
        **provenance(held_out(audits)),
    }
    why = f"look {number}: {seen}, at {found.acceptance.threshold:.3f} and above"
    return Step("certified", why, detail | {"certificate": certificate})
