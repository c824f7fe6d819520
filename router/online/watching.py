"""Whether what a route goes by still holds: losses, estimates, features, models' versions.

Pure: from the audits since the route stands where it does, the step that is due.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from router.online.drift import Alarm, alarm_of, shift_of, tolerance
from router.online.standing import Standing, Step, Terms
from router.online.thresholds import Way, way_of
from router.online.traffic import Asked, Seen, drawn

_NEWEST = 5
_ENOUGH = 3
_RARE = 0.02
_WINDOW = 2_000


def step_of_versions(
    requests: Sequence[Asked],
    standing: Standing,
    terms: Terms,
    latest: Mapping[str, Sequence[str]],
) -> Step | None:
    """Return the reset of a model whose upstream names another version than was learnt of.

    `latest` are versions seen in all traffic, by model, the newest last: audits alone would
    tell late.
    """
    for model in (terms.reference, *terms.judged):
        known = standing.versions.get(model, ())
        seen = _versions(requests, model, terms.reference)
        newest = (*(version for _, version in seen), *latest.get(model, ()))[-_NEWEST:]
        new = [version for version in newest if version not in known]
        if not known or len(new) < _ENOUGH:
            continue
        begun = [at_us for at_us, version in seen if version == new[-1]]
        last_us = requests[-1].at_us + 1 if requests else standing.since_us
        detail = {
            "model": model,
            "versions": sorted({*known, *new}),
            "since_us": min(begun, default=last_us),
            "is_reference": model == terms.reference,
        }
        return Step("reset", f"{model} is now {new[-1]}, no longer {', '.join(known)}", detail)
    return None


def versions_of(requests: Sequence[Asked], reference: str) -> dict[str, list[str]]:
    """Return the versions that each upstream names more than rarely."""
    names = {seen.model for each in requests for seen in each.drafts} | {reference}
    found = {}
    for model in sorted(names):
        counts = Counter(version for _, version in _versions(requests, model, reference))
        kept = sorted(v for v, n in counts.items() if n >= _RARE * counts.total())
        if kept:
            found[model] = kept
    return found


def _versions(requests: Sequence[Asked], model: str, reference: str) -> list[tuple[int, str]]:
    if model == reference:
        return [(each.at_us, v) for each in requests if (v := each.reference_version)]
    return [
        (each.at_us, seen.version)
        for each in requests
        for seen in each.drafts
        if seen.model == model and seen.version
    ]


def step_of_drift(requests: Sequence[Asked], standing: Standing, terms: Terms) -> Step | None:
    """Return the step that an alarm asks for; None where everything is as it was."""
    if standing.stage == "rules" or (terms.bundle and standing.has_shifted):
        return None
    fresh = [each for each in drawn(requests) if each.at_us >= standing.stood_since_us]
    is_served = terms.floor is not None and standing.stage in ("certified", "learned")
    if is_served and terms.floor is not None:
        lost = [float(_was_lost(each, standing, terms)) for each in fresh]
        if alarm := alarm_of(lost, terms.floor.max_loss):
            share = sum(lost[alarm.since :]) / len(lost[alarm.since :])
            what = f"{share:.1%} of the latest audits are losses"
            return _fallen(what, fresh, alarm, standing, terms)
    for told, of in _estimates(standing):
        values = _residuals(fresh, of)
        if alarm := alarm_of((v for _, v in values), tolerance(standing.fitted_on)):
            which = [each for each, _ in values]
            return _fallen(f"{told} are too high", which, alarm, standing, terms)
    return None if standing.has_shifted else _shifted(requests, standing)


Estimate = Callable[[Seen], float]


def _estimates(standing: Standing) -> list[tuple[str, Estimate]]:
    """Return what is believed of drafts, after seeing them and before, to hold against scores."""

    def after(seen: Seen) -> float:
        if standing.stage == "learned":
            return _or_nan(seen.quality)
        return _or_nan(
            None if seen.raw is None else standing.acceptance.quality(seen.model, seen.raw)
        )

    def before(seen: Seen) -> float:
        return _or_nan(seen.expected)

    return [("estimates of drafts", after), ("estimates before generating", before)]


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _residuals(requests: Sequence[Asked], of: Estimate) -> list[tuple[Asked, float]]:
    return [
        (each, of(seen) - seen.score)
        for each in requests
        for seen in each.drafts
        # Clients speak up where they are not content: that is no drift.
        if seen.score is not None and not seen.is_heard and of(seen) == of(seen)
    ]


def _was_lost(request: Asked, standing: Standing, terms: Terms) -> bool:
    if standing.stage == "learned":
        served = next((seen for seen in request.drafts if seen.served), None)
        return Way(served, 0.0).is_loss
    return way_of(request, standing.acceptance, terms.judged[-1], 0.0).is_loss


def _fallen(
    what: str, requests: Sequence[Asked], alarm: Alarm, standing: Standing, terms: Terms
) -> Step:
    since = requests[alarm.since :]
    detail = {"since_us": since[0].at_us, "audits": alarm.at - alarm.since + 1}
    why = f"{what}, since {detail['audits']} audits ago"
    if terms.bundle and terms.floor is None:
        return Step("drift", why, detail)  # for its operator to judge: no floor was promised
    if terms.bundle or standing.stage != "learned":
        return Step("lost", why, detail)
    to_former = _would_hold(since, standing.under_bundle, terms)
    return Step("rolled_back", why, detail | {"to_former": to_former})


def _would_hold(requests: Sequence[Asked], former: Standing | None, terms: Terms) -> bool:
    """Return whether what ran before the bundle would have kept the floor on these."""
    if former is None or terms.floor is None or former.stage != "certified":
        return former is not None and terms.floor is None
    lost = sum(_was_lost(each, former, terms) for each in requests)
    return lost <= terms.floor.max_loss * len(requests)


def _shifted(requests: Sequence[Asked], standing: Standing) -> Step | None:
    before = [each for each in requests if each.at_us < standing.stood_since_us][-_WINDOW:]
    now = [each for each in requests if each.at_us >= standing.stood_since_us][-_WINDOW:]
    for name, of in _FEATURES.items():
        shift = shift_of(of(before), of(now))
        if shift is not None and shift.has_moved:
            why = f"{name} of requests moved by {shift.index:.2f} (PSI), over {shift.limit:.2f}"
            return Step("drift", why, {"feature": name, "index": shift.index})
    return None


def _of_drafts(requests: Sequence[Asked], name: str) -> list[float]:
    found = (getattr(seen, name) for each in drawn(requests) for seen in each.drafts[:1])
    return [float(value) for value in found if value is not None]


_FEATURES: Mapping[str, Callable[[Sequence[Asked]], list[float]]] = {
    "prompt tokens": lambda requests: [float(each.prompt_tokens) for each in drawn(requests)],
    "tokens of drafts": lambda requests: _of_drafts(requests, "tokens"),
    "confidence of drafts": lambda requests: _of_drafts(requests, "raw"),
}
"""Features of drawn requests, of which a draft's are those of the first tier that was asked."""
