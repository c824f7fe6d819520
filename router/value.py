"""What one more call is worth: the decision of a cascade that also routes.

At each step the request may stop and serve the best draft, or call a model. A call's
worth is what the course of the request is expected to reach after it, less its price;
that expectation is learnt by going backwards from the deepest drafts to none (fitted
value iteration, Ernst et al. 2005), for a grid of prices. So a model is called for the
gain that it is expected to bring, not because confidence is low (Jitkrittum et al.
2023), and a cheap second draft is called for what its agreement will tell (Dekoninck
et al. 2025, "A Unified Approach to Routing and Cascading").

Worth is counted in quality, 0 to 1, or where a floor is to be held in the probability
that the answer is no worse than the reference's. Prices are exchanged at `rate`: the
quality that the money of one mean reference call must buy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from router.beliefs import DEEPEST, Beliefs, Seen
from router.state import State
from router.types import RouterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

Objective = Literal["quality", "floor"]
Calls = tuple[int, ...]
RATES: tuple[float, ...] = tuple(float(rate) for rate in np.geomspace(0.003, 6.0, 24))

WIDE = 14
LIVE = 3
HOPE = 1
STOP = -1


@dataclass(frozen=True, slots=True)
class Lineup:
    """The models of a route in their order, the reference's place, and who is judged.

    A model that is not judged goes out live: calling it ends the request. The
    reference is never judged.
    """

    models: tuple[str, ...]
    reference: int
    judged: frozenset[int]

    def __post_init__(self) -> None:
        """Refuse places that are none. Raises RouterError."""
        places = range(len(self.models))
        if self.reference not in places or not self.judged <= set(places) - {self.reference}:
            raise RouterError("a line-up's reference and judged models must be among its models")

    def courses(self, depth: int) -> Iterator[Calls]:
        """Yield every set of judged drafts up to this many, the small ones first."""
        for count in range(depth + 1):
            yield from combinations(sorted(self.judged), count)


@dataclass(frozen=True, slots=True)
class Known:
    """What a course is decided on, for n requests at the same step.

    `estimates` [n, K] are the beliefs about every model, `worth` [n] that of serving
    now (minus infinity before any draft), `second` [n] the quality of the runner-up
    draft, `usd` [n, K] what each call would cost.
    """

    calls: Calls
    estimates: Floats
    worth: Floats
    best: Floats
    second: Floats
    usd: Floats


@dataclass(frozen=True, slots=True)
class Chosen:
    """The best step of each request: a model's place, or -1 to stop; and every step's worth."""

    step: Ints
    worth: Floats


@dataclass(frozen=True, slots=True)
class ValueModel:
    """Coefficients of what follows a call: {(drafts seen, model): [rates, features]}."""

    lineup: Lineup
    objective: Objective
    reference_usd: float
    depth: int
    rates: tuple[float, ...] = RATES
    ahead: Mapping[tuple[Calls, int], Floats] = field(default_factory=dict)

    def choose(self, known: Known, rate: float) -> Chosen:
        """Return for each request whether to stop or whom to call, at this exchange rate."""
        return self.choose_by(known, features_of(known, self.live(known)), rate)

    def choose_by(self, known: Known, features: Floats, rate: float) -> Chosen:
        """Return the same from features that are at hand already."""
        worth = self._worth(known, features, rate)
        step = np.argmax(worth, axis=1)
        best = worth[np.arange(len(step)), step]
        stops = known.worth >= best
        return Chosen(np.where(stops, STOP, step), worth)

    def _worth(self, known: Known, features: Floats, rate: float) -> Floats:
        """Return what each call is worth, its price taken off: [n, K], minus infinity if barred."""
        worth = np.full(known.estimates.shape, -np.inf)
        if len(known.calls) >= self.depth:
            return worth
        for model in range(len(self.lineup.models)):
            if model in known.calls:
                continue
            if model in self.lineup.judged:
                coefficients = self._at(self.ahead[known.calls, model], rate)
                worth[:, model] = features[:, model] @ coefficients
            else:
                worth[:, model] = features[:, model, LIVE]
        return worth - (rate / self.reference_usd) * known.usd

    def live(self, known: Known) -> Floats:
        """Return what each model's next answer is worth if it is served whatever it says."""
        if self.objective == "quality":
            return known.estimates
        # Two answers of which neither was seen are taken as independent.
        reference = self.lineup.reference
        live = -known.estimates[:, [reference]] * (1.0 - known.estimates)
        live[:, reference] = 0.0
        return live

    def _at(self, coefficients: Floats, rate: float) -> Floats:
        place = float(np.interp(np.log(rate), np.log(self.rates), np.arange(len(self.rates))))
        below = min(int(place), len(self.rates) - 2)
        share = place - below
        mixed: Floats = (1.0 - share) * coefficients[below] + share * coefficients[below + 1]
        return mixed

    def to_state(self) -> State:
        """Return what is kept on disk."""
        values = {
            "models": list(self.lineup.models),
            "reference": self.lineup.reference,
            "judged": sorted(self.lineup.judged),
            "objective": self.objective,
            "reference_usd": self.reference_usd,
            "depth": self.depth,
            "rates": list(self.rates),
        }
        arrays = {_name(calls, model): array for (calls, model), array in self.ahead.items()}
        return State(values=values, arrays=arrays)

    @classmethod
    def from_state(cls, state: State) -> ValueModel:
        """Make the model again. Raises RouterError for what no `to_state` has given."""
        try:
            values = state.values
            lineup = Lineup(
                tuple(map(str, values["models"])),
                int(values["reference"]),
                frozenset(map(int, values["judged"])),
            )
            objective, depth = values["objective"], int(values["depth"])
            rates = tuple(map(float, values["rates"]))
            reference_usd = float(values["reference_usd"])
        except (KeyError, TypeError, ValueError) as exc:
            raise RouterError(f"value model: {exc!r} in its description") from exc
        if objective not in ("quality", "floor") or not 1 <= depth <= DEEPEST or len(rates) < 2:
            raise RouterError("value model: objective, depth or rates are not of this version")
        if not (reference_usd > 0 and all(0 < a < b for a, b in pairwise(rates))):
            raise RouterError("value model: rates must rise from above 0, and money be positive")
        ahead = {}
        for calls, model in _steps(lineup, depth):
            array = state.arrays.get(_name(calls, model))
            if array is None or array.shape != (len(rates), WIDE) or not np.isfinite(array).all():
                expected = f"{_name(calls, model)} [{len(rates)}, {WIDE}]"
                raise RouterError(f"value model: expected finite numbers {expected}")
            ahead[calls, model] = array.astype(np.float64)
        return cls(lineup, objective, reference_usd, depth, rates, ahead)


def known_of(
    calls: Calls, first: Floats, quality: Floats, usd: Floats, beliefs: Beliefs, model: ValueModel
) -> tuple[Known, Ints]:
    """Return what is known after some calls, and which of the drafts is the one to serve.

    `quality` [n, len(calls)] are the drafts' calibrated qualities.
    """
    seen = Seen(calls, quality)
    estimates = beliefs.after(first, seen)
    if not calls:
        nothing = np.zeros(len(first))
        never = np.full(len(first), -np.inf)
        return Known(calls, estimates, never, nothing, nothing, usd), np.zeros(len(first), np.int64)
    worths = quality
    if model.objective == "floor":
        worths = -beliefs.harms(estimates, seen, model.lineup.reference)
    place = np.argmax(worths, axis=1)
    rows = np.arange(len(first))
    ordered = np.sort(quality, axis=1)
    second = ordered[:, -2] if len(calls) > 1 else np.zeros(len(first))
    known = Known(calls, estimates, worths[rows, place], quality[rows, place], second, usd)
    return known, np.asarray(calls, np.int64)[place]


def features_of(known: Known, live: Floats) -> Floats:
    """Return what the worth of each call is foretold from: [n, K, WIDE]."""
    estimates = known.estimates
    wide = estimates.shape[1]
    now = np.where(np.isfinite(known.worth), known.worth, 0.0)[:, None]
    # What the best of the others promises: the largest, or the second for the largest itself.
    unseen = live.copy()
    unseen[:, list(known.calls)] = -1.0
    order = np.sort(unseen, axis=1)
    largest, runner_up = order[:, [-1]], order[:, [-2]] if wide > 1 else order[:, [-1]]
    others = np.where(unseen >= largest, runner_up, largest)
    hope = np.maximum(live, known.worth[:, None])
    best, second = known.best[:, None], known.second[:, None]
    difficulty = estimates.mean(axis=1, keepdims=True)
    columns = (
        np.ones_like(live),
        hope,
        now,
        live,
        best,
        second,
        others,
        best * best,
        live * live,
        now * live,
        estimates * (1.0 - estimates),
        others * live,
        hope * others,
        difficulty,
    )
    return np.stack([np.broadcast_to(column, live.shape) for column in columns], axis=2)


def _steps(lineup: Lineup, depth: int) -> Iterator[tuple[Calls, int]]:
    for calls in lineup.courses(depth - 1):
        yield from ((calls, step) for step in sorted(lineup.judged - set(calls)))


def joined(calls: Calls, step: int) -> Calls:
    """Return the set of drafts seen once this one is."""
    return tuple(sorted((*calls, step)))


def _name(calls: Calls, step: int) -> str:
    return f"{'-'.join(map(str, calls)) or 'none'}.{step}"
