from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from router.calibration import (
    CalibrationError,
    Calibrator,
    RouteCalibrators,
    error_by_chance,
    fit_calibrator,
    reliability,
)
from router.metrics import brier, calibration_error
from router.state import State


def _overconfident(n, seed=0):
    """Estimates whose log-odds are three times too large, and what came of them."""
    chance = np.random.default_rng(seed)
    odds = chance.normal(0.3, 1.0, n)
    y = (chance.random(n) < 1 / (1 + np.exp(-odds))).astype(float)
    return 1 / (1 + np.exp(-3 * odds)), y


@pytest.mark.parametrize(("n", "kinds"), [
    (20, {"identity"}), (100, {"platt"}), (600, {"platt", "beta"}),
    (5_000, {"platt", "beta", "isotonic"}),
])  # fmt: skip
def test_a_calibrator_bends_no_more_than_its_labels_allow(n, kinds):
    assert fit_calibrator(*_overconfident(n)).kind in kinds


@pytest.mark.parametrize("n", [200, 1_000, 5_000])
def test_overconfident_estimates_become_honest_on_rows_never_seen(n):
    fitted = fit_calibrator(*_overconfident(n))
    p, y = _overconfident(20_000, seed=1)

    assert calibration_error(fitted(p), y) < 0.5 * calibration_error(p, y)
    assert brier(fitted(p), y) < brier(p, y)


def test_honest_estimates_are_hardly_touched():
    chance = np.random.default_rng(0)
    p = chance.uniform(0.05, 0.95, 3_000)
    y = (chance.random(3_000) < p).astype(float)

    assert np.abs(fit_calibrator(p, y)(p) - p).mean() < 0.03


def test_labels_that_are_all_alike_teach_nothing():
    assert fit_calibrator(np.linspace(0.1, 0.9, 500), np.ones(500)).kind == "identity"


def test_no_labels_at_all_teach_nothing():
    assert fit_calibrator(np.zeros(0), np.zeros(0)).kind == "identity"


def test_graded_labels_are_learnt_from():
    p = np.linspace(0.01, 0.99, 400)

    assert fit_calibrator(p, 0.5 * p)(np.array([0.8]))[0] == pytest.approx(0.4, abs=0.05)


@given(
    p=arrays.arrays(np.float64, 60, elements=st.floats(0, 1)),
    y=arrays.arrays(np.float64, 60, elements=st.sampled_from([0.0, 0.5, 1.0])),
    kind=st.sampled_from([60, 300, 1_200]),
)
def test_a_calibrator_never_turns_the_order_round(p, y, kind):
    fitted = fit_calibrator(np.resize(p, kind), np.resize(y, kind))
    found = fitted(np.linspace(0, 1, 101))

    assert (np.diff(found) >= -1e-12).all()
    assert ((found > 0) & (found < 1)).all()


@pytest.mark.parametrize("n", [20, 100, 600, 5_000])
def test_a_calibrator_comes_back_from_its_state(n):
    fitted = fit_calibrator(*_overconfident(n))
    p = np.linspace(0, 1, 50)

    assert np.array_equal(Calibrator.from_state(fitted.to_state())(p), fitted(p))


@pytest.mark.parametrize("state", [
    State(),
    State(values={"kind": "pickle"}),
    State(values={"kind": "platt"}, arrays={"values": np.array([1.0])}),
    State(values={"kind": "platt"}, arrays={"values": np.array([-1.0, 0.0])}),
    State(values={"kind": "platt"}, arrays={"values": np.array([np.nan, 0.0])}),
    State(values={"kind": "isotonic"}, arrays={"values": np.array([0.5, 0.5, 0.1, 0.2])}),
    State(values={"kind": "isotonic"}, arrays={"values": np.array([0.1, 0.5, 0.3, 0.2])}),
    State(values={"kind": "isotonic"}, arrays={"values": np.array([0.1, 0.5, 0.3, 1.2])}),
    State(values={"kind": "beta"}, arrays={"values": np.ones((3, 1))}),
])  # fmt: skip
def test_a_foreign_state_is_refused(state):
    with pytest.raises(CalibrationError, match="train the bundle again"):
        Calibrator.from_state(state)


@pytest.mark.parametrize(("p", "y"), [
    ([np.nan], [1.0]), ([0.5], [np.nan]), ([1.5], [1.0]), ([0.5], [2.0]), ([0.5, 0.5], [1.0]),
])  # fmt: skip
def test_estimates_and_labels_that_are_none_are_refused(p, y):
    with pytest.raises(CalibrationError, match="expected"):
        fit_calibrator(p, y)


def test_nan_is_passed_on_and_not_made_a_number():
    fitted = fit_calibrator(*_overconfident(5_000))

    assert np.isnan(fitted(np.array([np.nan, 0.5]))).tolist() == [True, False]


def test_a_route_with_labels_of_its_own_gets_its_own_curve():
    chance = np.random.default_rng(3)
    p = chance.uniform(0.05, 0.95, 4_000)
    routes = ["easy" if at % 2 else "hard" for at in range(4_000)]
    true = np.where(np.array(routes) == "easy", p**0.3, p**3)
    fitted = RouteCalibrators.fit(p, (chance.random(4_000) < true).astype(float), routes)
    found = fitted(np.array([0.5, 0.5, 0.5]), ["easy", "hard", "never seen"])

    assert found[0] > 0.7
    assert found[1] < 0.3
    assert found[2] == pytest.approx(fitted.overall(0.5))


def test_calibrators_by_route_come_back_from_their_state():
    p, y = _overconfident(2_000)
    routes = [None if at % 3 else "a" for at in range(2_000)]
    y = np.where([r == "a" for r in routes], 1 - y, y)
    fitted = RouteCalibrators.fit(p, y, routes)
    again = RouteCalibrators.from_state(fitted.to_state())

    assert np.array_equal(again(p, routes), fitted(p, routes))


@pytest.mark.parametrize("state", [
    State(), State(values={"routes": ["a"]}, parts={"overall": Calibrator().to_state()}),
    State(values={"routes": [1]}, parts={"overall": Calibrator().to_state()}),
])  # fmt: skip
def test_foreign_calibrators_by_route_are_refused(state):
    with pytest.raises(CalibrationError, match="train the bundle again"):
        RouteCalibrators.from_state(state)


def test_calibration_error_is_the_mean_gap_weighted_by_bins():
    p = np.array([0.1, 0.1, 0.9, 0.9])
    y = np.array([0.0, 1.0, 1.0, 1.0])

    assert calibration_error(p, y) == pytest.approx(0.5 * 0.4 + 0.5 * 0.1)
    assert [(b.count, b.said, b.came) for b in reliability(p, y)] == [
        (2, pytest.approx(0.1), 0.5), (2, pytest.approx(0.9), 1.0),
    ]  # fmt: skip


def test_perfect_estimates_stay_below_the_error_of_chance_as_often_as_promised():
    chance = np.random.default_rng(5)
    p = chance.uniform(0, 1, 500)
    limit = error_by_chance(p, draws=400)
    below = [
        calibration_error(p, (chance.random(500) < p).astype(float)) <= limit for _ in range(400)
    ]

    assert 0.91 < np.mean(below) < 0.99


def test_bad_estimates_exceed_the_error_of_chance():
    p, y = _overconfident(1_000)

    assert calibration_error(p, y) > error_by_chance(p)
