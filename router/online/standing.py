"""Where a route's learning stands: the sum of the steps it has taken, in their order.

Steps are only ever added, so every process that reads them comes to the same, and one that
starts anew comes up where the others are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from router.guarantee import Floor
from router.online.acceptance import CAREFUL, Acceptance, Platt

Stage = Literal["rules", "calibrated", "certified", "learned"]
STAGES: tuple[Stage, ...] = ("rules", "calibrated", "certified", "learned")


_TAUGHT = 1_000
"""About so many requests have taught a bundle that a policy names."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a route is to learn, and from how many labels or audits on it takes each step.

    `judged` are the tiers before the reference. What was learnt under other tiers, or for
    another floor, is nothing here. `bundle` is what the policy names: then nothing is learnt, and
    what is watched is whether that bundle holds.
    """

    judged: tuple[str, ...]
    reference: str
    floor: Floor | None = None
    calibrate_from: int = 50
    certify_from: int = 200
    train_from: int = 1_000
    may_train: bool = False
    bundle: str = ""

    @property
    def key(self) -> str:
        """Return what steps are told by as being of these terms."""
        floor = "" if self.floor is None else f"{self.floor.max_loss:g}@{self.floor.certainty:g}"
        return "|".join((*self.judged, self.reference, floor, *filter(None, (self.bundle,))))


@dataclass(frozen=True, slots=True)
class Step:
    """One step: `kind` in a word, `why` for people, `detail` plain values."""

    kind: str
    why: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Taken:
    """A step that was taken, with its number and its time."""

    number: int
    at_us: int
    step: Step
    key: str


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a route stands. Only what came after `since_us` counts for what comes next.

    `has_shifted`: it was told that features have moved. `looks` are the certifications tried,
    whose error is spent; `looked_us` is when the last one was and `looked_at` on how many audits.
    `versions` are those of the upstreams' models that the estimates are of; drafts of a model
    before its `changed_us` are forgotten. A `candidate` waits to be weighed, a `bundle` runs, and
    `under_bundle` is where the route stood before it.
    """

    stage: Stage = "rules"
    number: int = 0
    acceptance: Acceptance = CAREFUL
    certificate: Mapping[str, Any] | None = None
    since_us: int = 0
    stood_since_us: int = 0
    fitted_on: int = 0
    has_shifted: bool = False
    looks: int = 0
    looked_us: int = 0
    looked_at: int = 0
    versions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    changed_us: Mapping[str, int] = field(default_factory=dict)
    bundle: Mapping[str, Any] | None = None
    candidate: Mapping[str, Any] | None = None
    training_us: int = 0
    trained_on: int = 0
    under_bundle: Standing | None = None


def standing_of(steps: Iterable[Taken], terms: Terms, standing: Standing | None = None) -> Standing:
    """Return where a route stands after these steps; those of other terms do not count."""
    standing = standing or beginning(terms)
    for taken in steps:
        if taken.key == terms.key:
            standing = after(standing, taken)
        standing = replace(standing, number=taken.number)
    return standing


def beginning(terms: Terms) -> Standing:
    """Return where a route stands before any step."""
    return Standing(stage="learned", fitted_on=_TAUGHT) if terms.bundle else Standing()


def after(standing: Standing, taken: Taken) -> Standing:
    """Return where a route stands after one more step; an unknown kind changes nothing."""
    change = _CHANGES.get(taken.step.kind)
    return standing if change is None else change(standing, taken)


def acceptance_told(acceptance: Acceptance) -> dict[str, Any]:
    """Return an acceptance as plain values."""
    platt = {model: [each.weight, each.bias] for model, each in acceptance.platt.items()}
    return {"threshold": acceptance.threshold, "platt": platt}


def acceptance_of(detail: Mapping[str, Any]) -> Acceptance:
    """Return an acceptance that was told."""
    told: Mapping[str, Sequence[float]] = detail["platt"]
    return Acceptance(float(detail["threshold"]), {m: Platt(*own) for m, own in told.items()})


def _calibrated(standing: Standing, taken: Taken) -> Standing:
    detail = taken.step.detail
    return replace(
        standing,
        stage="calibrated",
        acceptance=acceptance_of(detail),
        stood_since_us=taken.at_us,
        has_shifted=False,
        fitted_on=int(detail["labels"]),
        versions={**standing.versions, **detail.get("versions", {})},
    )


def _looked(standing: Standing, taken: Taken) -> Standing:
    return replace(
        standing,
        looks=standing.looks + 1,
        looked_us=taken.at_us,
        looked_at=int(taken.step.detail["audits"]),
    )


def _certified(standing: Standing, taken: Taken) -> Standing:
    detail = taken.step.detail
    return replace(
        _looked(standing, taken),
        stage="certified",
        acceptance=acceptance_of(detail),
        certificate=detail["certificate"],
        stood_since_us=taken.at_us,
        has_shifted=False,
        fitted_on=int(detail["labels"]),
        versions={**standing.versions, **detail.get("versions", {})},
    )


def _lost(standing: Standing, taken: Taken) -> Standing:
    """Fall back one step, and let only what came since the change count."""
    certified = standing.stage == "certified"
    return replace(
        standing,
        stage="calibrated" if certified else "rules",
        acceptance=standing.acceptance if certified else CAREFUL,
        certificate=None,
        since_us=int(taken.step.detail["since_us"]),
        stood_since_us=taken.at_us,
        fitted_on=0,
        has_shifted=False,
        looked_at=0,
    )


def _drifted(standing: Standing, taken: Taken) -> Standing:
    return replace(standing, has_shifted=True)


def _missed(standing: Standing, taken: Taken) -> Standing:
    """A later look found nothing that holds: fall back one step, and keep the audits."""
    standing = _looked(standing, taken)
    if standing.stage != "certified":
        return standing
    return replace(standing, stage="calibrated", certificate=None, stood_since_us=taken.at_us)


def _training(standing: Standing, taken: Taken) -> Standing:
    audits = int(taken.step.detail["audits"])
    return replace(standing, training_us=taken.at_us, trained_on=audits)


def _at_work(standing: Standing, taken: Taken) -> Standing:
    return replace(standing, training_us=taken.at_us) if standing.training_us else standing


def _untrained(standing: Standing, taken: Taken) -> Standing:
    trained_on = 0 if taken.step.detail.get("may_begin_again") else standing.trained_on
    return replace(standing, training_us=0, trained_on=trained_on)


def _candidate(standing: Standing, taken: Taken) -> Standing:
    return replace(standing, training_us=0, candidate=taken.step.detail)


def _declined(standing: Standing, taken: Taken) -> Standing:
    """A candidate has not won: it waits for more audits, or is given up."""
    detail = taken.step.detail
    kept = None
    if standing.candidate is not None and not detail["is_final"]:
        looks = int(standing.candidate.get("looks", 0)) + 1
        kept = {**standing.candidate, "looks": looks, "looked_at": detail["audits"]}
    return replace(standing, candidate=kept, looks=standing.looks + int(detail["spent"]))


def _promoted(standing: Standing, taken: Taken) -> Standing:
    detail = taken.step.detail
    return replace(
        standing,
        stage="learned",
        bundle=detail["bundle"],
        certificate=detail.get("certificate"),
        candidate=None,
        under_bundle=replace(standing, under_bundle=None, candidate=None),
        stood_since_us=taken.at_us,
        fitted_on=int(detail["audits"]),
        has_shifted=False,
        looks=standing.looks + int(detail["spent"]),
    )


def _rolled_back(standing: Standing, taken: Taken) -> Standing:
    """What a bundle took the place of takes it again, or nothing does where that fails, too."""
    under, since_us = standing.under_bundle, int(taken.step.detail["since_us"])
    if under is None or not taken.step.detail["to_former"]:
        return replace(_lost(standing, taken), bundle=None, under_bundle=None, candidate=None)
    return replace(
        under,
        number=standing.number,
        looks=standing.looks,
        looked_us=standing.looked_us,
        trained_on=standing.trained_on,
        since_us=since_us,
        stood_since_us=taken.at_us,
        has_shifted=False,
    )


def _reset(standing: Standing, taken: Taken) -> Standing:
    """A model is another one now: back to the prior for it; for all where it is the reference."""
    detail = taken.step.detail
    model = str(detail["model"])
    fresh = replace(
        Standing(),
        number=standing.number,
        looks=standing.looks,
        looked_us=standing.looked_us,
        versions={**standing.versions, model: detail["versions"]},
        stood_since_us=taken.at_us,
        since_us=standing.since_us,
        changed_us={**standing.changed_us, model: int(detail["since_us"])},
    )
    if detail["is_reference"]:
        return replace(fresh, since_us=int(detail["since_us"]), changed_us={})
    platt = {name: own for name, own in standing.acceptance.platt.items() if name != model}
    stage: Stage = "calibrated" if platt else "rules"
    return replace(fresh, stage=stage, acceptance=Acceptance(platt=platt))


_CHANGES = {
    "calibrated": _calibrated,
    "certified": _certified,
    "not_certified": _missed,
    "lost": _lost,
    "drift": _drifted,
    "training": _training,
    "at_work": _at_work,
    "untrained": _untrained,
    "candidate": _candidate,
    "declined": _declined,
    "promoted": _promoted,
    "rolled_back": _rolled_back,
    "reset": _reset,
}
"""What each kind of step changes."""
