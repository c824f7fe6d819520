"""A threshold on calibrated confidence: fitted on some requests, certified on others.

What stands between the cold start and a full learner: two numbers a model and one for all.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from router.guarantee import Floor, Tested, walk
from router.online.acceptance import SURE, Acceptance, Platt, odds_of
from router.online.traffic import Asked, Seen, for_tuning, held_out, mean_reference_usd

FEWEST_OF_MODEL = 20
"""Labels below which a model's drafts stay uncalibrated."""

_STEPS = 24
_RIDGE = 0.5
_FINEST = 1e6


def fit_platt(requests: Sequence[Asked]) -> dict[str, Platt]:
    """Fit each model's calibration on its scored drafts, shrunk towards leaving them as they are.

    A model with too few labels is left out.
    """
    import numpy as np

    from router.linear import fit_logistic

    pairs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for each in requests:
        for seen in each.drafts:
            if seen.raw is not None and seen.score is not None:
                pairs[seen.model].append((odds_of(seen.raw), seen.score))
    found = {}
    for model, own in sorted(pairs.items()):
        if len(own) < FEWEST_OF_MODEL:
            continue
        odds, scores = np.array(own).T
        design = np.column_stack([odds, np.ones(len(odds))])
        weight, bias = fit_logistic(design, scores, towards=np.array([1.0, 0.0]), ridge=_RIDGE)
        # A confidence that falls as answers get better is no confidence: only its level is used.
        found[model] = Platt(max(0.0, float(weight)), float(bias))
    return found


@dataclass(frozen=True, slots=True)
class Way:
    """How one request would have gone: the draft served (None: the reference), and its price.

    `is_known` is False where a model would have been asked that was not.
    """

    served: Seen | None
    usd: float
    is_known: bool = True

    @property
    def is_loss(self) -> bool:
        """Return whether an answer worse than the reference's may have been served."""
        if not self.is_known:
            return True
        return self.served is not None and (self.served.score is None or self.served.score < 1.0)


def way_of(request: Asked, acceptance: Acceptance, last: str, reference_usd: float) -> Way:
    """Let a request take its course by another acceptance; `last` is the last tier judged."""
    usd = 0.0
    for seen in request.drafts:
        usd += seen.usd
        if seen.raw is None:
            continue
        if acceptance.quality(seen.model, seen.raw) >= acceptance.threshold:
            return Way(seen, usd)
    own = request.reference_usd if request.reference_usd is not None else reference_usd
    # A draft that was served kept the tiers behind it from being asked.
    stopped = request.drafts[-1].served and request.drafts[-1].model != last
    return Way(None, usd + own, is_known=not stopped)


def path_of(
    requests: Sequence[Asked], platt: dict[str, Platt], floor: Floor, last: str
) -> list[float]:
    """Return thresholds from the most careful one down, chosen on requests kept for that.

    It ends where twice as much is lost as may be: a walk would never come farther.
    """
    plain = Acceptance(0.0, platt)
    known = {
        # Rounded down, so that a threshold lets those through that it was taken from.
        math.floor(plain.quality(seen.model, seen.raw) * _FINEST) / _FINEST
        for each in requests
        for seen in each.drafts
        if seen.raw is not None
    }
    ordered = sorted(known, reverse=True)
    path: list[float] = []
    for place in range(min(_STEPS, len(ordered))):
        threshold = ordered[(place + 1) * len(ordered) // min(_STEPS, len(ordered)) - 1]
        path.append(threshold)
        ways = [way_of(each, Acceptance(threshold, platt), last, 0.0) for each in requests]
        lost = sum(way.is_known and way.is_loss for way in ways)
        if lost > 2.0 * floor.max_loss * len(requests):
            break
    return path


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the traffic came to. Without `tested` nothing holds.

    `pays` says whether the drafts cost less than they save; `usd` and `reference_usd` are means
    a request on those that the certificate stands on.
    """

    acceptance: Acceptance
    tested: Tested | None
    count: int
    usd: float = 0.0
    reference_usd: float = 0.0

    @property
    def pays(self) -> bool:
        """Return whether drafting costs less than always asking the reference."""
        return self.tested is not None and self.usd < self.reference_usd


def look(requests: Sequence[Asked], floor: Floor, judged: Sequence[str], *, error: float) -> Look:
    """Fit on those for tuning, then walk down from the most careful threshold on the others.

    `judged` are the tiers before the reference, in their order; `error` is what this look may
    spend. Of the thresholds that hold the one that costs least is taken.
    """
    tuning, kept = for_tuning(requests), held_out(requests)
    platt = fit_platt(tuning)
    path = path_of(tuning, platt, floor, judged[-1])
    reference_usd = mean_reference_usd(requests)
    ways = [
        [way_of(each, Acceptance(point, platt), judged[-1], reference_usd) for each in kept]
        for point in path
    ]
    walked = walk([sum(way.is_loss for way in own) for own in ways], len(kept), floor, error=error)
    if walked.chosen is None:
        return Look(Acceptance(SURE, platt), None, len(kept), reference_usd=reference_usd)
    means = [sum(way.usd for way in own) / len(kept) for own in ways[: walked.chosen.point + 1]]
    best = min(range(len(means)), key=means.__getitem__)
    acceptance = Acceptance(path[best], platt)
    return Look(acceptance, walked.walked[best], len(kept), means[best], reference_usd)
