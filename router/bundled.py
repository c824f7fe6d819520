"""A trained cascade on disk: its parts, how it is to run, and what was promised of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from router.bundle import BundleError, load_bundle, save_bundle
from router.guarantee import Certified, Floor
from router.learnt import Learnt, Operating
from router.targets import Mix, PriceOfQuality, Spend
from router.types import RouterError


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was certified of one operating point, and on what.

    `labeller` says who told right from wrong: `exact`, `test` or `judge`; for a judge,
    `labeller_error` is its measured share of wrong verdicts. It holds for requests like those of
    `data` and tiers that answer as they did there, up to and with the day `valid_until`.
    """

    max_loss: float
    certainty: float
    bound: float
    losses: int
    count: int
    rate: float
    data: str
    date: str
    route: str | None
    labeller: str = "exact"
    labeller_error: float | None = None
    look: int = 1
    valid_until: str | None = None

    def has_lapsed(self, today: str) -> bool:
        """Return whether it is no longer to be relied on, on a day such as 2026-11-21."""
        return self.valid_until is not None and today > self.valid_until


@dataclass(frozen=True, slots=True)
class Bundled:
    """A bundle as it is used."""

    learnt: Learnt
    operating: Operating
    certificate: Certificate | None
    about: Mapping[str, Any]
    id: str


def certificate_of(
    floor: Floor, certified: Certified, rate: float, *, data: str, route: str | None
) -> Certificate | None:
    """Return the certificate of a walk's end; None where nothing held."""
    chosen = certified.chosen
    if chosen is None:
        return None
    return Certificate(
        floor.max_loss, floor.certainty, chosen.bound, chosen.losses, chosen.count, rate,
        data, datetime.now(UTC).date().isoformat(), route,
    )  # fmt: skip


def save_learnt(
    path: Path,
    learnt: Learnt,
    operating: Operating,
    certificate: Certificate | None,
    about: Mapping[str, Any],
) -> str:
    """Write a bundle; return its id. Raises BundleError where the place is taken."""
    told = {
        **about,
        "models": list(learnt.models),
        "operating": _told_operating(operating),
        "certificate": None if certificate is None else _fields(certificate),
    }
    return save_bundle(path, told, learnt.to_state())


def load_learnt(path: Path, *, pinned: str | None = None) -> Bundled:
    """Read a bundle. Raises BundleError for one that is missing, foreign, damaged or not pinned."""
    bundle = load_bundle(path, pinned=pinned)
    try:
        learnt = Learnt.from_state(bundle.state)
        operating = _operating(bundle.about.get("operating"))
        kept = bundle.about.get("certificate")
        certificate = None if kept is None else Certificate(**kept)
        if certificate is not None and certificate.valid_until is not None:
            date.fromisoformat(certificate.valid_until)
    except (RouterError, TypeError, ValueError, KeyError) as exc:
        raise BundleError(f"{path}: {exc}") from exc
    if operating.objective not in learnt.values:
        raise BundleError(f"{path}: runs by {operating.objective!r}, which it has not learnt")
    return Bundled(learnt, operating, certificate, bundle.about, bundle.id)


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _told_operating(operating: Operating) -> dict[str, Any]:
    return {
        "objective": operating.objective,
        "mix": None if operating.mix is None else _fields(operating.mix),
        "floor": None if operating.floor is None else _fields(operating.floor),
        "early": operating.early,
        "solved_for": None if operating.solved_for is None else _fields(operating.solved_for),
    }


def _operating(kept: Any) -> Operating:
    mix, floor = kept["mix"], kept["floor"]
    if mix is not None and not (mix["rate"] > 0 and mix["other"] > 0 and 0 <= mix["share"] <= 1):
        raise ValueError(f"expected positive rates and a share from 0 to 1, found {mix}")
    return Operating(
        str(kept["objective"]),
        None if mix is None else Mix(**mix),
        None if floor is None else Floor(**floor),
        None if kept.get("early") is None else float(kept["early"]),
        _solved_for(kept.get("solved_for")),
    )


def _solved_for(kept: Mapping[str, Any] | None) -> Spend | PriceOfQuality | None:
    """Return a target of money; None also for a bundle of a time that did not keep it."""
    if kept is None:
        return None
    kind = Spend if "usd_per_1k" in kept else PriceOfQuality
    target = kind(**{name: float(value) for name, value in kept.items()})
    if not all(0 < value < float("inf") for value in _fields(target).values()):
        raise ValueError(f"expected a target above 0, found {target}")
    return target
