"""The floor's bounds, against their definitions and by simulation."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.guarantee import Floor, Wager, draws_needed, share_of_look, upper_bound, walk


def binomial_cdf(losses: int, count: int, share: float) -> float:
    return sum(
        math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(losses + 1)
    )


@given(st.integers(0, 60), st.integers(1, 60), st.sampled_from([0.01, 0.05, 0.2]))
def test_bound_is_the_share_at_which_so_few_losses_become_that_unlikely(losses, more, error):
    count = losses + more

    bound = upper_bound(losses, count, error)

    assert binomial_cdf(losses, count, bound) == pytest.approx(error, rel=1e-6)


def test_bound_is_one_where_nothing_speaks_against_it():
    assert upper_bound(0, 0, 0.05) == 1.0
    assert upper_bound(7, 7, 0.05) == 1.0


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError, match="3 of 2"):
        upper_bound(3, 2, 0.05)


# The research note's table of least draws, for 0, 1 and 2 losses.
@pytest.mark.parametrize(
    ("max_loss", "least"),
    [
        (0.10, (29, 46, 61)),
        (0.05, (59, 93, 124)),
        (0.02, (149, 236, 313)),
        (0.01, (299, 473, 628)),
        (0.005, (598, 947, 1258)),
    ],
)
def test_least_draws_are_those_of_the_exact_bound(max_loss, least):
    assert tuple(draws_needed(Floor(max_loss), k) for k in range(3)) == least


def test_walk_stops_at_the_first_point_that_fails():
    certified = walk([0, 1, 9, 0], 400, Floor(0.02))

    assert certified.chosen is not None
    assert certified.chosen.point == 1
    assert [tested.point for tested in certified.walked] == [0, 1, 2]


def test_nothing_is_certified_on_too_few_draws():
    assert walk([0, 0], 58, Floor(0.05)).chosen is None


def test_walk_breaks_its_promise_no_oftener_than_it_says():
    draw = random.Random(5)
    shares = [0.01, 0.03, 0.045, 0.06, 0.09]
    broken = 0
    for _ in range(600):
        ranks = [draw.random() for _ in range(400)]
        certified = walk([sum(r < s for r in ranks) for s in shares], 400, Floor(0.05))
        broken += certified.chosen is not None and shares[certified.chosen.point] > 0.05

    assert broken / 600 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 600)


def test_looks_together_spend_no_more_than_there_is():
    assert sum(share_of_look(0.05, look) for look in range(1, 5000)) < 0.05


@pytest.mark.parametrize("share", [0.05, 0.08])
def test_wager_is_rarely_won_where_the_floor_does_not_hold_however_often_one_looks(share):
    draw = random.Random(11)
    won = 0
    for _ in range(300):
        wager = Wager(Floor(0.05))
        wager.add(float(draw.random() < share) for _ in range(1500))
        won += wager.is_won

    assert won / 300 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


def test_wager_is_won_where_losses_are_rare():
    draw = random.Random(3)
    wager = Wager(Floor(0.05))

    wager.add(float(draw.random() < 0.01) for _ in range(600))

    assert wager.is_won


def test_wager_takes_no_loss_that_is_no_number():
    with pytest.raises(ValueError, match="nan"):
        Wager(Floor(0.05)).add([math.nan])


@pytest.mark.parametrize(("max_loss", "certainty"), [(0.0, 0.95), (0.02, 1.0), (math.nan, 0.9)])
def test_floors_that_promise_nothing_or_everything_are_refused(max_loss, certainty):
    with pytest.raises(ValueError, match="between 0 and 1"):
        Floor(max_loss, certainty)
