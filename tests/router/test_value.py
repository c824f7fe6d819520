"""The decision, in a world whose truth is known."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from router.beliefs import Beliefs, Seen
from router.state import State
from router.types import RouterError
from router.value import STOP, Known, Lineup, ValueModel
from router.value_fit import fit_value, simulate
from tests.support.worlds import world


@pytest.fixture(scope="module")
def records():
    return world(3000, seed=1)


@pytest.fixture(scope="module")
def later():
    return world(6000, seed=2)


@pytest.fixture(scope="module")
def beliefs(records):
    return Beliefs.fit(records.first, records.states(), records.score, 2, 0.0)


@pytest.fixture(scope="module")
def model(records, beliefs):
    return fit_value(records, beliefs, objective="quality")


def mixed(records, usd):
    """Return the quality of the best mix of two single models at this mean cost."""
    cost, quality = records.usd.mean(axis=0), records.score.mean(axis=0)
    return max(
        np.interp(usd, [cost[a], cost[b]], [quality[a], quality[b]])
        for a in range(3)
        for b in range(3)
        if cost[a] <= usd <= cost[b] and a != b
    )


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.2])
def test_learnt_course_beats_every_mix_of_single_models(model, beliefs, later, rate):
    run = simulate(model, beliefs, later, rate)

    assert run.quality(later).mean() > mixed(later, run.usd.mean()) + 0.03


def test_dearer_money_spends_no_more(model, beliefs, later):
    spent = [simulate(model, beliefs, later, rate).usd.mean() for rate in np.geomspace(0.01, 4, 8)]

    assert all(after <= before + 0.01 for before, after in pairwise(spent))
    assert spent[0] > 0.6
    assert spent[-1] < 0.05


def test_course_of_many_steps_is_worth_more_than_one_call(model, beliefs, later):
    one = fit_value(later.take(np.arange(3000)), beliefs, objective="quality", depth=1)
    deep = simulate(model, beliefs, later, 0.1)
    flat = simulate(one, beliefs, later, 0.1)

    def net(run):
        return run.quality(later).mean() - 0.1 * run.usd.mean()

    assert net(deep) > net(flat)


def test_floor_is_held_by_asking_the_reference_when_money_is_cheap(records, beliefs, later):
    model = fit_value(records, beliefs, objective="floor")
    cheap, dear = (simulate(model, beliefs, later, rate) for rate in (0.003, 1.0))

    assert later.is_worse(cheap.served).mean() < 0.002
    assert later.is_worse(dear.served).mean() > later.is_worse(cheap.served).mean()
    assert dear.usd.mean() < cheap.usd.mean()


def test_harm_is_calibrated(records, beliefs, later):
    for seen in later.states():
        estimates = beliefs.after(later.first, seen)
        harm = beliefs.harms(estimates, seen, 2)
        for place, served in enumerate(seen.models):
            worse = later.is_worse(np.full(len(later), served))

            assert harm[:, place].mean() == pytest.approx(worse.mean(), abs=0.02)


def test_reference_ends_a_request(model, beliefs, later):
    run = simulate(model, beliefs, later, 0.05)

    assert (run.served[run.called[:, 2]] == 2).all()


def test_state_comes_back_as_it_was(model, beliefs, later):
    again = ValueModel.from_state(model.to_state())
    same = Beliefs.from_state(beliefs.to_state())

    before, after = simulate(model, beliefs, later, 0.1), simulate(again, same, later, 0.1)
    assert (before.served == after.served).all()


def test_state_that_is_no_numbers_is_refused(model):
    state = model.to_state()
    name = next(iter(state.arrays))
    spoilt = {**state.arrays, name: state.arrays[name] * np.nan}

    with pytest.raises(RouterError, match=name):
        ValueModel.from_state(State(state.values, spoilt))


def test_beliefs_of_another_shape_are_refused():
    with pytest.raises(RouterError, match="move"):
        Beliefs.from_state(State(arrays={"move": np.zeros((1, 2)), "harm": np.zeros((3, 3))}))


def test_reference_may_not_be_judged():
    with pytest.raises(RouterError, match="reference"):
        Lineup(("a", "b"), 1, frozenset({0, 1}))


def test_untaught_beliefs_move_the_others_with_a_surprise():
    beliefs = Beliefs.untaught()
    first = np.array([[0.6, 0.8]])
    doubtful = beliefs.after(first, Seen((0,), np.array([[0.1]])))
    sure = beliefs.after(first, Seen((0,), np.array([[0.95]])))

    assert doubtful[0, 1] < 0.8 < sure[0, 1]


def test_request_stops_where_no_call_is_worth_its_price(model):
    estimates = np.array([[0.99, 0.5, 0.9]])
    known = Known((0,), estimates, np.array([0.99]), np.array([0.99]), np.zeros(1), np.ones((1, 3)))

    assert model.choose(known, 1.0).step[0] == STOP
