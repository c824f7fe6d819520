"""What is proven of a route, as its router goes by it: a floor holds, or the reference answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gateway.reporting.shapes import Certificate, LearningStep

if TYPE_CHECKING:
    from policies.cascade import Cascade
    from router.guarantee import Floor

_PROVEN = ("certified", "promoted")
_LOOKS = (*_PROVEN, "not_certified", "declined")
_FALLEN = ("lost", "reset", "rolled_back")


def certificate(
    cascade: Cascade | None,
    steps: Sequence[LearningStep],
    bundled: Mapping[str, Any] | None,
    today: str,
) -> Certificate:
    """Return what is proven: by the bundle that is named, else by what was learnt since.

    `steps` are those that the route goes by, newest first: none of other terms.
    """
    floor = floor_of(cascade)
    stage = steps[0].detail.get("stage") if steps else None
    proven = bundled or _last_proven(steps, stage)
    state, why = _state(cascade, floor, proven, steps, stage, today)
    looks = sum(step.kind in _LOOKS for step in steps)
    return Certificate(
        state=state,
        why=why,
        stage=stage,
        bound=proven.get("bound"),
        promised=proven.get("max_loss"),
        promised_certainty=proven.get("certainty"),
        floor=floor.max_loss if floor else None,
        certainty=floor.certainty if floor else None,
        labeller=proven.get("labeller") or None,
        labeller_error=proven.get("labeller_error"),
        valid_until=proven.get("valid_until"),
        looks=proven.get("look") or looks or None,
        labels=proven.get("count") or proven.get("labels"),
        bundle=cascade.bundle_id if cascade else None,
    )


def floor_of(cascade: Cascade | None) -> Floor | None:
    """Return the floor that a cascade's policy asks for, None where it asks for none."""
    from router.guarantee import Floor

    target = cascade.target if cascade else None
    if target is None or target.max_quality_loss is None:
        return None
    return Floor(target.max_quality_loss, target.certainty)


def _last_proven(steps: Sequence[LearningStep], stage: object) -> Mapping[str, Any]:
    if stage not in ("certified", "learned"):
        return {}
    for step in steps:
        found = step.detail.get("detail")
        if step.kind in _PROVEN and isinstance(found, dict):
            kept = found.get("certificate")
            return {**found, **kept} if isinstance(kept, dict) else found
    return {}


def _state(
    cascade: Cascade | None,
    floor: Floor | None,
    proven: Mapping[str, Any],
    steps: Sequence[LearningStep],
    stage: object,
    today: str,
) -> tuple[str, str | None]:
    """Return the state and why it is so; None where the state says it all."""
    target = cascade.target if cascade else None
    if floor is None and (target is not None or not proven):
        return "none", None
    names_bundle = cascade is not None and cascade.bundle is not None
    if names_bundle and steps and stage != "learned":
        return "lost", _why(steps, _FALLEN)
    if proven:
        last = proven.get("valid_until")
        if last is not None and today > last:
            return "lost", f"its last day was {last}"
        short = None if floor is None else _short_of(floor, proven)
        return ("certified", None) if short is None else ("weaker", short)
    if names_bundle:
        return "learning", "nothing is certified of the bundle, or it cannot be read"
    lost = any(step.kind in _FALLEN for step in steps)
    if lost:
        return "lost", _why(steps, _FALLEN)
    return "learning", _why(steps, (*_LOOKS, "calibrated"))


def _short_of(floor: Floor, proven: Mapping[str, Any]) -> str | None:
    """Return what a certificate lacks of a floor; as routers have it, none where it says less."""
    loss, certainty = proven.get("max_loss"), proven.get("certainty")
    if loss is not None and certainty is not None:
        if loss <= floor.max_loss and certainty >= floor.certainty:
            return None
        found = f"at most {loss:.4g} worse with certainty {certainty:g}"
    else:
        found = "no floor"
    asked = f"at most {floor.max_loss:.4g} with {floor.certainty:g}"
    return f"it says {found}, the policy asks for {asked}: train a bundle for that"


def _why(steps: Sequence[LearningStep], kinds: Collection[str]) -> str | None:
    """Return why a route stands where it does: what the last step of these kinds says."""
    told = [step for step in steps if step.kind in kinds]
    why = told[0].detail.get("why") if told else None
    return why if isinstance(why, str) else None
