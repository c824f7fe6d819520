"""Targets are met in a world whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from router.beliefs import Beliefs
from router.guarantee import Floor, walk
from router.targets import (
    Mix,
    Pacer,
    PriceOfQuality,
    Spend,
    certify,
    mix_for_spend,
    path_of,
    points,
    rate_of_price,
)
from router.value_fit import fit_value, simulate
from tests.support.worlds import world


@pytest.fixture(scope="module")
def records():
    return world(2500, seed=1)


@pytest.fixture(scope="module")
def beliefs(records):
    return Beliefs.fit(records.first, records.states(), records.score, 2, 0.0)


@pytest.fixture(scope="module")
def thrifty(records, beliefs):
    return fit_value(records, beliefs, objective="quality")


@pytest.fixture(scope="module")
def careful(records, beliefs):
    return fit_value(records, beliefs, objective="floor")


@pytest.mark.parametrize("usd_per_1k", [100.0, 500.0])
def test_spend_is_met_on_the_records_it_was_solved_on(thrifty, beliefs, usd_per_1k):
    later = world(1000, seed=2)
    mix = mix_for_spend(Spend(usd_per_1k), thrifty, beliefs, later)
    cheap, dear = (
        simulate(thrifty, beliefs, later, rate).usd.mean() for rate in (mix.rate, mix.other)
    )

    mean = (1 - mix.share) * cheap + mix.share * dear
    assert mean == pytest.approx(usd_per_1k / 1000, rel=1e-6)


def test_budget_beyond_need_spends_no_more_than_the_best_is_worth(thrifty, beliefs):
    mix = mix_for_spend(Spend(1e6), thrifty, beliefs, world(500, seed=2))

    assert mix.rate == pytest.approx(thrifty.rates[0])


def test_budget_below_the_cheapest_takes_the_cheapest(thrifty, beliefs):
    mix = mix_for_spend(Spend(1e-6), thrifty, beliefs, world(500, seed=2))

    assert mix.rate == pytest.approx(thrifty.rates[-1])


def test_mix_deals_its_rates_by_share():
    mix = Mix(1.0, 0.1, share=0.3)

    assert [mix.of(chance) for chance in (0.0, 0.29, 0.3, 0.99)] == [0.1, 0.1, 1.0, 1.0]


def test_dear_quality_buys_more_of_it(thrifty):
    assert rate_of_price(PriceOfQuality(0.01), thrifty) < rate_of_price(
        PriceOfQuality(0.001), thrifty
    )


def test_certified_floor_is_broken_no_oftener_than_it_says(careful, beliefs):
    floor = Floor(0.05)
    path = path_of(floor, careful, beliefs, world(1500, seed=3), steps=12)
    truth = points(careful, beliefs, world(15_000, seed=4), path)
    pool = world(6_000, seed=5)
    losses = np.stack(
        [pool.is_worse(simulate(careful, beliefs, pool, rate).served) for rate in path]
    )
    draw = np.random.default_rng(6)
    broken = 0
    for _ in range(200):
        rows = draw.choice(len(pool), 500, replace=False)
        chosen = walk([int(each[rows].sum()) for each in losses], 500, floor).chosen
        broken += chosen is not None and truth[chosen.point].loss > floor.max_loss

    assert broken / 200 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_certified_floor_saves_reference_calls(careful, beliefs):
    floor = Floor(0.05)
    path = path_of(floor, careful, beliefs, world(1500, seed=3), steps=12)

    rate, certified = certify(floor, careful, beliefs, path, world(1000, seed=7))

    assert rate is not None
    assert certified.chosen is not None
    assert certified.chosen.bound <= 0.05
    (point,) = points(careful, beliefs, world(5000, seed=8), [rate])
    assert point.reference_share < 0.8


def test_too_few_records_certify_nothing(careful, beliefs):
    rate, _ = certify(Floor(0.02), careful, beliefs, (0.003, 0.01), world(100, seed=7))

    assert rate is None


def test_pacer_brings_spending_to_its_budget(thrifty, beliefs):
    stream = world(4000, seed=9)
    runs = {
        rate: simulate(thrifty, beliefs, stream, rate).usd
        for rate in np.geomspace(thrifty.rates[0], thrifty.rates[-1], 20)
    }
    rates = np.array(list(runs))
    pacer = Pacer(Spend(200.0), thrifty.rates[0], (thrifty.rates[0], thrifty.rates[-1]))
    spent = []
    for row in range(len(stream)):
        nearest = rates[np.argmin(np.abs(np.log(rates) - math.log(pacer.rate)))]
        usd = float(runs[nearest][row])
        spent.append(usd)
        pacer.spent(usd)

    assert np.mean(spent[1000:]) == pytest.approx(0.2, rel=0.1)
