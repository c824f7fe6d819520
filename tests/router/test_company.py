"""Calibration by company: what holds of a draft alone need not hold of one beside others."""

from __future__ import annotations

import numpy as np
import pytest

from router.calibration import CalibrationError, Calibrator, RouteCalibrators
from router.company import CompanyCalibrators
from router.state import State


@pytest.fixture(scope="module")
def sample():
    """Return estimates, labels, routes, others: too sure when alone, too shy beside others."""
    chance = np.random.default_rng(0)
    p, others = chance.uniform(0.05, 0.95, 1_500), np.arange(1_500) % 3
    odds = np.log(p / (1 - p)) * np.array([0.4, 1.5, 3.0])[others]
    y = (chance.random(1_500) < 1 / (1 + np.exp(-odds))).astype(float)
    return p, y, [None] * 1_500, others


def test_each_company_gets_a_curve_of_its_own(sample):
    fitted = CompanyCalibrators.fit(*sample)
    found = fitted(np.full(3, 0.8), [None] * 3, [0, 1, 2])

    assert found == pytest.approx([0.64, 0.89, 0.98], abs=0.06)


def test_a_company_with_few_labels_shares_the_curve_of_all(sample):
    p, y, routes, others = sample
    rare = np.where((others == 2) & (np.arange(len(p)) > 100), 1, others)
    fitted = CompanyCalibrators.fit(p, y, routes, rare)
    shared = RouteCalibrators.fit(p, y, routes)

    assert fitted([0.8], [None], [2]) == pytest.approx(shared([0.8], [None]))
    assert fitted([0.8], [None], [0])[0] < fitted([0.8], [None], [2])[0]


def test_they_come_back_from_their_state_and_from_one_made_for_any_company(sample):
    p, y, routes, others = sample
    fitted = CompanyCalibrators.fit(*sample)
    again = CompanyCalibrators.from_state(fitted.to_state())
    shared = RouteCalibrators.fit(p, y, routes)
    older = CompanyCalibrators.from_state(shared.to_state())

    assert np.array_equal(again(p, routes, others), fitted(p, routes, others))
    assert np.array_equal(older(p, routes, others), shared(p, routes))


@pytest.mark.parametrize("state", [
    State(), State(parts={"beside0": Calibrator().to_state()}),
    State(values={"routes": []}, parts={f"beside{at}": State() for at in range(3)}),
])  # fmt: skip
def test_a_foreign_state_is_refused(state):
    with pytest.raises(CalibrationError, match="train the bundle again"):
        CompanyCalibrators.from_state(state)
