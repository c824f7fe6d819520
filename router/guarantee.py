"""The quality floor as a statement that holds: learn-then-test with exact bounds.

A *loss* is an answer that another tier than the reference served and that is worse
than the reference's; every other request of the route, the reference's own among
them, is no loss. The floor says that with probability `certainty` over the
calibration draw the share of losses among all requests is at most `max_loss`.

Operating points are tried in an order fixed on other data, from the one that always
asks the reference to the cheapest. Each is tested at the full error probability, and
the first that fails ends the walk: fixed-sequence testing needs no correction for
their number (Angelopoulos et al. 2021, "Learn then Test").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_MOST_LOOKS = 10_000


@dataclass(frozen=True, slots=True)
class Floor:
    """What is promised: at most this share of losses, with this probability."""

    max_loss: float
    certainty: float = 0.95

    def __post_init__(self) -> None:
        """Refuse shares outside (0, 1). Raises ValueError."""
        for name, value in (("max_loss", self.max_loss), ("certainty", self.certainty)):
            if not 0.0 < value < 1.0:
                raise ValueError(f"{name} must lie between 0 and 1, found {value:g}")

    @property
    def error(self) -> float:
        """Return the probability with which the promise may fail."""
        return 1.0 - self.certainty


@dataclass(frozen=True, slots=True)
class Tested:
    """One operating point as the calibration draw saw it; `bound` is the exact upper bound."""

    point: int
    losses: int
    count: int
    bound: float

    @property
    def rate(self) -> float:
        """Return the share of losses that was seen."""
        return self.losses / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True)
class Certified:
    """The walk's end: the last point whose bound held, or None, and every test made."""

    chosen: Tested | None
    walked: tuple[Tested, ...]


def upper_bound(losses: int, count: int, error: float) -> float:
    """Return the Clopper-Pearson upper bound of a share: too low with probability <= `error`.

    One without any draws, or where all are losses. Raises ValueError for impossible counts.
    """
    from scipy.special import betaincinv

    if not 0 <= losses <= count:
        raise ValueError(f"expected 0 <= losses <= count, found {losses} of {count}")
    if losses == count:
        return 1.0
    return float(betaincinv(losses + 1, count - losses, 1.0 - error))


def draws_needed(floor: Floor, losses: int = 0) -> int:
    """Return how many draws the floor needs at the least when so many of them are losses."""
    low, high = losses + 1, losses + 1
    while upper_bound(losses, high, floor.error) > floor.max_loss:
        low, high = high, high * 2
    while low < high:
        middle = (low + high) // 2
        if upper_bound(losses, middle, floor.error) > floor.max_loss:
            low = middle + 1
        else:
            high = middle
    return low


def walk(
    losses: Sequence[int], count: int, floor: Floor, *, error: float | None = None
) -> Certified:
    """Test operating points in their order; `losses[j]` are those of point j in `count` draws.

    `error` is what this look may spend of the floor's own, by default all of it.
    Point 0 is tested like the others: that it cannot lose is for the data to say.
    """
    spent = floor.error if error is None else error
    walked: list[Tested] = []
    chosen = None
    for point, lost in enumerate(losses):
        tested = Tested(point, lost, count, upper_bound(lost, count, spent))
        walked.append(tested)
        if tested.bound > floor.max_loss:
            break
        chosen = tested
    return Certified(chosen, tuple(walked))


def share_of_look(error: float, look: int) -> float:
    """Return what the `look`-th certification (from 1) may spend, so that all keep `error`.

    error / (k·(k+1)) sums to `error` over any number of looks (union bound).
    """
    if look < 1:
        raise ValueError(f"looks are counted from 1, found {look}")
    look = min(look, _MOST_LOOKS)
    return error / (look * (look + 1))


class Wager:
    """An anytime-valid test that the share of losses is at least `max_loss`.

    Capital grows by 1 + λ·(max_loss - loss) a draw, λ from the past only; under the
    hypothesis it is a supermartingale, so it reaches 1/error with probability at most
    `error`, whenever one looks (Ville; Waudby-Smith & Ramdas 2024, "Estimating means of
    bounded random variables by betting"). Losses may be graded, from 0 to 1.
    """

    __slots__ = ("_count", "_floor", "_logarithm", "_mean", "_squares", "most")

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._logarithm = 0.0
        self.most = 0.0
        self._count = 0
        self._mean = floor.max_loss
        self._squares = 0.0

    @property
    def is_won(self) -> bool:
        """Return whether the capital has ever reached 1/error: the floor is then certified."""
        return self.most >= -math.log(self._floor.error)

    def add(self, losses: Iterable[float]) -> None:
        """Bet on each draw in its order. Raises ValueError for a loss outside [0, 1]."""
        for loss in losses:
            if not 0.0 <= loss <= 1.0:
                raise ValueError(f"expected a loss from 0 to 1, found {loss}")
            self._logarithm += math.log1p(self._stake() * (self._floor.max_loss - loss))
            self.most = max(self.most, self._logarithm)
            self._learn(loss)

    def _stake(self) -> float:
        """Bet what maximises growth under the past mean and variance, never the whole capital.

        The growth of log(1 + λ(m - x)) is about λ(m - μ) - λ²(σ² + (m - μ)²)/2.
        """
        edge = self._floor.max_loss - self._mean
        spread = (self._squares + 0.25) / (self._count + 1)
        cap = 0.9 / (1.0 - self._floor.max_loss)
        return min(max(edge, 0.0) / (spread + edge * edge), cap) if self._count else min(0.5, cap)

    def _learn(self, loss: float) -> None:
        # The prior weighs one draw: the mean starts at the hypothesis, where nothing is bet.
        self._count += 1
        before = self._mean
        self._mean += (loss - before) / (self._count + 1)
        self._squares += (loss - before) * (loss - self._mean)
